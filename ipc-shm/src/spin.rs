//! Spinning before sleeping, only while it pays.
//!
//! `MOLT_SPIN=never` in a process's environment switches it off, to measure what it brings and what it costs.

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether waits spin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spinning {
    /// While it pays.
    Adaptive,
    /// Every wait sleeps at once.
    Never,
}

impl FromStr for Spinning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "adaptive" => Ok(Self::Adaptive),
            "never" => Ok(Self::Never),
            other => Err(format!("spinning is \"adaptive\" or \"never\", not \"{other}\"")),
        }
    }
}

/// What [`choose`] and the environment say: whether budgets made from now on never spin.
fn never() -> &'static AtomicBool {
    static NEVER: OnceLock<AtomicBool> = OnceLock::new();
    NEVER.get_or_init(|| AtomicBool::new(std::env::var_os("MOLT_SPIN").is_some_and(|value| value == "never")))
}

/// Decides for the waits of all channels opened from now on, whatever the environment says. For measurements.
#[doc(hidden)]
pub fn choose(spinning: Spinning) {
    never().store(spinning == Spinning::Never, Ordering::Relaxed);
}

/// How long to spin, learned from the waits before.
///
/// The budget doubles when what was waited for came while spinning and halves when it did not. At zero, a probe now and
/// then finds out whether spinning would pay again: after some sleeps that were so short that it might have (a caller who
/// comes seldom causes none). Every probe in vain doubles the short sleeps until the next. A gap in the
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
    /// Short sleeps until the next probe, and after how many the one after that.
    until_probe: u32,
    between_probes: u32,
    never: bool,
}

/// What one wake-up costs on this class of machine (two virtual cores: about 50 us there and back): more never pays.
const SPIN_MOST_NS: u64 = 60_000;
const SPIN_LEAST_NS: u64 = 2_000;
const SPIN_FIRST_NS: u64 = 16_000;
const CLIENT_PROBE_NS: u64 = 90_000;
const WORKER_PROBE_NS: u64 = 24_000;
/// A sleep this short was mostly wake-ups: two sides that spin would have waited less.
const SHORT_SLEEP_NS: u64 = 90_000;
const PROBE_AFTER: u32 = 16;
/// A client's probe in vain every 256 short sleeps costs a third of a microsecond a wait.
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
        Self {
            budget_ns: SPIN_FIRST_NS,
            probe_ns,
            until_probe: PROBE_AFTER,
            between_probes: PROBE_AFTER,
            never: never().load(Ordering::Relaxed),
        }
    }

    /// Takes note of a sleep of that length.
    pub fn slept(&mut self, nanoseconds: u64) {
        if nanoseconds < SHORT_SLEEP_NS {
            self.until_probe = self.until_probe.saturating_sub(1);
        }
    }

    /// Spins until `look` says yes or the budget is used up; returns whether it said yes.
    pub fn spin(&mut self, mut look: impl FnMut() -> bool) -> bool {
        if look() {
            return true;
        }
        if self.never {
            return false;
        }
        let probing = self.budget_ns == 0;
        if probing && self.until_probe > 0 {
            return false;
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
