//! The client's side of the protocol.
//!
//! The way of a call: [`Client::call`] takes the process's [`Session`], checks a [`Channel`] out of its pool, `submit`s a
//! frame, `wait`s for the answer and puts the channel back. An event loop keeps a channel of its own: [`LoopChannel`].

mod channel;
mod descriptors;
pub(crate) mod dial;
mod event_loop;
pub mod forks;
mod holdings;
mod parts;
mod request;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::os::now_ns;
use crate::{Address, Outcome, Segment};

pub use channel::{Channel, Waited};
pub use event_loop::{LoopChannel, Submitted};
pub use holdings::{ClientBlock, Lease};
pub use request::{Body, Failure, OwnedRequest, Payload, Reply, Request};
pub use session::Session;

/// How long a call may take when neither it, nor its entry, nor the settings say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A process's way to one worker. It finds the worker again by itself after a restart.
#[derive(Debug)]
pub struct Client {
    address: Address,
    current: Mutex<Option<Arc<Session>>>,
}

/// How long a request that lost its worker waits for the successor, within its own deadline: a supervised worker is back
/// sooner, and where nobody starts one the caller should know soon.
const SUCCESSOR_WITHIN: Duration = Duration::from_millis(500);

/// A worker that does not say within this time where its segment is hangs.
pub const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// A call that came back unfinished: a signal arrived, or a tenth of a second passed. It goes on in the worker until it is
/// waited for again or cancelled.
#[derive(Debug)]
pub struct Pending {
    channel: Channel,
    id: u64,
    /// What to send again if the worker is lost meanwhile.
    request: OwnedRequest,
    /// It has been sent a second time already.
    again: bool,
}

/// How a blocking call came back.
#[derive(Debug)]
pub enum Called {
    /// Answered by the worker; `true`: it was sent a second time.
    Reply(Reply, bool),
    /// A signal arrived while waiting.
    Interrupted(Box<Pending>),
}

impl Client {
    /// Attaches by the segment's name, waiting up to `wait` for the worker to serve.
    pub fn attach(name: &str, socket: Option<PathBuf>, wait: Duration) -> Result<Self, Failure> {
        Self::attach_to(Address::Name { shm: name.into(), socket }, wait)
    }

    /// Attaches by a name or by a socket alone, waiting up to `wait` for the worker to serve.
    pub fn attach_to(address: Address, wait: Duration) -> Result<Self, Failure> {
        let session = Session::attach(&address, wait)?;
        Ok(Self { address, current: Mutex::new(Some(session)) })
    }

    /// Where the worker is found.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The segment to look at: the one that this client has attached to, which works while the worker hangs or is dead;
    /// without a session, the one that is found now.
    pub fn look(&self) -> Result<Segment, Failure> {
        let current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        match current {
            Some(session) if session.segment.is_nameless() && session.segment.is_alive() => Ok(session.segment.clone()),
            _ => self.address.look(LOOK_WITHIN),
        }
    }

    /// The session: the present one, or a new one if the worker has been started anew.
    pub fn session(&self) -> Result<Arc<Session>, Failure> {
        self.session_within(Duration::ZERO)
    }

    fn session_within(&self, wait: Duration) -> Result<Arc<Session>, Failure> {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(session) = current.as_ref().filter(|session| !session.is_dead()) {
            return Ok(session.clone());
        }
        *current = None;
        let session = Session::attach(&self.address, wait)?;
        Ok(current.insert(session).clone())
    }

    /// Calls an entry and waits. A request that provably never ran is sent once more to the worker's successor; one that
    /// may have run only if it is idempotent. Both within the one deadline.
    pub fn call(&self, request: &Request<'_>) -> Result<Called, Failure> {
        let session = self.session()?;
        let deadline = session.deadline(request);
        match self.attempt(&session, request, deadline, false) {
            Err(failure) if may_resend(request, &failure) => self.resend(request, deadline, failure),
            other => other,
        }
    }

    fn resend(&self, request: &Request<'_>, deadline: u64, first: Failure) -> Result<Called, Failure> {
        let left = Duration::from_nanos(deadline.saturating_sub(now_ns()));
        // If there is no successor, the first failure says more than its absence.
        let Ok(session) = self.session_within(left.min(SUCCESSOR_WITHIN)) else { return Err(first) };
        self.attempt(&session, request, deadline, true)
    }

    fn attempt(
        &self,
        session: &Arc<Session>,
        request: &Request<'_>,
        deadline: u64,
        again: bool,
    ) -> Result<Called, Failure> {
        let mut channel = session.checkout(deadline)?;
        let id = match channel.submit_waiting(request, deadline) {
            Ok(id) => id,
            Err(failure) => {
                channel.check_in();
                return Err(failure);
            }
        };
        match self.settle(&mut channel, id) {
            None => {
                let request = OwnedRequest::of(request, channel.blocks_of(id));
                Ok(Called::Interrupted(Box::new(Pending { channel, id, request, again })))
            }
            Some(settled) => {
                channel.check_in();
                settled.map(|reply| Called::Reply(reply, again))
            }
        }
    }

    /// Waits on for an interrupted call.
    pub fn resume(&self, mut pending: Box<Pending>) -> Result<Called, Failure> {
        let deadline = pending.channel.deadline_of(pending.id).unwrap_or_else(now_ns);
        let Some(settled) = self.settle(&mut pending.channel, pending.id) else {
            return Ok(Called::Interrupted(pending));
        };
        let Pending { channel, request, again, .. } = *pending;
        channel.check_in();
        match settled {
            Ok(reply) => Ok(Called::Reply(reply, again)),
            Err(failure) => request.with(|request| {
                if !again && may_resend(request, &failure) {
                    self.resend(request, deadline, failure)
                } else {
                    Err(failure)
                }
            }),
        }
    }

    /// Waits for an answer; `None`: interrupted.
    fn settle(&self, channel: &mut Channel, id: u64) -> Option<Result<Reply, Failure>> {
        match channel.wait(id) {
            // A worker that refuses because it stops is as good as gone: its successor is looked up.
            Waited::Reply(reply) if reply.outcome == Outcome::Unavailable => {
                self.forget(channel.session());
                Some(Err(reply.into_failure()))
            }
            Waited::Reply(reply) => Some(Ok(reply)),
            Waited::Failed(failure) => Some(Err(failure)),
            Waited::Interrupted => None,
        }
    }

    /// Takes an interrupted call back.
    pub fn cancel(&self, mut pending: Box<Pending>) {
        pending.channel.abandon(pending.id);
        pending.channel.check_in();
    }

    /// Leaves that session: if it is still the present one, the next call attaches anew.
    pub fn forget(&self, session: &Arc<Session>) {
        session.mark_dead();
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if current.as_ref().is_some_and(|present| Arc::ptr_eq(present, session)) {
            *current = None;
        }
    }

    /// Ends the session, as soon as the last reply, table or block of it is gone.
    pub fn close(&self) {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(session) = current.take() {
            session.close_idle_channels();
        }
    }

    /// In a forked child: closes the inherited sockets and forgets everything else without touching it.
    pub fn forked(&self) {
        // A thread of the parent may have held the lock at the fork: then there is nothing to be had through it, and
        // `forks::in_child` has closed the descriptors.
        if let Ok(mut current) = self.current.try_lock()
            && let Some(session) = current.take()
        {
            session.close_inherited();
            std::mem::forget(session);
        }
    }
}

fn may_resend(request: &Request<'_>, failure: &Failure) -> bool {
    let safe = match failure.outcome {
        Outcome::Unavailable => failure.submitted,
        Outcome::WorkerLost => failure.idempotent,
        _ => false,
    };
    safe && request.resend
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

/// When a wait until `deadline_ns` ends, as std counts; for condition variables.
fn instant_of(deadline_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(deadline_ns.saturating_sub(now_ns()))
}
