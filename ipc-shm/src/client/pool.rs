//! The channels of a session that nobody uses just now, and when to ask the worker for one more.

use std::time::{Duration, Instant};

use super::channel::Channel;
use super::request::Failure;
use super::seek::jittered;

/// The worker is asked again after being refused: soon at first, then ten times a second.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What a session has besides the channels that are checked out.
#[derive(Debug)]
pub(super) struct Pool {
    /// The one that was used last comes out first.
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
        self.idle.iter_mut().filter(|idle| idle.in_flight() > 0).for_each(Channel::drop_late_answers);
        self.idle.pop()
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
