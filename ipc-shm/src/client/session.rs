//! A process's session with one worker: its socket, its pool of channels, its blocks and leases.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::arena::{Arena, OWNER_WORKER, owner_of_session};
use crate::bell::LONGEST_SLEEP;
use crate::block::{Block, Blocks, NoBlock};
use crate::frame::Handle;
use crate::handshake::{Inbox, Message, Opened, Welcome};
use crate::layout::channel;
use crate::os::{most_descriptors, now_ns};
use crate::pulse::Pulse;
use crate::segment::Segment;
use crate::{Address, Outcome, checkout, lease, slot};

use super::channel::Channel;
use super::descriptors::Descriptors;
use super::entries::Entries;
use super::forks;
use super::greeting::{Greeted, Greeting};
use super::holdings::{ClientBlock, Lease};
use super::line::{HandshakeError, Line, Question};
use super::pool::Pool;
use super::request::{Failure, Request};
use super::seek::{Patience, Seeker, Sought};

/// A client's wait for the worker's own time-out answer, beyond the deadline.
pub(super) const GRACE_NS: u64 = 20_000_000;
/// The worker answers a handshake at once, or it hangs.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(1);

/// Ids are unique over all sessions of the process: after a restart of the worker, a late answer of the old session
/// cannot be taken for an answer of the new one.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A session.
pub struct Session {
    /// The bytes.
    pub segment: Segment,
    slot: u32,
    /// The slot's.
    generation: u64,
    pid: u32,
    /// Taken out by whoever speaks to the worker.
    line: Mutex<Option<Line>>,
    line_back: Condvar,
    blocks: Arc<Blocks>,
    pool: Mutex<Pool>,
    returned: Condvar,
    dead: AtomicBool,
    pulse: Pulse,
    in_use: AtomicUsize,
    /// Results that it holds.
    leases: AtomicUsize,
    descriptors: Descriptors,
    entries: Arc<Entries>,
}

/// Why the worker gave no channel.
enum NoChannel {
    /// It has not answered yet, or a signal arrived.
    NotYet,
    /// Perhaps later.
    Refused(Failure),
    Failed(Failure),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn unavailable(message: impl Into<String>) -> Failure {
    Failure::new(Outcome::Unavailable, message)
}

/// Which one it is: whoever prints a reply does not want every byte of the pool behind it.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, slot, pid, .. } = self;
        let dead = if self.is_dead() { ", dead" } else { "" };
        write!(f, "Session(slot {slot} of pid {pid} at {segment:?}{dead})")
    }
}

impl Session {
    /// Finds the segment and says hello. Tries until `wait` has passed.
    pub fn attach(address: &Address, wait: Duration) -> Result<Arc<Self>, Failure> {
        let (mut seeker, patience) = (Seeker::new(false), Patience::of(wait, wait.max(HANDSHAKE_WITHIN)));
        loop {
            match seeker.seek(address, patience, HANDSHAKE_WITHIN) {
                Sought::Found(session) => return Ok(session),
                Sought::Failed(failure) | Sought::TooLate(failure) => return Err(failure),
                Sought::NotYet(_) => {}
            }
        }
    }

    /// Attaches over a connection to the worker, at `path` for messages; the worker has until then to answer.
    pub fn over(segment: Segment, stream: UnixStream, path: &Path, until: Instant) -> Result<Arc<Self>, Failure> {
        let mut greeting = Greeting::over(segment, stream, path.to_path_buf())?;
        loop {
            greeting = match greeting.wait(until) {
                Greeted::Session(session) => return Ok(session),
                Greeted::Failed(failure) => return Err(failure),
                Greeted::NotYet(greeting) if Instant::now() < until => greeting,
                Greeted::NotYet(greeting) => return Err(greeting.unanswered()),
            };
        }
    }

    /// Of a connection over which the worker has said welcome.
    pub(super) fn new(segment: Segment, stream: UnixStream, inbox: Inbox, welcome: Welcome) -> Arc<Self> {
        let Welcome { slot, generation, .. } = welcome;
        let arena = Arena::new(segment.map.clone(), segment.geometry, owner_of_session(slot));
        let blocks = Blocks::new(arena, segment.header.session_quota);
        let descriptors = Descriptors::new(segment.geometry.channels as usize + 8);
        let object = segment.object.as_ref().map(|object| object.as_raw_fd());
        object.into_iter().chain([stream.as_raw_fd()]).for_each(|descriptor| descriptors.add(descriptor));
        let session = Arc::new(Self {
            entries: Arc::new(Entries::of(&segment)),
            segment,
            slot,
            generation,
            pid: crate::os::pid(),
            line: Mutex::new(Some(Line::new(stream, inbox))),
            line_back: Condvar::new(),
            blocks,
            pool: Mutex::default(),
            returned: Condvar::new(),
            dead: AtomicBool::new(false),
            pulse: Pulse::default(),
            in_use: AtomicUsize::new(0),
            leases: AtomicUsize::new(0),
            descriptors,
        });
        slot::hold_session(&session.segment.map, &session.segment.geometry, slot, generation);
        forks::remember(&session);
        session
    }

    /// Whether the worker is known to be gone, or says that it goes: what is asked now belongs to its successor.
    pub fn is_dead(&self) -> bool {
        self.is_lost() || !self.segment.is_serving()
    }

    /// Whether the worker is known to be gone. One that goes still answers what it runs, and keeps what is held.
    pub(super) fn is_lost(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// A caller has waited in vain for a while: does the worker still look?
    pub(super) fn look_for_scans(&self) {
        self.pulse.look(&self.segment);
    }

    /// What a new request is told while the worker is known to look at none.
    pub(super) fn silent_worker(&self) -> Option<Failure> {
        let silent = self.pulse.silent(&self.segment)?;
        let (name, pid) = (&self.segment.name, self.segment.header.worker_pid);
        Some(unavailable(format!(
            "the worker of {name} (pid {pid}) has not looked at its requests for {:.1} s: it hangs, is stopped, or gets no \
             core; this one was not sent; hint: `molt-shm-stat {name} doctor`",
            silent.as_secs_f64()
        )))
    }

    /// Remembers that the worker is gone.
    pub fn mark_dead(&self) {
        self.dead.store(true, Ordering::Release);
        self.close_idle_channels();
    }

    /// Drops the idle channels: each keeps the session alive.
    pub fn close_idle_channels(&self) {
        let idle = {
            let mut pool = locked(&self.pool);
            pool.closed = true;
            std::mem::take(&mut pool.idle)
        };
        drop(idle);
        self.returned.notify_all();
    }

    /// What its worker says of the entries.
    pub(super) fn entries(&self) -> &Arc<Entries> {
        &self.entries
    }

    /// When a request's time is up: its own limit, capped by the entry's; without one the entry's, else the fallback.
    pub fn deadline(&self, request: &Request<'_>) -> u64 {
        self.deadline_from(now_ns(), request)
    }

    /// The same for a request that began then.
    pub(super) fn deadline_from(&self, began_ns: u64, request: &Request<'_>) -> u64 {
        let timeout = self.entries.timeout(request.entry, request.timeout, request.fallback_timeout);
        began_ns.saturating_add(timeout.as_nanos().min(u64::MAX as u128 / 4) as u64)
    }

    /// Whether running a request twice does no harm: as the caller says, else as the entry says.
    pub fn is_idempotent(&self, request: &Request<'_>) -> bool {
        request.idempotent.unwrap_or_else(|| self.entries.is_idempotent(request.entry))
    }

    /// A new request id.
    pub(super) fn next_id() -> u64 {
        NEXT_ID.fetch_add(1, Ordering::Relaxed) & crate::cell::ID_MASK
    }

    /// A channel out of the pool; a new one if all are in use; if the worker has no more, the next that comes back here or
    /// there. Waits until the deadline, through signals: for event loops, which wait half a second at most.
    pub fn checkout(self: &Arc<Self>, deadline_ns: u64) -> Result<Channel, Failure> {
        loop {
            if let Some(channel) = self.checkout_within(deadline_ns, LONGEST_SLEEP)? {
                return Ok(channel);
            }
        }
    }

    /// The same, waiting so long at most. `None`: there is none yet, or a signal arrived.
    pub(super) fn checkout_within(
        self: &Arc<Self>,
        deadline_ns: u64,
        longest: Duration,
    ) -> Result<Option<Channel>, Failure> {
        let found = match self.take_idle() {
            Some(channel) => Some(channel),
            None => self.wait_for_channel(deadline_ns, longest)?,
        };
        Ok(found.map(|channel| self.checked_out(channel)))
    }

    /// A channel that lies idle in the pool, if one does; asks nobody and waits for nothing.
    pub(super) fn checkout_idle(&self) -> Option<Channel> {
        self.take_idle().map(|channel| self.checked_out(channel))
    }

    fn checked_out(&self, mut channel: Channel) -> Channel {
        self.in_use.fetch_add(1, Ordering::Relaxed);
        channel.checked_out = true;
        channel
    }

    /// Channels that are checked out: threads of this process that wait, or event loops.
    pub fn channels_in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// A checked-out channel comes back, or is closed.
    pub(super) fn no_longer_in_use(&self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
    }

    /// A channel out of the pool that the worker has not taken back.
    fn take_idle(&self) -> Option<Channel> {
        loop {
            let mut channel = locked(&self.pool).take()?;
            if channel.take_up() {
                return Some(channel);
            }
            // Closed outside the lock: that takes it.
        }
    }

    fn wait_for_channel(self: &Arc<Self>, deadline_ns: u64, longest: Duration) -> Result<Option<Channel>, Failure> {
        let slice_ends = super::instant_of(deadline_ns).min(Instant::now() + longest);
        loop {
            if locked(&self.pool).closed || self.is_dead() {
                return Err(self.left());
            }
            if let Some(failure) = self.silent_worker() {
                return Err(failure);
            }
            let may_ask = locked(&self.pool).may_ask();
            if may_ask {
                match self.ask_for_channel(slice_ends) {
                    Ok(channel) => return Ok(Some(channel)),
                    Err(NoChannel::NotYet) => return self.no_channel_yet(deadline_ns),
                    Err(NoChannel::Refused(failure)) => locked(&self.pool).refused(failure),
                    Err(NoChannel::Failed(failure)) => return Err(failure),
                }
            }
            let mut pool = locked(&self.pool);
            pool.waiting += 1;
            let left = pool.ask_after.min(slice_ends).saturating_duration_since(Instant::now());
            let waited = self.returned.wait_timeout_while(pool, left, |pool| pool.idle.is_empty() && !pool.closed);
            let mut pool = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            pool.waiting -= 1;
            drop(pool);
            if let Some(channel) = self.take_idle() {
                return Ok(Some(channel));
            }
            if Instant::now() >= slice_ends {
                return self.no_channel_yet(deadline_ns);
            }
        }
    }

    /// A wait for a channel was in vain: the caller waits on, or is told what it was refused for.
    fn no_channel_yet(&self, deadline_ns: u64) -> Result<Option<Channel>, Failure> {
        self.look_for_scans();
        if now_ns() < deadline_ns {
            return Ok(None);
        }
        let name = &self.segment.name;
        let text = format!("the worker of {name} gave no channel before the deadline; the request was never sent");
        Err(locked(&self.pool).why_refused().unwrap_or_else(|| Failure::new(Outcome::Timeout, text)))
    }

    /// One more channel from the worker, which has until then to answer.
    fn ask_for_channel(self: &Arc<Self>, until: Instant) -> Result<Channel, NoChannel> {
        let cannot = |what: &str, error: &dyn fmt::Display| NoChannel::Failed(self.no_channel(what, error));
        let answer = match self.ask(Question::Channel, until) {
            Ok(answer) => answer,
            Err(HandshakeError::TimedOut | HandshakeError::Interrupted) => return Err(NoChannel::NotYet),
            Err(HandshakeError::Refused(Outcome::Busy, text)) => {
                return Err(NoChannel::Refused(Failure::new(Outcome::Busy, text)));
            }
            Err(HandshakeError::Refused(outcome, text)) => return Err(NoChannel::Failed(Failure::new(outcome, text))),
            Err(HandshakeError::Broken(error)) => return Err(cannot("its answer", &error)),
        };
        let opened = Opened::decode(answer.payload[..].try_into().map_err(|_| cannot("answer", &"its size"))?);
        if opened.channel >= self.segment.geometry.channels {
            return Err(cannot("answer", &format!("channel {}", opened.channel)));
        }
        // The kernel drops a descriptor for which the receiver has no room; the worker sees its end close.
        let Some(bell) = answer.fd else {
            let Segment { map, geometry, .. } = &self.segment;
            let word = geometry.channel(opened.channel) + channel::CHECKOUT;
            checkout::give_back(map.u64(word), opened.generation);
            return Err(NoChannel::Refused(self.no_descriptor()));
        };
        locked(&self.pool).opened();
        self.descriptors.add(bell.as_raw_fd());
        Ok(Channel::new(self.clone(), opened.channel, opened.generation, bell))
    }

    /// This process has no room for a doorbell's descriptor.
    fn no_descriptor(&self) -> Failure {
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let most = most_descriptors();
        let (pid, name) = (self.pid, &self.segment.name);
        let had = if open == 0 { "all".to_owned() } else { open.to_string() }; // 0: not even that folder could be opened
        Failure::new(
            Outcome::Busy,
            format!(
                "the worker of {name} gave a channel, and this process (pid {pid}) has no descriptor left for its \
                 doorbell: {had} of {most} are open; hint: raise `ulimit -n`, or look for descriptors that are not closed"
            ),
        )
    }

    /// Asks the worker for something, and waits for the answer until then.
    fn ask(&self, question: Question<'_>, until: Instant) -> Result<Message, HandshakeError> {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.line_back.wait_timeout_while(locked(&self.line), left, |line| line.is_none());
        let taken = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.take();
        let Some(mut line) = taken else { return Err(HandshakeError::TimedOut) };
        let answer = line.ask(question, until);
        *locked(&self.line) = Some(line);
        self.line_back.notify_one();
        answer
    }

    /// Makes what a forked child keeps: until every copy of it is closed, the worker keeps the results that this session
    /// holds now, and those that it is lent until a byte comes. None of a worker that is gone: then nobody gives the results'
    /// bytes to others.
    pub(super) fn pin(&self, until: Instant) -> Result<Option<OwnedFd>, Failure> {
        let no_pin = |what: &str, error: &dyn fmt::Display| {
            let name = &self.segment.name;
            unavailable(format!("the worker of {name} gave no pin for a fork: {what}: {error}"))
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (pin, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
            .map_err(|errno| no_pin("descriptors", &errno))?;
        // Should the answer come too late, the worker finds nobody at the other end.
        match self.ask(Question::Pin(theirs.as_fd()), until) {
            Ok(_) => Ok(Some(pin)),
            Err(HandshakeError::Broken(_)) => Ok(None),
            Err(error) => Err(error.about(&no_pin)),
        }
    }

    /// Whether it holds results, or may be given some at any moment.
    pub(super) fn may_hold_results(&self) -> bool {
        self.leases.load(Ordering::Acquire) > 0 || self.channels_in_use() > 0
    }

    /// The worker is gone, and nothing was handed to it: its successor may be asked.
    fn no_channel(&self, what: &str, error: &dyn std::fmt::Display) -> Failure {
        self.mark_dead();
        let name = &self.segment.name;
        let failure = unavailable(format!("the worker of {name} gave no channel: {what}: {error}"));
        Failure { submitted: true, ..failure }
    }

    /// Puts a channel back, or closes it: it is of no use any more, the worker wants it for others, or it is one too many.
    pub(super) fn check_in(&self, mut channel: Channel) {
        self.no_longer_in_use();
        channel.checked_out = false;
        let mut pool = locked(&self.pool);
        if pool.closed || self.is_dead() || channel.is_broken() || !channel.lay_down() {
            drop(pool); // the channel takes the lock, and may be the last to hold the session
            return;
        }
        let surplus = pool.put(channel);
        let awaited = pool.waiting > 0;
        drop(pool);
        drop(surplus);
        if awaited {
            self.returned.notify_one();
        }
    }

    /// Writable bytes in the arena.
    pub fn block(self: &Arc<Self>, len: usize) -> Result<Arc<ClientBlock>, Failure> {
        self.block_with(len, Blocks::allocate)
    }

    /// The same in extents that no other block shares: the worker can take them over where they lie.
    pub fn block_of_own_extents(self: &Arc<Self>, len: usize) -> Result<Arc<ClientBlock>, Failure> {
        self.block_with(len, Blocks::allocate_run)
    }

    fn block_with(
        self: &Arc<Self>,
        len: usize,
        allocate: impl FnOnce(&Arc<Blocks>, usize) -> Result<Block, NoBlock>,
    ) -> Result<Arc<ClientBlock>, Failure> {
        let most = self.segment.header.max_body;
        if len as u64 > most {
            return Err(Failure::new(
                Outcome::TooLarge,
                format!("a body of {len} bytes is larger than the {most} bytes that this worker takes"),
            ));
        }
        let block = allocate(&self.blocks, len).map_err(|full| match self.is_dead() {
            // What was free in a dead worker's segment is given back to the system (`segment::remains`).
            true => self.left(),
            false => Failure::new(Outcome::Busy, full.to_string()),
        })?;
        Ok(Arc::new(ClientBlock::new(block, self.clone())))
    }

    /// The worker is gone, and nothing was handed to it: its successor may be asked.
    fn left(&self) -> Failure {
        Failure { submitted: true, ..unavailable(format!("the worker of {} is gone", self.segment.name)) }
    }

    /// A result under a lease, checked: inside the arena, and the worker's.
    pub(super) fn lease(self: &Arc<Self>, handle: Handle, number: u32) -> Result<Lease, String> {
        if number >= self.segment.geometry.leases_per_session {
            return Err(format!("lease {number} does not exist"));
        }
        self.blocks.arena().check(&handle, OWNER_WORKER).map_err(|bad| bad.to_string())?;
        self.leases.fetch_add(1, Ordering::AcqRel);
        Ok(Lease::new(self.clone(), number, &handle))
    }

    /// In a forked child: closes the inherited descriptors without shutting them down (they are the parent's too).
    pub(super) fn close_inherited(&self) {
        self.descriptors.close();
    }

    /// Lets go of a lease.
    pub(super) fn let_go(&self, number: u32) {
        lease::release(&self.segment.map, &self.segment.geometry, self.slot, number);
        self.leases.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether this process is the one that attached.
    pub(super) fn is_mine(&self) -> bool {
        self.pid == crate::os::pid()
    }

    /// Forgets a channel that is being closed.
    pub(super) fn channel_closed(&self, bell: RawFd) {
        self.descriptors.remove(bell);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The last channel, block, lease and table are gone. The socket, which is closed after this, would not say so: it
        // also closes where a process loses its descriptors and goes on.
        if self.is_mine() {
            slot::let_go_of_session(&self.segment.map, &self.segment.geometry, self.slot, self.generation);
        }
    }
}
