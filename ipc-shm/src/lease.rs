//! Leases: how a client lets go of a result without a lock, a ring or an allocation.
//!
//! The worker numbers the results that a session holds. Letting go of lease n sets bit n of the session's bitmap and the
//! session's attention bit: two atomic ORs, from any thread at any moment, a finalizer's included. No doorbell is rung
//! for it: the worker takes the bits at its next look, which it also does before it calls the arena full.

use std::sync::atomic::Ordering;

use crate::attention;
use crate::layout::{Geometry, session};
use crate::mapping::Mapping;

/// Client: lets go of a lease.
pub fn release(map: &Mapping, geometry: &Geometry, slot: u32, lease: u32) {
    let at = geometry.session(slot) + session::RELEASED + lease as usize / 64 * 8;
    map.u64(at).fetch_or(1 << (lease % 64), Ordering::Release);
    attention::set_session(map, geometry, slot);
}

/// Worker: takes the leases that were let go of.
pub fn take_released(map: &Mapping, geometry: &Geometry, slot: u32, mut each: impl FnMut(u32)) {
    for index in 0..geometry.leases_per_session / 64 {
        let word = map.u64(geometry.session(slot) + session::RELEASED + index as usize * 8);
        if word.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let mut bits = word.swap(0, Ordering::AcqRel);
        while bits != 0 {
            each(index * 64 + bits.trailing_zeros());
            bits &= bits - 1;
        }
    }
}
