//! Telling a worker to stop.

use std::sync::atomic::{AtomicU32, Ordering};

/// Tells a worker to stop.
#[derive(Debug, Default)]
pub struct Stop {
    level: AtomicU32,
}

const LEAVE: u32 = 1;
const WANT: u32 = 2;
const AT_ONCE: u32 = 3;

impl Stop {
    /// A successor serves: finish what runs, hand back the rest. Nobody waits for the end, so there is time.
    pub fn leave(&self) {
        self.level.fetch_max(LEAVE, Ordering::AcqRel);
    }

    /// Finish what runs, refuse the rest.
    pub fn want(&self) {
        self.level.fetch_max(WANT, Ordering::AcqRel);
    }

    /// Do not wait for what runs.
    pub fn at_once(&self) {
        self.level.fetch_max(AT_ONCE, Ordering::AcqRel);
    }

    /// Whether to stop, for whichever reason.
    pub fn is_wanted(&self) -> bool {
        self.level.load(Ordering::Acquire) >= LEAVE
    }

    /// Whether a successor serves and nobody waits for the end.
    pub fn is_leaving(&self) -> bool {
        self.level.load(Ordering::Acquire) == LEAVE
    }

    /// Whether not even to wait.
    pub fn is_at_once(&self) -> bool {
        self.level.load(Ordering::Acquire) >= AT_ONCE
    }
}
