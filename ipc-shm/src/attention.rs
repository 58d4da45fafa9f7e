//! Attention bits: which channels and sessions have something for the worker.
//!
//! One bit a channel (a frame was committed, a request was cancelled) and one a session (leases were let go of). A client
//! sets its bit after the fact it tells of; the worker clears the bits before it looks for the facts. So a fact that
//! comes too late for this look leaves its bit set for the next.

use std::io;
use std::sync::atomic::Ordering;

use crate::doorbell::{self, Woken};
use crate::layout::{Geometry, attention::BITS};
use crate::mapping::Mapping;

/// Sets a channel's bit.
#[inline]
pub fn set_channel(map: &Mapping, geometry: &Geometry, channel: u32) {
    set(map, geometry.channel_word(channel as usize / BITS), channel);
}

/// Sets a session's bit.
pub fn set_session(map: &Mapping, geometry: &Geometry, session: u32) {
    set(map, geometry.session_word(session as usize / BITS), session);
}

#[inline]
fn set(map: &Mapping, word: usize, index: u32) {
    // Release: what was stored before is visible to whoever takes the bit.
    map.u64(word).fetch_or(1 << (index as usize % BITS), Ordering::Release);
}

/// Client, after a fact of its channel: sets the bit, then wakes the poller with `ring` if it sleeps. Returns whether it
/// rang.
///
/// # Errors
/// What `ring` said.
#[inline]
pub fn call(
    map: &Mapping,
    geometry: &Geometry,
    channel: u32,
    ring: impl FnOnce() -> io::Result<()>,
) -> io::Result<bool> {
    set_channel(map, geometry, channel);
    doorbell::ring_if_asleep(map.u64(geometry.worker_sleep()), ring)
}

/// Poller: sleeps until it is called, unless a bit is set already.
///
/// # Errors
/// What `wait` said.
pub fn sleep(
    map: &Mapping,
    geometry: &Geometry,
    ticket: u64,
    wait: impl FnOnce() -> io::Result<Woken>,
) -> io::Result<Woken> {
    doorbell::sleep(map.u64(geometry.worker_sleep()), ticket, || any(map, geometry), wait)
}

/// Whether any bit is set.
#[inline]
pub fn any(map: &Mapping, geometry: &Geometry) -> bool {
    (0..geometry.channel_words()).any(|word| map.u64(geometry.channel_word(word)).load(Ordering::Relaxed) != 0)
        || (0..geometry.session_words()).any(|word| map.u64(geometry.session_word(word)).load(Ordering::Relaxed) != 0)
}

/// Takes all channel bits, calling `each` for every one that was set.
#[inline]
pub fn take_channels(map: &Mapping, geometry: &Geometry, mut each: impl FnMut(u32)) {
    for word in 0..geometry.channel_words() {
        take(map, geometry.channel_word(word), word, &mut each);
    }
}

/// Takes all session bits.
#[inline]
pub fn take_sessions(map: &Mapping, geometry: &Geometry, mut each: impl FnMut(u32)) {
    for word in 0..geometry.session_words() {
        take(map, geometry.session_word(word), word, &mut each);
    }
}

#[inline]
fn take(map: &Mapping, at: usize, word: usize, each: &mut impl FnMut(u32)) {
    let bits = map.u64(at);
    // A plain look first: the swap takes the line away from every writer, and mostly there is nothing.
    if bits.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut set = bits.swap(0, Ordering::AcqRel);
    while set != 0 {
        let bit = set.trailing_zeros();
        set &= set - 1;
        each(word as u32 * BITS as u32 + bit);
    }
}
