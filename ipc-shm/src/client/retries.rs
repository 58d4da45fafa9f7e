//! The retry budget: how many requests may be run a second time.
//!
//! A worker that dies of what it is asked would otherwise be asked all of it once more: by every client, at the moment when it
//! has just come back. So a client spends a token for each request that may have run and is sent again. Tokens come with the
//! calls, a fifth of one with each, and a few every second, for clients that call seldom; a full purse lasts for a burst.
//!
//! What provably never ran costs no token. It moves to the successor, which runs it for the first time; a budget would only
//! lose requests in an upgrade.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Tokens that come with a call.
pub const SHARE_OF_CALLS: f64 = 0.2;
/// Tokens that come with a second.
pub const PER_SECOND: f64 = 5.0;
/// Tokens that a purse holds; a new client's is full.
pub const MOST_TOKENS: f64 = 100.0;

/// What has become of a client's requests, as counters that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retries {
    /// Requests handed to a worker, those that were sent again included.
    pub sent: u64,
    /// Sent again because they never ran.
    pub moved: u64,
    /// Sent again though they may have run.
    pub again: u64,
    /// Not sent again for want of tokens.
    pub refused: u64,
}

/// A client's retry budget.
#[derive(Debug)]
pub struct RetryBudget {
    /// All that a call pays for: one addition. The purse is looked into when a worker was lost.
    sent: AtomicU64,
    moved: AtomicU64,
    again: AtomicU64,
    refused: AtomicU64,
    purse: Mutex<Purse>,
}

#[derive(Debug)]
struct Purse {
    tokens: f64,
    /// Calls that have brought their share.
    calls: u64,
    filled: Instant,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            sent: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            again: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            purse: Mutex::new(Purse { tokens: MOST_TOKENS, calls: 0, filled: Instant::now() }),
        }
    }
}

impl RetryBudget {
    /// A request was handed to a worker.
    pub fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that never ran is sent to the successor.
    pub fn count_moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a request that may have run may be sent once more; spends a token.
    pub fn may_run_again(&self) -> bool {
        self.may_run_again_at(Instant::now())
    }

    fn may_run_again_at(&self, now: Instant) -> bool {
        let mut purse = self.purse.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let counted = self.counted();
        let calls = counted.sent.saturating_sub(counted.moved + counted.again);
        let seconds = now.saturating_duration_since(purse.filled).as_secs_f64();
        let came = calls.saturating_sub(purse.calls) as f64 * SHARE_OF_CALLS + seconds * PER_SECOND;
        purse.tokens = (purse.tokens + came).min(MOST_TOKENS);
        purse.calls = purse.calls.max(calls);
        purse.filled = purse.filled.max(now);
        let may = purse.tokens >= 1.0;
        if may {
            purse.tokens -= 1.0;
        }
        let counter = if may { &self.again } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        may
    }

    /// The counters.
    pub fn counted(&self) -> Retries {
        Retries {
            sent: self.sent.load(Ordering::Relaxed),
            moved: self.moved.load(Ordering::Relaxed),
            again: self.again.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// How many of so many requests may run again.
    fn granted(budget: &RetryBudget, asked: u32, now: Instant) -> u32 {
        (0..asked).map(|_| u32::from(budget.may_run_again_at(now))).sum()
    }

    fn emptied() -> (RetryBudget, Instant) {
        let budget = RetryBudget::default();
        let now = budget.purse.lock().unwrap().filled;
        assert_eq!(granted(&budget, 1000, now), MOST_TOKENS as u32, "a new client's purse is full, and no fuller");
        (budget, now)
    }

    #[test]
    fn a_fifth_of_the_calls_may_run_again() {
        let (budget, now) = emptied();
        (0..100).for_each(|_| budget.count_sent());
        // Each grant below is sent as well, and brings nothing; the hundred grants above were not sent here.
        (0..100).for_each(|_| budget.count_sent());
        assert_eq!(granted(&budget, 1000, now), 20);
        assert_eq!(granted(&budget, 1000, now), 0);
    }

    #[test]
    fn what_is_sent_again_brings_no_tokens() {
        let (budget, now) = emptied();
        (0..100).for_each(|_| budget.count_sent()); // the hundred that were granted
        assert_eq!(granted(&budget, 10, now), 0);
        for _ in 0..50 {
            budget.count_moved();
            budget.count_sent();
        }
        assert_eq!(granted(&budget, 10, now), 0);
    }

    #[test]
    fn a_few_come_every_second_and_the_purse_has_an_end() {
        let (budget, now) = emptied();
        assert_eq!(granted(&budget, 1000, now + Duration::from_secs(2)), 10);
        assert_eq!(granted(&budget, 1000, now + Duration::from_secs(3600)), MOST_TOKENS as u32);
        let counted = budget.counted();
        assert_eq!((counted.again, counted.refused), (210, 3000 - 210));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_brings_nothing() {
        let (budget, now) = emptied();
        assert_eq!(granted(&budget, 10, now - Duration::from_millis(1)), 0);
        assert_eq!(granted(&budget, 10, now + Duration::from_millis(199)), 0);
        assert_eq!(granted(&budget, 10, now + Duration::from_millis(201)), 1);
    }
}
