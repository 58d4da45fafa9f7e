//! Who may use a channel: its client while it has checked it out; nobody while it lies idle.
//!
//! ```text
//!   IN_USE <-> IDLE -> RETURNED         the client checks in and out; the worker takes back what lies idle
//!     |                   ^
//!     +--> WANTED         |             the worker asks for it: the client closes it instead of checking it in
//!     +------+------------+             the client gives it back before it closes the doorbell
//! ```
//! A process keeps channels that it does not use just now. The worker gives them to who has none, without asking: their
//! client may be asleep, or stopped. So a client moves the word before it touches rings, cells or sleep words, and after
//! it has last done so. A channel is idle only if none of its requests is unanswered and no answer unread. The word names
//! the slot's generation: who was away while the channel got another user does not take that one's idle channel for its own.
//!
//! That a client has done with a channel for good is said here too, not by the doorbell that is closed: a process can lose
//! its descriptors and go on writing to what it has mapped.

use std::sync::atomic::Ordering;

use crate::word::Word64;

/// What a channel's word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Use {
    /// Checked out. A new channel is given out so.
    InUse = 0,
    /// In its client's pool.
    Idle = 1,
    /// Checked out, and wanted back.
    Wanted = 2,
    /// The worker's again: taken back, or given back.
    Returned = 3,
}

fn word(generation: u64, state: Use) -> u64 {
    generation << 8 | state as u64
}

fn advance(at: &Word64, generation: u64, from: Use, to: Use, success: Ordering) -> bool {
    at.compare_exchange(word(generation, from), word(generation, to), success, Ordering::Relaxed).is_ok()
}

/// Worker: a new channel is its client's.
pub fn give(at: &Word64, generation: u64) {
    at.store(word(generation, Use::InUse), Ordering::Relaxed);
}

/// Client: the channel is about to be used; `false`: the worker has taken it back.
#[inline]
pub fn check_out(at: &Word64, generation: u64) -> bool {
    advance(at, generation, Use::Idle, Use::InUse, Ordering::Relaxed)
}

/// Client: the channel is not used any more; `false`: it is wanted back, so it is to be closed.
#[inline]
pub fn check_in(at: &Word64, generation: u64) -> bool {
    // Release: all that was done with the channel comes before what its next user does.
    advance(at, generation, Use::InUse, Use::Idle, Ordering::Release)
}

/// Client: it will never touch the channel again. Said before the doorbell is closed. Said late, by a finalizer say, it takes
/// nothing from the channel's next user.
pub fn give_back(at: &Word64, generation: u64) {
    // IN_USE before WANTED: the worker may ask for it in between.
    let states = [Use::Idle, Use::InUse, Use::Wanted];
    // Release: as when it is checked in.
    let _ = states.into_iter().any(|from| advance(at, generation, from, Use::Returned, Ordering::Release));
}

/// Worker: whether the client has given the channel back. To be asked after its doorbell was closed.
pub fn is_given_back(at: &Word64, generation: u64) -> bool {
    at.load(Ordering::Acquire) == word(generation, Use::Returned)
}

/// Worker: takes the channel back if it lies idle.
pub fn take_back(at: &Word64, generation: u64) -> bool {
    advance(at, generation, Use::Idle, Use::Returned, Ordering::Acquire)
}

/// Worker: asks for a channel that is in use; `false`: it is idle, or has been asked for.
pub fn want(at: &Word64, generation: u64) -> bool {
    advance(at, generation, Use::InUse, Use::Wanted, Ordering::Relaxed)
}
