//! The descriptors of a session, for a forked child to close.
//!
//! Without a lock: what another thread of the parent had locked at the fork stays locked in the child.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

const NONE: RawFd = -1; // no descriptor

/// All of them. One that is just being opened at the fork may be missed; the child then keeps it open.
#[derive(Debug)]
pub(super) struct Descriptors(Box<[Place]>);

#[derive(Debug)]
struct Place {
    descriptor: AtomicI32,
}

impl Descriptors {
    pub fn new(room: usize) -> Self {
        Self((0..room).map(|_| Place { descriptor: AtomicI32::new(NONE) }).collect())
    }

    fn replace(&self, old: RawFd, new: RawFd) {
        let swap =
            |place: &Place| place.descriptor.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let _ = self.0.iter().any(swap);
    }

    /// Remembers a descriptor that has just been opened.
    pub fn add(&self, descriptor: RawFd) {
        self.replace(NONE, descriptor);
    }

    /// Forgets one that is about to be closed.
    pub fn remove(&self, descriptor: RawFd) {
        self.replace(descriptor, NONE);
    }

    /// Closes them all, each once.
    pub fn close(&self) {
        for place in &self.0 {
            let descriptor = place.descriptor.swap(NONE, Ordering::AcqRel);
            if descriptor != NONE {
                let _ = nix::unistd::close(descriptor);
            }
        }
    }
}
