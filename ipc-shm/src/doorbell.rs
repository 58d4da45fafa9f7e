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
/// The budget doubles when what was waited for came while spinning and halves when it did not. At zero, a probe now and
/// then finds out whether spinning would pay again; every probe in vain doubles the waits until the next. A gap in the
/// clock during the spin means that this thread lost its core to somebody who had work: the cores are busy, spinning
/// takes from the others, so the budget drops to zero at once.
///
/// Two sides that both sleep answer each other slowly, so neither would ever see a short wait. The client's probe is
/// therefore longer than a whole round trip with a sleeping worker; once it spins, its requests follow one another
/// quickly, and the worker's shorter probe finds that out.
#[derive(Debug, Clone)]
pub struct SpinBudget {
    budget_ns: u64,
    probe_ns: u64,
    /// Waits until the next probe, and after how many the one after that.
    until_probe: u32,
    between_probes: u32,
}

/// What one wake-up costs on this class of machine (two virtual cores: about 50 us there and back): more never pays.
const SPIN_MOST_NS: u64 = 60_000;
const SPIN_LEAST_NS: u64 = 2_000;
const SPIN_FIRST_NS: u64 = 16_000;
const CLIENT_PROBE_NS: u64 = 90_000;
const WORKER_PROBE_NS: u64 = 24_000;
const PROBE_AFTER: u32 = 16;
/// A client's probe in vain every 256 waits costs a third of a microsecond a wait.
const PROBE_AFTER_MOST: u32 = 256;
const LOST_CORE_NS: u64 = 30_000;

impl SpinBudget {
    /// For who waits for an answer.
    pub fn client() -> Self {
        Self::probing(CLIENT_PROBE_NS)
    }

    /// For who waits for requests.
    pub fn worker() -> Self {
        Self::probing(WORKER_PROBE_NS)
    }

    fn probing(probe_ns: u64) -> Self {
        Self { budget_ns: SPIN_FIRST_NS, probe_ns, until_probe: PROBE_AFTER, between_probes: PROBE_AFTER }
    }

    /// Spins until `look` says yes or the budget is used up; returns whether it said yes.
    pub fn spin(&mut self, mut look: impl FnMut() -> bool) -> bool {
        if look() {
            return true;
        }
        let probing = self.budget_ns == 0;
        if probing {
            self.until_probe = self.until_probe.saturating_sub(1);
            if self.until_probe > 0 {
                return false;
            }
        }
        let budget = if probing { self.probe_ns } else { self.budget_ns };
        let started = crate::os::now_ns();
        let mut last = started;
        loop {
            for _ in 0..32 {
                std::hint::spin_loop();
                if look() {
                    self.budget_ns = (budget * 2).min(SPIN_MOST_NS);
                    self.between_probes = PROBE_AFTER;
                    return true;
                }
            }
            let now = crate::os::now_ns();
            let lost_core = now - last > LOST_CORE_NS;
            if lost_core || now - started > budget {
                let half = if probing || lost_core { 0 } else { self.budget_ns / 2 };
                self.budget_ns = if half < SPIN_LEAST_NS { 0 } else { half };
                if probing || lost_core {
                    self.between_probes = (self.between_probes * 2).min(PROBE_AFTER_MOST);
                }
                self.until_probe = self.between_probes;
                return false;
            }
            last = now;
        }
    }
}
