//! The channels of a session that nobody uses just now, and when to ask the worker for one more.

use std::time::{Duration, Instant};

use super::channel::Channel;
use super::request::Failure;
use super::seek::jittered;

/// Idle channels that a session keeps however long nobody uses them.
const KEPT: usize = 2;
/// Others are given back when they have lain idle so long.
const IDLE_FOR: Duration = Duration::from_secs(5);
/// The worker is asked again after being refused: soon at first, then ten times a second.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What a session has besides the channels that are checked out.
#[derive(Debug)]
pub(super) struct Pool {
    /// The one that was used last comes out first, so the first is the one that has lain here longest.
    pub idle: Vec<Channel>,
    pub closed: bool,
    /// Threads that wait for a channel to come back: telling nobody would be a system call for every request.
    pub waiting: usize,
    /// When the worker may be asked for one more.
    pub ask_after: Instant,
    pause: Duration,
    /// Why it gave none when it was last asked.
    refused: Option<Failure>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            idle: Vec::new(),
            closed: false,
            waiting: 0,
            ask_after: Instant::now(),
            pause: FIRST_PAUSE,
            refused: None,
        }
    }
}

impl Pool {
    /// The channel that was used last. Late answers of abandoned requests wait in idle channels: reading them gives cells,
    /// blocks and leases back.
    pub fn take(&mut self) -> Option<Channel> {
        for idle in self.idle.iter_mut().filter(|idle| idle.in_flight() > 0) {
            idle.drop_late_answers();
            // One that is wanted back is closed after its next use.
            let _ = idle.lay_down();
        }
        self.idle.pop()
    }

    /// Puts a channel back, and hands out one to be closed: the one that has lain here longest, if that is too long by the
    /// clock of the one that came. (A process that makes no calls closes none. The worker takes back what it needs.)
    pub fn put(&mut self, channel: Channel) -> Option<Channel> {
        let now_ns = channel.used_ns();
        self.idle.push(channel);
        let longest = self.idle.first().filter(|_| self.idle.len() > KEPT)?;
        let idle_ns = now_ns.saturating_sub(longest.used_ns());
        (idle_ns > IDLE_FOR.as_nanos() as u64 && longest.in_flight() == 0).then(|| self.idle.remove(0))
    }

    /// Whether the worker may be asked for one more channel.
    pub fn may_ask(&self) -> bool {
        self.refused.is_none() || Instant::now() >= self.ask_after
    }

    /// The worker has given one.
    pub fn opened(&mut self) {
        (self.refused, self.pause) = (None, FIRST_PAUSE);
    }

    /// The worker has given none: it is asked again after a while.
    pub fn refused(&mut self, failure: Failure) {
        self.ask_after = Instant::now() + jittered(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.refused = Some(failure);
    }

    /// Why it gave none when it was last asked.
    pub fn why_refused(&self) -> Option<Failure> {
        self.refused.clone()
    }
}
