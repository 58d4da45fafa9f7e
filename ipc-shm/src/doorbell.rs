//! Waking a sleeper, and only a sleeper.
//!
//! ```text
//!   producer                                 consumer
//!   1. commit the frame (Release)            a. store a new ticket n in the sleep word
//!   2. set the attention bit (RMW, Release)  b. fence(SeqCst)
//!   3. fence(SeqCst)                         c. look again: a frame? then take it, do not sleep
//!   4. sleep word is n, not 0?               d. poll the socket
//!      send one byte, THEN CAS n to 0
//! ```
//! Steps 1-3-4 and a-b-c are Dekker's pattern: of the two looks (4 at the word, c at the ring) at least one sees the
//! other side's store, because both fences are in one total order. So either the consumer finds the frame, or the
//! producer finds the ticket: no wake-up is lost. The byte goes out before the CAS: a producer that is stopped between
//! the two has already woken the sleeper. The ticket is new at every sleep, so a late CAS cannot clear a later sleep.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

/// No sleep lasts longer without a full look, whatever bytes were lost.
pub const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Producer, steps 3 and 4: wakes the consumer if it sleeps. Returns whether a byte was sent.
///
/// # Errors
/// `BrokenPipe` or `ConnectionReset`: the consumer's process has closed its end.
#[inline]
pub fn ring_if_asleep(word: &AtomicU64, bell: BorrowedFd<'_>) -> io::Result<bool> {
    fence(Ordering::SeqCst);
    let ticket = word.load(Ordering::Relaxed);
    if ticket == 0 {
        return Ok(false);
    }
    ring(bell)?;
    // Failing is fine: the sleeper has woken by itself, or sleeps again under another ticket.
    let _ = word.compare_exchange(ticket, 0, Ordering::Relaxed, Ordering::Relaxed);
    Ok(true)
}

/// Sends one byte. A full socket means that bytes wait there already.
pub fn ring(bell: BorrowedFd<'_>) -> io::Result<()> {
    match send(bell.as_raw_fd(), &[1], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

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

/// Consumer, steps a to d. `look` is asked between announcing the sleep and sleeping.
pub fn sleep(
    word: &AtomicU64,
    ticket: u64,
    bell: BorrowedFd<'_>,
    longest: Duration,
    mut look: impl FnMut() -> bool,
) -> io::Result<Woken> {
    debug_assert_ne!(ticket, 0);
    word.store(ticket, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    if look() {
        word.store(0, Ordering::Relaxed);
        return Ok(Woken::Look);
    }
    let mut polled = [PollFd::new(bell, PollFlags::POLLIN)];
    let longest = longest.min(LONGEST_SLEEP);
    let timeout = PollTimeout::try_from(longest.as_nanos().div_ceil(1_000_000) as i32).unwrap_or(PollTimeout::ZERO);
    let woken = match poll(&mut polled, timeout) {
        Ok(0) => Woken::TimedOut,
        Ok(_) => drain(bell)?,
        Err(Errno::EINTR) => Woken::Interrupted,
        Err(errno) => return Err(errno.into()),
    };
    word.store(0, Ordering::Relaxed);
    Ok(woken)
}

/// Takes the bytes that wait in the socket.
pub fn drain(bell: BorrowedFd<'_>) -> io::Result<Woken> {
    let mut bytes = [0; 64];
    match recv(bell.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
        Ok(0) | Err(Errno::ECONNRESET | Errno::EPIPE) => Ok(Woken::HungUp),
        Ok(_) | Err(Errno::EAGAIN) => Ok(Woken::Look),
        Err(Errno::EINTR) => Ok(Woken::Interrupted),
        Err(errno) => Err(errno.into()),
    }
}

/// Spins before sleeping only while it pays.
///
/// The budget doubles when what was waited for came while spinning and halves when it did not; at zero, one wait in 32
/// tries again for a short while. A gap in the clock during the spin means that this thread lost its core to somebody
/// who had work: the cores are busy, spinning takes from the others, so the budget drops to zero at once.
#[derive(Debug, Clone)]
pub struct SpinBudget {
    budget_ns: u64,
    waits: u32,
}

/// What one wake-up costs on this class of machine (see docs/performance.md): more spinning than that never pays.
const SPIN_MOST_NS: u64 = 50_000;
const SPIN_LEAST_NS: u64 = 2_000;
const SPIN_PROBE_NS: u64 = 8_000;
const LOST_CORE_NS: u64 = 30_000;

impl Default for SpinBudget {
    fn default() -> Self {
        Self { budget_ns: 16_000, waits: 0 }
    }
}

impl SpinBudget {
    /// Spins until `look` says yes or the budget is used up; returns whether it said yes.
    pub fn spin(&mut self, mut look: impl FnMut() -> bool) -> bool {
        if look() {
            return true;
        }
        self.waits = self.waits.wrapping_add(1);
        let budget = match self.budget_ns {
            0 if self.waits.is_multiple_of(32) => SPIN_PROBE_NS,
            0 => return false,
            some => some,
        };
        let started = crate::os::now_ns();
        let mut last = started;
        loop {
            for _ in 0..32 {
                std::hint::spin_loop();
                if look() {
                    self.budget_ns = (budget * 2).min(SPIN_MOST_NS);
                    return true;
                }
            }
            let now = crate::os::now_ns();
            if now - last > LOST_CORE_NS {
                self.budget_ns = 0;
                return false;
            }
            if now - started > budget {
                self.budget_ns = if budget / 2 < SPIN_LEAST_NS { 0 } else { budget / 2 };
                return false;
            }
            last = now;
        }
    }
}
