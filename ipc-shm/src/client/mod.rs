//! The client's side of the protocol.
//!
//! The way of a call: [`Client::call`] takes the process's [`Session`], checks a [`Channel`] out of its pool, `submit`s a
//! frame, `wait`s for the answer and puts the channel back. An event loop keeps a channel of its own: [`LoopChannel`].

mod channel;
mod event_loop;
mod request;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::os::now_ns;

pub use channel::{Channel, Waited};
pub use event_loop::{LoopChannel, Submitted};
pub use request::{Body, Failure, Payload, Reply, Request};
pub use session::{ClientBlock, Lease, Session};

/// How long a call may take when neither it, nor its entry, nor the settings say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A process's way to one segment. It finds the worker again by itself after a restart.
#[derive(Debug)]
pub struct Client {
    name: String,
    socket: Option<PathBuf>,
    current: Mutex<Option<Arc<Session>>>,
}

/// A call that a signal interrupted. It goes on in the worker until it is waited for again or cancelled.
#[derive(Debug)]
pub struct Pending {
    channel: Channel,
    id: u64,
    resendable: bool,
}

/// How a blocking call came back.
#[derive(Debug)]
pub enum Called {
    /// Answered by the worker; `true`: it was sent a second time.
    Reply(Reply, bool),
    /// A signal arrived while waiting.
    Interrupted(Pending),
}

impl Client {
    /// Attaches, waiting up to `wait` for the worker to serve.
    pub fn attach(name: &str, socket: Option<PathBuf>, wait: Duration) -> Result<Self, Failure> {
        let session = Session::attach(name, socket.as_deref(), wait)?;
        Ok(Self { name: name.into(), socket, current: Mutex::new(Some(session)) })
    }

    /// The session: the present one, or a new one if the worker has been started anew.
    pub fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(session) = current.as_ref().filter(|session| !session.is_dead()) {
            return Ok(session.clone());
        }
        *current = None;
        let session = Session::attach(&self.name, self.socket.as_deref(), Duration::ZERO)?;
        Ok(current.insert(session).clone())
    }

    /// Calls an entry and waits. A request that provably never ran is sent once more to the worker's successor; one that
    /// may have run only if it is idempotent.
    pub fn call(&self, request: &Request<'_>) -> Result<Called, Failure> {
        match self.attempt(request) {
            Err(failure) if self.may_resend(request, &failure) => {
                let again = self.attempt(request).map_err(|second| match second.outcome {
                    Outcome::Unavailable => failure, // the first one says more
                    _ => second,
                })?;
                Ok(match again {
                    Called::Reply(reply, _) => Called::Reply(reply, true),
                    interrupted => interrupted,
                })
            }
            other => other,
        }
    }

    fn may_resend(&self, request: &Request<'_>, failure: &Failure) -> bool {
        let safe = match failure.outcome {
            Outcome::Unavailable => failure.submitted,
            Outcome::WorkerLost => request.idempotent,
            _ => false,
        };
        safe && request.resend
    }

    fn attempt(&self, request: &Request<'_>) -> Result<Called, Failure> {
        let session = self.session()?;
        let deadline = session.deadline(request);
        let mut channel = session.checkout(deadline)?;
        match channel.submit_waiting(request, deadline) {
            Ok(id) => self.settle(Pending { channel, id, resendable: request.resend }),
            Err(failure) => {
                channel.check_in();
                Err(failure)
            }
        }
    }

    /// Waits on for an interrupted call.
    pub fn resume(&self, pending: Pending) -> Result<Called, Failure> {
        self.settle(pending)
    }

    fn settle(&self, mut pending: Pending) -> Result<Called, Failure> {
        match pending.channel.wait(pending.id) {
            Waited::Reply(reply) => {
                pending.channel.check_in();
                // A worker that refuses because it stops is as good as gone: the next call looks the name up again.
                if reply.outcome == Outcome::Unavailable {
                    self.forget();
                    if pending.resendable {
                        return Err(reply.into_failure());
                    }
                }
                Ok(Called::Reply(reply, false))
            }
            Waited::Failed(failure) => {
                pending.channel.check_in();
                Err(failure)
            }
            Waited::Interrupted => Ok(Called::Interrupted(pending)),
        }
    }

    /// Takes an interrupted call back.
    pub fn cancel(&self, mut pending: Pending) {
        pending.channel.abandon(pending.id);
        pending.channel.check_in();
    }

    /// The next call attaches anew.
    pub fn forget(&self) {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(session) = current.take() {
            session.mark_dead();
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
        // Another thread of the parent may have held the lock at the fork; then the descriptors stay open, harmlessly.
        if let Ok(mut current) = self.current.try_lock()
            && let Some(session) = current.take()
        {
            session.close_inherited();
            std::mem::forget(session);
        }
    }
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
