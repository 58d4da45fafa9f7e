//! The client's side of the protocol.
//!
//! The way of a call: [`Client::call`] takes the process's [`Session`], checks a [`Channel`] out of its pool, `submit`s a
//! frame, `wait`s for the answer and puts the channel back. An event loop keeps a channel of its own: [`LoopChannel`].

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
mod seek;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::bell::LONGEST_SLEEP;
use crate::os::now_ns;
use crate::{Address, Outcome, Segment};

pub use channel::{Channel, Waited};
pub use event_loop::{LoopChannel, Submitted};
pub use holdings::{ClientBlock, Lease};
pub use request::{Body, Failure, OwnedRequest, Payload, Reply, Request};
pub use retries::{Retries, RetryBudget};
pub use session::Session;

use entries::Entries;
use seek::{Patience, Seeker, Sought};
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

/// What the threads of a process share of their way to the worker.
#[derive(Debug, Default)]
struct Current {
    session: Option<Arc<Session>>,
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
    entries: Arc<Entries>,
}

impl Current {
    fn adopt(&mut self, session: Arc<Session>) {
        self.entries = session.entries().clone();
        self.session = Some(session);
        self.expected = false;
    }

    fn leave(&mut self) -> Option<Arc<Session>> {
        let session = self.session.take();
        self.expected |= session.as_ref().is_some_and(|session| session.segment.is_going());
        session
    }
}

/// How long a request that lost its worker waits for a successor where nobody is known to start one, within its own
/// deadline: the caller should know soon.
const SUCCESSOR_WITHIN: Duration = Duration::from_millis(500);
/// A request that has gone from worker to worker pauses before the next.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What is said beside the loss of a request that would have been sent again.
pub const NO_BUDGET: &str = "; it was not sent again: the retry budget, a fifth of the calls and five a second, is used up; \
                             hint: the worker's log says what it dies of";

/// A worker that does not say within this time where its segment is hangs.
pub const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// A call that came back unfinished: a signal arrived, or a tenth of a second passed. It goes on in the worker until it is
/// waited for again or cancelled.
#[derive(Debug)]
pub struct Pending {
    stage: Stage,
    /// What to send, again if the worker is lost meanwhile.
    request: OwnedRequest,
    tries: Tries,
}

/// How far a call has come.
#[derive(Debug)]
enum Stage {
    /// There is no worker yet, or no channel to it.
    Seeking,
    /// The channel has no room for it yet.
    Waiting(Channel),
    /// On its way under this id.
    Sent(Channel, u64),
}

/// What has become of a call so far.
#[derive(Debug)]
struct Tries {
    began_ns: u64,
    /// How often it was sent.
    sent: u32,
    /// Set when there is first need of it: mostly there is none.
    patience: Option<Patience>,
    /// Why it is sent again: what its caller is told if that comes to nothing.
    failed: Option<Failure>,
    pause: Duration,
}

/// How a blocking call came back.
#[derive(Debug)]
pub enum Called {
    /// Answered by the worker; `true`: it was sent a second time.
    Reply(Reply, bool),
    /// A signal arrived while waiting.
    Interrupted(Box<Pending>),
}

impl Tries {
    fn new() -> Self {
        Self { began_ns: now_ns(), sent: 0, patience: None, failed: None, pause: FIRST_PAUSE }
    }

    /// It was handed to a worker, or could not be.
    fn count(&mut self, budget: &RetryBudget) {
        self.sent += 1;
        budget.count_sent();
    }

    /// `timeout`: asked when there is first need of it.
    fn patience(&mut self, timeout: impl FnOnce() -> Duration) -> Patience {
        *self.patience.get_or_insert_with(|| {
            let gone = Duration::from_nanos(now_ns().saturating_sub(self.began_ns));
            Patience::of(Duration::ZERO, timeout().saturating_sub(gone))
        })
    }

    /// Whether it is to be sent once more after this failure: what never ran always, within the one deadline, what may
    /// have run once, and only if that does no harm and the budget has room for it.
    fn again(&mut self, budget: &RetryBudget, request: &Request<'_>, failure: &mut Failure, deadline: u64) -> bool {
        let lost = |failure: &Failure| failure.outcome == Outcome::WorkerLost;
        let may = match failure.outcome {
            Outcome::Unavailable => failure.submitted,
            Outcome::WorkerLost => failure.idempotent && !self.failed.as_ref().is_some_and(lost),
            _ => false,
        };
        let left = Duration::from_nanos(deadline.saturating_sub(now_ns()));
        if !may || !request.resend || left.is_zero() {
            return false;
        }
        if !lost(failure) {
            budget.count_moved();
        } else if !budget.may_run_again() {
            failure.message.push_str(NO_BUDGET);
            return false;
        }
        if self.failed.is_none() || lost(failure) {
            self.failed = Some(failure.clone());
        }
        self.patience = Some(Patience::of(left.min(SUCCESSOR_WITHIN), left));
        if self.sent > 1 {
            std::thread::sleep(seek::jittered(self.pause).min(left));
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        true
    }

    /// What the caller is told: a request that may have run is not called one that never ran.
    fn told(&mut self, failure: Failure) -> Failure {
        match self.failed.take() {
            Some(first) if failure.outcome == Outcome::Unavailable => {
                Failure { message: format!("{}; sent again: {}", first.message, failure.message), ..first }
            }
            _ => failure,
        }
    }
}

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

    /// The session, looked for no longer than `slice`. `None`: not yet, and patience is not over.
    fn find(&self, patience: Patience, slice: Duration) -> Result<Option<Arc<Session>>, Failure> {
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

    fn not_yet(&self, current: &Current) -> Failure {
        current.failed.as_ref().or(current.why.as_ref()).cloned().unwrap_or_else(|| {
            let name = &self.address;
            Failure::new(
                Outcome::Unavailable,
                format!("the worker of {name} is gone, and the next one does not serve yet"),
            )
        })
    }

    /// Calls an entry and waits. A request that provably never ran is sent again to the worker's successor; one that may
    /// have run once more, if it is idempotent. All within the one deadline.
    pub fn call(&self, request: &Request<'_>) -> Result<Called, Failure> {
        let mut tries = Tries::new();
        Ok(match self.go_on(request, &mut tries, Stage::Seeking)? {
            Attempted::Reply(reply) => Called::Reply(reply, tries.sent > 1),
            Attempted::Interrupted(stage) => {
                let blocks = match &stage {
                    Stage::Sent(channel, id) => channel.blocks_of(*id),
                    Stage::Seeking | Stage::Waiting(_) => &[],
                };
                let request = OwnedRequest::of(request, blocks);
                Called::Interrupted(Box::new(Pending { stage, request, tries }))
            }
        })
    }

    /// Waits on for an interrupted call.
    pub fn resume(&self, mut pending: Box<Pending>) -> Result<Called, Failure> {
        let Pending { stage, request, tries } = &mut *pending;
        let stage = std::mem::replace(stage, Stage::Seeking);
        Ok(match request.with(|request| self.go_on(request, tries, stage))? {
            Attempted::Reply(reply) => Called::Reply(reply, tries.sent > 1),
            Attempted::Interrupted(stage) => {
                pending.stage = stage;
                Called::Interrupted(pending)
            }
        })
    }

    /// Goes on with a call from wherever it is, until it is answered, has failed for good, or a tenth of a second has passed.
    fn go_on(&self, request: &Request<'_>, tries: &mut Tries, mut stage: Stage) -> Result<Attempted, Failure> {
        loop {
            let (deadline, attempted) = match stage {
                Stage::Sent(channel, id) => (channel.deadline_of(id).unwrap_or_else(now_ns), self.settle(channel, id)),
                Stage::Waiting(channel) => {
                    let deadline = channel.session().deadline_from(tries.began_ns, request);
                    (deadline, self.send(channel, request, tries, deadline))
                }
                Stage::Seeking => {
                    let found = match self.present() {
                        Some(session) => Ok(Some(session)),
                        None => self.find(tries.patience(|| self.timeout_of(request)), LONGEST_SLEEP),
                    };
                    let session = match found {
                        Ok(Some(session)) => session,
                        Ok(None) => return Ok(Attempted::Interrupted(Stage::Seeking)),
                        Err(failure) => return Err(tries.told(failure)),
                    };
                    let deadline = session.deadline_from(tries.began_ns, request);
                    let attempted = match session.checkout_within(deadline, LONGEST_SLEEP) {
                        Ok(Some(channel)) => self.send(channel, request, tries, deadline),
                        Ok(None) => return Ok(Attempted::Interrupted(Stage::Seeking)),
                        Err(failure) => {
                            tries.count(&self.retries);
                            Err(failure)
                        }
                    };
                    (deadline, attempted)
                }
            };
            let mut failure = match attempted {
                Ok(attempted) => return Ok(attempted),
                Err(failure) => failure,
            };
            if !tries.again(&self.retries, request, &mut failure, deadline) {
                return Err(tries.told(failure));
            }
            stage = Stage::Seeking;
        }
    }

    /// Sends the request as soon as the channel has room, and waits for its answer.
    fn send(
        &self,
        mut channel: Channel,
        request: &Request<'_>,
        tries: &mut Tries,
        deadline: u64,
    ) -> Result<Attempted, Failure> {
        match channel.submit_within(request, deadline) {
            Ok(None) => Ok(Attempted::Interrupted(Stage::Waiting(channel))),
            Ok(Some(id)) => {
                tries.count(&self.retries);
                self.settle(channel, id)
            }
            Err(failure) => {
                tries.count(&self.retries);
                channel.check_in();
                Err(failure)
            }
        }
    }

    /// Waits for an answer.
    fn settle(&self, mut channel: Channel, id: u64) -> Result<Attempted, Failure> {
        let settled = match channel.wait(id) {
            // A worker that refuses because it stops is as good as gone: its successor is looked up.
            Waited::Reply(reply) if reply.outcome == Outcome::Unavailable => {
                self.forget(channel.session());
                Err(reply.into_failure())
            }
            Waited::Reply(reply) => Ok(Attempted::Reply(reply)),
            Waited::Failed(failure) => Err(failure),
            Waited::Interrupted => return Ok(Attempted::Interrupted(Stage::Sent(channel, id))),
        };
        channel.check_in();
        settled
    }

    /// Takes an interrupted call back.
    pub fn cancel(&self, pending: Box<Pending>) {
        match pending.stage {
            Stage::Seeking => {}
            Stage::Waiting(channel) => channel.check_in(),
            Stage::Sent(mut channel, id) => {
                channel.abandon(id);
                channel.check_in();
            }
        }
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

/// How far a call came without failing.
enum Attempted {
    Reply(Reply),
    Interrupted(Stage),
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

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

/// When a wait until `deadline_ns` ends, as std counts; for condition variables.
fn instant_of(deadline_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(deadline_ns.saturating_sub(now_ns()))
}
