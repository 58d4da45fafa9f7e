//! Waking a sleeper, and only a sleeper.
//!
//! ```text
//!   producer                                 consumer
//!   1. commit the frame (Release)            a. swap a new ticket n into the sleep word
//!   2. set the attention bit (RMW, Release)  b. fence(SeqCst)
//!   3. fence(SeqCst)                         c. look again: a frame? then take it, do not sleep
//!   4. sleep word is n, not 0?               d. wait at the socket
//!      send one byte, THEN CAS n to 0
//! ```
//! Steps 1-3-4 and a-b-c are Dekker's pattern: of the two looks (4 at the word, c at the ring) at least one sees the
//! other side's store, because both fences are in one total order. So either the consumer finds the frame, or the
//! producer finds the ticket: no wake-up is lost. The byte goes out before the CAS: a producer that is stopped between
//! the two has already woken the sleeper. The ticket is new at every sleep, so a late CAS cannot clear a later sleep.
//!
//! Here is the protocol; the socket itself is in `bell`.

use std::io;
use std::sync::atomic::Ordering;

use crate::word::{Word64, fence};

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// A byte came, or what was waited for was there already: look.
    Look,
    /// Nothing came in all the time.
    TimedOut,
    /// The other side's process has closed its end.
    HungUp,
    /// A signal arrived.
    Interrupted,
}

/// Producer, steps 3 and 4: wakes the consumer with `ring` if it sleeps. Returns whether it rang.
///
/// # Errors
/// What `ring` said: the consumer's process has closed its end.
#[inline]
pub fn ring_if_asleep(word: &Word64, ring: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
    fence(Ordering::SeqCst);
    let ticket = word.load(Ordering::Relaxed);
    if ticket == 0 {
        return Ok(false);
    }
    ring()?;
    // Failing is fine: the sleeper has woken by itself, or sleeps again under another ticket.
    let _ = word.compare_exchange(ticket, 0, Ordering::Relaxed, Ordering::Relaxed);
    Ok(true)
}

/// Consumer, steps a and b: says that it is about to sleep. What is looked at after this is either found, or rung for.
#[inline]
pub fn announce(word: &Word64, ticket: u64) {
    debug_assert_ne!(ticket, 0);
    set(word, ticket);
    fence(Ordering::SeqCst);
}

/// Consumer, steps a to d: announces, asks `look` once more, and waits only if there is nothing.
///
/// # Errors
/// What `wait` said.
pub fn sleep(
    word: &Word64,
    ticket: u64,
    look: impl FnOnce() -> bool,
    wait: impl FnOnce() -> io::Result<Woken>,
) -> io::Result<Woken> {
    announce(word, ticket);
    let woken = if look() { Ok(Woken::Look) } else { wait() };
    set(word, 0);
    woken
}

/// Consumer: replaces what the word holds. A store would do: a producer's CAS stands right behind the ticket that it took
/// away, so before whatever the consumer stores next. The model does not know that rule and would see lost wake-ups that
/// cannot be; with a swap the order is plain to it, and who goes to sleep can afford one.
#[inline]
fn set(word: &Word64, value: u64) {
    word.swap(value, Ordering::Relaxed);
}
