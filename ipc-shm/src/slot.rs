//! Slots: how the worker makes a session's and a channel's words ready for their next user.
//!
//! Only the worker writes these words, and only while no client has the slot: its last user's process is dead, or has let
//! go of it and nothing of the worker's still answers there. That it has let go is what the client says in the slot itself
//! ([`let_go_of_session`], [`checkout::give_back`]): a socket that was closed does not say so, since a process can lose its
//! descriptors and go on writing to what it has mapped. Its next user learns of the slot through a socket, after all of this.
//! So what a user leaves behind, wherever it was killed, is gone before the next one looks: positions begin at zero, no frame,
//! cell, ticket or released lease of the last user is left. The state is stored last, for tools.

use std::sync::atomic::Ordering;

use crate::checkout;
use crate::layout::{Geometry, SlotState, channel, session, slot_word};
use crate::mapping::Mapping;

fn next_generation(map: &Mapping, word: usize) -> u64 {
    (map.u64(word).load(Ordering::Relaxed) >> 8) + 1
}

/// Clears what the last session let go of, and says which generation the slot has now. [`show_session`] opens it.
pub fn prepare_session(map: &Mapping, geometry: &Geometry, slot: u32) -> u64 {
    let at = geometry.session(slot);
    map.zero(at + session::RELEASED, geometry.leases_per_session as usize / 8);
    next_generation(map, at + session::WORD)
}

/// Says in which state the session is, after its other words.
pub fn show_session(map: &Mapping, geometry: &Geometry, slot: u32, generation: u64, state: SlotState) {
    map.u64(geometry.session(slot) + session::WORD).store(slot_word(generation, state), Ordering::Release);
}

/// Makes a channel ready for a session, and says which generation it has.
pub fn open_channel(map: &Mapping, geometry: &Geometry, index: u32, session: u32) -> u64 {
    let slot = geometry.channel(index);
    let words = [
        channel::REQUEST_HEAD,
        channel::REQUEST_TAIL,
        channel::RESPONSE_HEAD,
        channel::RESPONSE_TAIL,
        channel::RESPONSE_SLEEP,
        channel::ROOM_SLEEP,
    ];
    words.iter().for_each(|word| map.u64(slot + word).store(0, Ordering::Relaxed));
    map.zero(geometry.cell(index, 0), geometry.cells_per_channel as usize * 8);
    let generation = next_generation(map, slot + channel::WORD);
    checkout::give(map.u64(slot + channel::CHECKOUT), generation);
    map.u32(slot + channel::SESSION).store(session, Ordering::Relaxed);
    map.u64(slot + channel::WORD).store(slot_word(generation, SlotState::Active), Ordering::Release);
    generation
}

/// Nobody has the channel any more.
pub fn free_channel(map: &Mapping, geometry: &Geometry, index: u32, generation: u64) {
    map.u64(geometry.channel(index) + channel::WORD).store(slot_word(generation, SlotState::Free), Ordering::Release);
}

/// Client: it was given a session, and uses its slot, channels and extents from now on.
pub fn hold_session(map: &Mapping, geometry: &Geometry, slot: u32, generation: u64) {
    map.u64(geometry.session(slot) + session::HELD).store(generation, Ordering::Release);
}

/// Client: it will never touch them again. Said before the socket is closed.
pub fn let_go_of_session(map: &Mapping, geometry: &Geometry, slot: u32, generation: u64) {
    let held = map.u64(geometry.session(slot) + session::HELD);
    // A CAS: said late, by a finalizer say, it takes nothing from the slot's next user.
    let _ = held.compare_exchange(generation, 0, Ordering::Release, Ordering::Relaxed);
}

/// Worker: whether the session's client still uses it. To be asked after its socket was closed.
pub fn is_session_held(map: &Mapping, geometry: &Geometry, slot: u32, generation: u64) -> bool {
    map.u64(geometry.session(slot) + session::HELD).load(Ordering::Acquire) == generation
}
