//! A process's session with one worker: its socket, its pool of channels, its blocks and leases.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::arena::{Arena, OWNER_WORKER, owner_of_session};
use crate::block::{Block, Blocks, NoBlock};
use crate::frame::Handle;
use crate::handshake::{self, Hello, Inbox, Message, Opened, Welcome, message};
use crate::layout::{LAYOUT_VERSION, layout_hash};
use crate::os::now_ns;
use crate::pulse::Pulse;
use crate::segment::Segment;
use crate::stats::EntryStats;
use crate::{Address, Outcome, lease, slot};

use super::channel::Channel;
use super::descriptors::Descriptors;
use super::dial;
use super::forks;
use super::holdings::{ClientBlock, Lease};
use super::line::{HandshakeError, Line, Question, receive};
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
    entries: HashMap<String, EntryFacts>,
}

/// What a segment says of an entry.
#[derive(Debug, Clone, Copy, Default)]
struct EntryFacts {
    limit: Option<Duration>,
    idempotent: bool,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Channel>,
    open: usize,
    closed: bool,
    /// Threads that wait for a channel to come back: telling nobody would be a system call for every request.
    waiting: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn unavailable(message: impl Into<String>) -> Failure {
    Failure::new(Outcome::Unavailable, message)
}

fn out_of_reach(segment: &Segment, path: &Path, what: &str, error: &dyn std::fmt::Display) -> Failure {
    unavailable(format!(
        "segment {} is there, but its worker (pid {}) cannot be reached on {}: {what}: {error}; \
         hint: is the worker's --socket folder visible here?",
        segment.name,
        segment.header.worker_pid,
        path.display()
    ))
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
                Sought::Failed(failure) => return Err(failure),
                Sought::NotYet(_) => {}
            }
        }
    }

    /// Attaches once; the worker has until then to answer.
    pub(super) fn try_attach(shm: &str, socket: Option<&Path>, until: Instant) -> Result<Arc<Self>, Failure> {
        let segment = Segment::open_serving(shm).map_err(|error| unavailable(error.to_string()))?;
        let path = socket.map_or_else(|| segment.socket(), Path::to_path_buf);
        let stream = dial::connect_to(&path).map_err(|error| out_of_reach(&segment, &path, "connect", &error))?;
        Self::over(segment, stream, &path, until)
    }

    /// Attaches over a connection to the worker, at `path` for messages; the worker has until then to answer.
    pub fn over(segment: Segment, stream: UnixStream, path: &Path, until: Instant) -> Result<Arc<Self>, Failure> {
        // The segment moves into the session at the end; messages name it until then.
        let named = segment.clone();
        let cannot = |what: &str, error: &dyn std::fmt::Display| out_of_reach(&named, path, what, error);
        stream.set_nonblocking(true).map_err(|error| cannot("prepare", &error))?;
        let mut inbox = Inbox::default();
        let hello = Hello {
            layout_version: LAYOUT_VERSION,
            reserved: 0,
            layout_hash: layout_hash(),
            instance: segment.header.instance,
        };
        handshake::send(stream.as_fd(), message::HELLO, &hello.encode(), None)
            .map_err(|error| cannot("say hello", &error))?;
        let answer = receive(&stream, &mut inbox, message::WELCOME, until).map_err(|error| error.about(&cannot))?;
        let welcome = Welcome::decode(answer.payload[..].try_into().map_err(|_| cannot("welcome", &"its size"))?);
        if welcome.slot >= segment.geometry.sessions {
            return Err(cannot("welcome", &format!("slot {}", welcome.slot)));
        }
        let arena = Arena::new(segment.map.clone(), segment.geometry, owner_of_session(welcome.slot));
        let blocks = Blocks::new(arena, segment.header.session_quota);
        let entries = (0..segment.geometry.entries)
            .map_while(|index| EntryStats::read(&segment.map, &segment.geometry, index))
            .map(|entry| {
                let limit = (entry.limit_ns > 0).then(|| Duration::from_nanos(entry.limit_ns));
                (entry.name, EntryFacts { limit, idempotent: entry.idempotent })
            })
            .collect();
        let descriptors = Descriptors::new(segment.geometry.channels as usize + 8);
        let object = segment.object.as_ref().map(|object| object.as_raw_fd());
        object.into_iter().chain([stream.as_raw_fd()]).for_each(|descriptor| descriptors.add(descriptor));
        let session = Arc::new(Self {
            segment,
            slot: welcome.slot,
            generation: welcome.generation,
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
            entries,
        });
        let Self { segment, slot, generation, .. } = &*session;
        slot::hold_session(&segment.map, &segment.geometry, *slot, *generation);
        forks::remember(&session);
        Ok(session)
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

    fn facts(&self, request: &Request<'_>) -> EntryFacts {
        let name = std::str::from_utf8(request.entry).unwrap_or_default();
        self.entries.get(name).copied().unwrap_or_default()
    }

    /// When a request's time is up: its own limit, capped by the entry's; without one the entry's, else the fallback.
    pub fn deadline(&self, request: &Request<'_>) -> u64 {
        self.deadline_from(now_ns(), request)
    }

    /// The same for a request that began then.
    pub(super) fn deadline_from(&self, began_ns: u64, request: &Request<'_>) -> u64 {
        let timeout = match (request.timeout, self.facts(request).limit) {
            (Some(own), Some(limit)) => own.min(limit),
            (Some(own), None) => own,
            (None, Some(limit)) => limit,
            (None, None) => request.fallback_timeout,
        };
        began_ns.saturating_add(timeout.as_nanos().min(u64::MAX as u128 / 4) as u64)
    }

    /// Whether running a request twice does no harm: as the caller says, else as the entry says.
    pub fn is_idempotent(&self, request: &Request<'_>) -> bool {
        request.idempotent.unwrap_or_else(|| self.facts(request).idempotent)
    }

    /// A new request id.
    pub(super) fn next_id() -> u64 {
        NEXT_ID.fetch_add(1, Ordering::Relaxed) & crate::cell::ID_MASK
    }

    /// A channel out of the pool; a new one if all are in use; if the worker has no more, the next that comes back.
    pub fn checkout(self: &Arc<Self>, deadline_ns: u64) -> Result<Channel, Failure> {
        let channel = self.take_channel(deadline_ns)?;
        self.in_use.fetch_add(1, Ordering::Relaxed);
        Ok(channel)
    }

    /// Channels that are checked out: threads of this process that wait, or event loops.
    pub(super) fn channels_in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    fn take_channel(self: &Arc<Self>, deadline_ns: u64) -> Result<Channel, Failure> {
        loop {
            let (idle, closed) = {
                let mut pool = locked(&self.pool);
                // Late answers of abandoned requests wait in idle channels: reading them gives cells, blocks and leases back.
                pool.idle.iter_mut().filter(|idle| idle.in_flight() > 0).for_each(Channel::drop_late_answers);
                (pool.idle.pop(), pool.closed)
            };
            if let Some(channel) = idle {
                return Ok(channel);
            }
            if closed || self.is_dead() {
                let gone = unavailable(format!("the worker of {} is gone", self.segment.name));
                return Err(Failure { submitted: true, ..gone });
            }
            let refused = match self.open_channel(deadline_ns) {
                Err(failure) if failure.outcome == Outcome::Busy && locked(&self.pool).open > 0 => failure,
                other => return other,
            };
            let mut pool = locked(&self.pool);
            pool.waiting += 1;
            let left = super::instant_of(deadline_ns).saturating_duration_since(Instant::now());
            let (mut pool, timeout) = self
                .returned
                .wait_timeout_while(pool, left, |pool| pool.idle.is_empty() && !pool.closed)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            pool.waiting -= 1;
            drop(pool);
            if timeout.timed_out() {
                return Err(refused);
            }
        }
    }

    /// Asks the worker for one more channel; it has until then to answer.
    pub fn open_channel(self: &Arc<Self>, deadline_ns: u64) -> Result<Channel, Failure> {
        let until = super::instant_of(deadline_ns);
        let answer = match self.ask(Question::Channel, until) {
            Err(HandshakeError::Broken(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(self.no_channel_in_time());
            }
            answered => answered.map_err(|error| error.about(&|what, error| self.no_channel(what, error)))?,
        };
        let cannot = |what: &str, error: &dyn std::fmt::Display| self.no_channel(what, error);
        let opened = Opened::decode(answer.payload[..].try_into().map_err(|_| cannot("answer", &"its size"))?);
        let bell: OwnedFd = answer.fd.ok_or_else(|| cannot("answer", &"no doorbell came with it"))?;
        if opened.channel >= self.segment.geometry.channels {
            return Err(cannot("answer", &format!("channel {}", opened.channel)));
        }
        locked(&self.pool).open += 1;
        self.descriptors.add(bell.as_raw_fd());
        Ok(Channel::new(self.clone(), opened.channel, opened.generation, bell))
    }

    /// Asks the worker for something, and waits for the answer until then.
    fn ask(&self, question: Question<'_>, until: Instant) -> Result<Message, HandshakeError> {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.line_back.wait_timeout_while(locked(&self.line), left, |line| line.is_none());
        let taken = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.take();
        let Some(mut line) = taken else { return Err(HandshakeError::Broken(io::ErrorKind::TimedOut.into())) };
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
            Err(HandshakeError::Broken(error)) if error.kind() != io::ErrorKind::TimedOut => Ok(None),
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

    fn no_channel_in_time(&self) -> Failure {
        let name = &self.segment.name;
        let text = format!("the worker of {name} gave no channel before the deadline; the request was never sent");
        Failure::new(Outcome::Timeout, text)
    }

    /// Puts a channel back.
    pub(super) fn check_in(&self, channel: Channel) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        let mut pool = locked(&self.pool);
        if pool.closed || self.is_dead() || channel.is_broken() {
            drop(pool); // the channel may be the last to hold the session
            return;
        }
        pool.idle.push(channel);
        let awaited = pool.waiting > 0;
        drop(pool);
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
        let block = allocate(&self.blocks, len).map_err(|full| Failure::new(Outcome::Busy, full.to_string()))?;
        Ok(Arc::new(ClientBlock::new(block, self.clone())))
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
        let mut pool = locked(&self.pool);
        pool.open = pool.open.saturating_sub(1);
        drop(pool);
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
