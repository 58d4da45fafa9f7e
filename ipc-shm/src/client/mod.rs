//! The client's side of the protocol.
//!
//! The way of a call (`call`): [`Client::call`] takes the process's [`Session`], checks a [`Channel`] out of its pool, `submit`s a
//! frame, `wait`s for the answer and puts the channel back. An event loop keeps a channel of its own: [`LoopChannel`].

mod call;
mod channel;
mod descriptors;
pub(crate) mod dial;
mod entries;
mod event_loop;
pub mod forks;
mod greeting;
mod holdings;
mod line;
mod parts;
mod pool;
mod request;
mod retries;
mod search;
mod seek;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::bell::LONGEST_SLEEP;
use crate::os::now_ns;
use crate::{Address, Segment};

pub use call::{Called, NO_BUDGET, Pending};
pub use channel::{Channel, Waited};
pub use event_loop::{LoopChannel, Submitted};
pub use holdings::{ClientBlock, Lease};
pub use request::{Body, Failure, OwnedRequest, Payload, Reply, Request};
pub use retries::{Retries, RetryBudget};
pub use session::Session;

use search::Current;
use seek::Patience;
use session::HANDSHAKE_WITHIN;

/// How long a call may take when neither it, nor its entry, nor the settings say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A process's way to one worker. It finds the worker again by itself after a restart.
#[derive(Debug)]
pub struct Client {
    address: Address,
    current: Mutex<Current>,
    changed: Condvar,
    retries: RetryBudget,
}

/// A worker that does not say within this time where its segment is hangs.
pub const LOOK_WITHIN: Duration = Duration::from_secs(1);

impl Client {
    /// Attaches by the segment's name, waiting up to `wait` for the worker to serve.
    pub fn attach(name: &str, socket: Option<PathBuf>, wait: Duration) -> Result<Self, Failure> {
        Self::attach_to(Address::Name { shm: name.into(), socket }, wait)
    }

    /// Attaches by a name or by a socket alone, waiting up to `wait` for the worker to serve.
    pub fn attach_to(address: Address, wait: Duration) -> Result<Self, Failure> {
        let session = Session::attach(&address, wait)?;
        let client = Self::new(address);
        client.locked().adopt(session);
        Ok(client)
    }

    /// One that has not attached yet: it does so at the first call, or when it is told to [look](Self::reattach).
    pub fn new(address: Address) -> Self {
        let (current, changed) = (Mutex::default(), Condvar::new());
        Self { address, current, changed, retries: RetryBudget::default() }
    }

    /// Where the worker is found.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How many of its requests were sent again, and whether one more may be.
    pub fn retries(&self) -> &RetryBudget {
        &self.retries
    }

    /// The segment to look at: the one that this client has attached to, which works while the worker hangs or is dead;
    /// without a session, the one that is found now.
    pub fn look(&self) -> Result<Segment, Failure> {
        let session = self.locked().session.clone();
        match session {
            Some(session) if session.segment.is_nameless() && session.segment.is_alive() => Ok(session.segment.clone()),
            _ => self.address.look(LOOK_WITHIN),
        }
    }

    /// The session: the present one, or a new one if the worker has been started anew. Waits for nobody, but for the
    /// answer of a worker that is there.
    pub fn session(&self) -> Result<Arc<Session>, Failure> {
        match self.find(Patience::of(Duration::ZERO, HANDSHAKE_WITHIN), LONGEST_SLEEP)? {
            Some(session) => Ok(session),
            None => Err(self.why_not_yet()),
        }
    }

    /// The session, if there is one whose worker serves.
    pub fn present(&self) -> Option<Arc<Session>> {
        self.locked().session.as_ref().filter(|session| !session.is_dead()).cloned()
    }

    /// Looks for the worker's successor for a moment: `absent` where nobody is about to serve, else `restart`, and not
    /// longer than a tenth of a second. Whether there is a session.
    pub fn reattach(&self, absent: Duration, restart: Duration) -> Result<bool, Failure> {
        self.reattach_within(absent, restart, LONGEST_SLEEP)
    }

    /// The same, and not longer than `slice`.
    pub fn reattach_within(&self, absent: Duration, restart: Duration, slice: Duration) -> Result<bool, Failure> {
        self.find(Patience::of(absent, restart), slice).map(|found| found.is_some())
    }

    fn timeout_of(&self, request: &Request<'_>) -> Duration {
        self.timeout(request.entry, request.timeout, request.fallback_timeout)
    }

    /// Why there is no session yet.
    pub fn why_not_yet(&self) -> Failure {
        self.not_yet(&self.locked())
    }

    /// How long a call of that entry may take by what is known of it: its own limit, capped by the entry's; without one the
    /// entry's, else the fallback.
    pub fn timeout(&self, entry: &[u8], own: Option<Duration>, fallback: Duration) -> Duration {
        let entries = self.locked().entries.clone();
        entries.timeout(entry, own, fallback)
    }

    fn locked(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Leaves that session: if it is still the present one, the next call attaches anew.
    pub fn forget(&self, session: &Arc<Session>) {
        session.mark_dead();
        let mut current = self.locked();
        let is_present = current.session.as_ref().is_some_and(|present| Arc::ptr_eq(present, session));
        let left = is_present.then(|| current.leave());
        drop(current);
        drop(left);
    }

    /// Ends the session, as soon as the last reply, table or block of it is gone.
    pub fn close(&self) {
        let session = self.locked().session.take();
        if let Some(session) = session {
            session.close_idle_channels();
        }
    }

    /// In a forked child: closes the inherited sockets and forgets everything else without touching it.
    pub fn forked(&self) {
        // A thread of the parent may have held the lock at the fork: then there is nothing to be had through it, and
        // `forks::in_child` has closed the descriptors.
        if let Ok(mut current) = self.current.try_lock()
            && let Some(session) = current.session.take()
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
