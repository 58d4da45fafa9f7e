//! A channel that an event loop keeps: many requests in flight, answers in any order, the doorbell as its descriptor.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::os::now_ns;

use super::channel::{Channel, NotSubmitted};
use super::request::{Failure, Reply, Request};
use super::session::Session;

/// How long a worker that serves may take to open a channel.
const OPEN_WITHIN: Duration = Duration::from_millis(500);

/// The channel of one event loop.
#[derive(Debug)]
pub struct LoopChannel {
    channel: Channel,
}

/// What became of a submission.
#[derive(Debug)]
pub enum Submitted {
    /// On its way under this id.
    Id(u64),
    /// No room now: poll, then try again.
    Full,
    /// The worker is gone: open another loop channel.
    Gone(Failure),
    /// It cannot be sent at all.
    Refused(Failure),
}

impl LoopChannel {
    /// A channel of its own. Waits for the worker: for an event loop, a thread does that in its place.
    pub fn open(session: &Arc<Session>) -> Result<Self, Failure> {
        Self::open_within(session, OPEN_WITHIN)
    }

    /// The same, waiting no longer than that.
    pub fn open_within(session: &Arc<Session>, longest: Duration) -> Result<Self, Failure> {
        session.checkout(now_ns() + longest.as_nanos() as u64).map(Self::armed)
    }

    /// A channel that another one has left, if there is such a one; waits for nothing.
    pub fn idle(session: &Arc<Session>) -> Option<Self> {
        session.checkout_idle().map(Self::armed)
    }

    fn armed(mut channel: Channel) -> Self {
        channel.arm();
        Self { channel }
    }

    /// Readable when there is something to poll.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.channel.bell()
    }

    /// The session it belongs to.
    pub fn session(&self) -> &Arc<Session> {
        self.channel.session()
    }

    /// Sends a request.
    pub fn submit(&mut self, request: &Request<'_>) -> Submitted {
        let deadline = self.channel.session().deadline(request);
        match self.channel.submit(request, deadline) {
            Ok(id) => Submitted::Id(id),
            Err(NotSubmitted::Full(_)) => Submitted::Full,
            Err(NotSubmitted::Failed(failure)) if self.channel.is_broken() => Submitted::Gone(failure),
            Err(NotSubmitted::Failed(failure)) => Submitted::Refused(failure),
        }
    }

    /// Up to `most` answers, time-outs and losses that are ready. When fewer come, the doorbell is armed.
    pub fn poll(&mut self, most: usize) -> Vec<(u64, Result<Reply, Failure>)> {
        self.channel.drain_bell();
        let mut ready = Vec::new();
        loop {
            while ready.len() < most {
                let Some((id, reply)) = self.channel.next_reply() else { break };
                ready.push((id, Ok(reply)));
            }
            if ready.len() >= most {
                return ready;
            }
            for id in self.channel.overdue(now_ns()).into_iter().take(most - ready.len()) {
                let failure = if self.channel.is_broken() { self.channel.lose(id) } else { self.channel.time_out(id) };
                ready.push((id, Err(failure)));
            }
            if ready.len() >= most || self.channel.is_broken() || self.channel.arm() {
                if ready.is_empty() && self.awaits() {
                    self.channel.session().look_for_scans();
                }
                return ready;
            }
        }
    }

    /// Whether the worker is gone.
    pub fn is_broken(&self) -> bool {
        self.channel.is_broken()
    }

    /// Whether somebody waits for an answer from it.
    pub fn awaits(&self) -> bool {
        !self.channel.awaited().is_empty()
    }

    /// Takes a request back: its answer never comes out of `poll`.
    pub fn cancel(&mut self, id: u64) {
        self.channel.abandon(id);
    }

    /// Takes back what is in flight and puts the channel into the session's pool.
    pub fn close(mut self) {
        for id in self.channel.awaited() {
            self.channel.abandon(id);
        }
        self.channel.check_in();
    }

    /// Requests in flight, abandoned ones included.
    pub fn in_flight(&self) -> usize {
        self.channel.in_flight()
    }
}
