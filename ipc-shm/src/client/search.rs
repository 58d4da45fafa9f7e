//! One search for the worker, whoever of a process's threads needs it first; the others wait for what it finds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Outcome;

use super::entries::Entries;
use super::request::Failure;
use super::seek::{Patience, Seeker, Sought};
use super::{Client, Session};

/// What the threads of a process share of their way to the worker.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) session: Option<Arc<Session>>,
    /// A search that was interrupted, for whoever goes on with it.
    seeker: Option<Seeker>,
    /// One thread looks for the worker; the others wait for what it finds.
    seeking: bool,
    /// Counts what searches came to.
    searches: u64,
    /// What the last one came to, if it failed.
    failed: Option<Failure>,
    /// Why there is no session yet.
    why: Option<Failure>,
    /// The session's worker was seen to die, or to leave: who holds its socket open is about to serve.
    expected: bool,
    /// The entries of the last worker: how long a call may wait for the next one hangs on its entry too.
    pub(super) entries: Arc<Entries>,
}

impl Current {
    pub(super) fn adopt(&mut self, session: Arc<Session>) {
        self.entries = session.entries().clone();
        self.session = Some(session);
        self.expected = false;
    }

    pub(super) fn leave(&mut self) -> Option<Arc<Session>> {
        let session = self.session.take();
        self.expected |= session.as_ref().is_some_and(|session| session.segment.is_going());
        session
    }
}

impl Client {
    /// The session, looked for no longer than `slice`. `None`: not yet, and patience is not over.
    pub(super) fn find(&self, patience: Patience, slice: Duration) -> Result<Option<Arc<Session>>, Failure> {
        let now = Instant::now();
        let slice_ends = (now + slice).min(patience.restart.max(now));
        let mut current = self.locked();
        loop {
            if let Some(session) = current.session.as_ref().filter(|session| !session.is_dead()) {
                return Ok(Some(session.clone()));
            }
            if !current.seeking {
                break;
            }
            let searches = current.searches;
            let left = slice_ends.saturating_duration_since(Instant::now());
            let waited = self.changed.wait_timeout_while(current, left, |now| now.searches == searches);
            current = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            let now = Instant::now();
            if current.searches != searches
                && now >= patience.absent
                && let Some(failure) = &current.failed
            {
                return Err(failure.clone()); // this one would have found the same
            }
            if current.searches == searches && now >= slice_ends {
                return if now >= patience.restart { Err(self.not_yet(&current)) } else { Ok(None) };
            }
        }
        current.seeking = true;
        let former = current.leave();
        let seeker = current.seeker.take();
        let mut seeker = seeker.unwrap_or_else(|| Seeker::new(current.expected));
        drop(current);
        if let Some(former) = former {
            former.close_idle_channels(); // what is in use on it goes on
        }
        let search = Search(self);
        let sought = seeker.seek(&self.address, patience, slice);
        search.ends_with(sought, seeker)
    }

    pub(super) fn not_yet(&self, current: &Current) -> Failure {
        current.failed.as_ref().or(current.why.as_ref()).cloned().unwrap_or_else(|| {
            let name = &self.address;
            Failure::new(
                Outcome::Unavailable,
                format!("the worker of {name} is gone, and the next one does not serve yet"),
            )
        })
    }
}

/// This thread looks for the worker, for all threads of the process; they wait until it is dropped.
struct Search<'a>(&'a Client);

impl Search<'_> {
    fn ends_with(self, sought: Sought, seeker: Seeker) -> Result<Option<Arc<Session>>, Failure> {
        let mut current = self.0.locked();
        current.failed = None;
        match sought {
            Sought::Found(session) => {
                current.adopt(session.clone());
                Ok(Some(session))
            }
            Sought::Failed(failure) => {
                current.failed = Some(failure.clone());
                Err(failure)
            }
            // Whoever has more patience goes on with the search.
            Sought::TooLate(why) => {
                (current.seeker, current.why) = (Some(seeker), Some(why.clone()));
                Err(why)
            }
            Sought::NotYet(why) => {
                (current.seeker, current.why) = (Some(seeker), Some(why));
                Ok(None)
            }
        }
    }
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        let mut current = self.0.locked();
        current.seeking = false;
        current.searches += 1;
        drop(current);
        self.0.changed.notify_all();
    }
}
