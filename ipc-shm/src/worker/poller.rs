//! The one thread that owns sockets and request rings: it lets clients in, takes their requests, notices their end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use crate::attention;
use crate::doorbell::{self, LONGEST_SLEEP, SpinBudget};
use crate::frame::{NAME_MAX, RequestHead, kind, request_flag};
use crate::handshake::{self, Hello, Inbox, Message, Opened, Received, Welcome, message};
use crate::layout::{HEARTBEAT_AT, LAYOUT_VERSION, SlotState, channel, layout_hash, slot_word, totals};
use crate::os::{now_ns, peer_pidfd};
use crate::outcome::Outcome;
use crate::ring::{Consumer, Producer, RingPlace};
use crate::segment::{OwnedSegment, SegmentError};
use crate::stats;

use super::host::Host;
use super::inflight::{Answer, Inflight};
use super::peer::{Peer, ReplyPath, ReplyRing};

/// What runs the requests.
pub trait Service {
    /// Takes a request over. Called on the poller's thread: what is not short belongs to another one.
    fn serve(&self, request: Inflight);
    /// Looks for requests of this channel that were cancelled while they ran.
    fn cancelled(&self, channel: u32);
}

/// Tells a worker to stop.
#[derive(Debug, Default)]
pub struct Stop {
    level: AtomicU32,
}

impl Stop {
    /// Finish what runs, refuse the rest.
    pub fn want(&self) {
        self.level.fetch_max(1, Ordering::AcqRel);
    }

    /// Do not wait for what runs.
    pub fn at_once(&self) {
        self.level.fetch_max(2, Ordering::AcqRel);
    }

    /// Whether to stop.
    pub fn is_wanted(&self) -> bool {
        self.level.load(Ordering::Acquire) >= 1
    }

    /// Whether not even to wait.
    pub fn is_at_once(&self) -> bool {
        self.level.load(Ordering::Acquire) >= 2
    }
}

/// Why the worker cannot begin to listen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Something that is no socket, or another user's, has the socket's path.
    #[error("{path} exists and is not a socket of this user; hint: remove it, or choose another --socket")]
    Squatted {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{doing} {path}: {error}")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

struct Session {
    socket: UnixStream,
    inbox: Inbox,
    pidfd: OwnedFd,
    /// After HELLO.
    peer: Option<Arc<Peer>>,
    pid: u32,
    channels: Vec<u32>,
    /// The process is dead (not merely its socket closed).
    dead: bool,
    since: Instant,
}

struct Line {
    requests: Consumer,
    path: Arc<ReplyPath>,
    generation: u64,
    session: u64,
    /// A request waits in the ring for which no answer can be reserved now.
    stalled: bool,
    /// The client has closed its end of the doorbell: the channel is free once its requests are answered.
    hung_up: bool,
}

/// The poller.
pub struct Poller {
    host: Arc<Host>,
    owned: OwnedSegment,
    listener: UnixListener,
    /// Where the socket lies now: under a name of its own until the segment has its name.
    socket_path: PathBuf,
    socket_inode: u64,
    epoll: Epoll,
    wake: Arc<EventFd>,
    sessions: HashMap<u64, Session>,
    next_session: u64,
    lines: Vec<Option<Line>>,
    frame: Vec<u8>,
    /// Channels to look at, gathered and taken in one go; kept for its memory.
    due: Vec<u32>,
    /// Lines that are stalled.
    stalled: usize,
    ticket: u64,
    spin: SpinBudget,
    /// Accepting rests until then: the process is out of descriptors.
    accept_after: Option<Instant>,
}

/// What an epoll event is about, packed into its 64 bits: the kind in the top byte, the number below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Listener,
    Wake,
    Session(u64),
    Death(u64),
    Bell(u32),
}

impl Token {
    fn pack(self) -> u64 {
        match self {
            Token::Listener => 0,
            Token::Wake => 1 << 56,
            Token::Session(id) => 2 << 56 | id,
            Token::Death(id) => 3 << 56 | id,
            Token::Bell(index) => 4 << 56 | index as u64,
        }
    }

    fn unpack(data: u64) -> Self {
        let number = data & ((1 << 56) - 1);
        match data >> 56 {
            0 => Token::Listener,
            1 => Token::Wake,
            2 => Token::Session(number),
            3 => Token::Death(number),
            _ => Token::Bell(number as u32),
        }
    }
}

/// A process needs one session; several clients in it are allowed, a leak of them is not.
const SESSIONS_OF_ONE: usize = 16;
/// Requests taken from one channel before the others are looked at.
const MOST_A_VISIT: u32 = 32;
/// While requests keep coming, newcomers wait at most this long to be heard.
const LOOK_AT_SOCKETS_EVERY: Duration = Duration::from_millis(1);
/// How long a connection may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

impl Poller {
    /// Listens on the segment's socket. The segment is not ready yet: see [`Poller::open`].
    pub fn new(owned: OwnedSegment) -> Result<Self, StartError> {
        let path = owned.segment.socket();
        let os = |doing| {
            let path = path.clone();
            move |error: io::Error| StartError::Os { doing, path, error }
        };
        prepare_folder(&path).map_err(os("make the folder of"))?;
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if !meta.file_type().is_socket() || meta.uid() != geteuid().as_raw() => {
                return Err(StartError::Squatted { path });
            }
            _ => {}
        }
        // Bound under a name of its own and moved into place when the segment has been, as it is: nobody ever finds a
        // half-made one, what a dead worker left is replaced, and a start that is refused disturbs no live worker.
        let mut new_path = path.clone().into_os_string();
        new_path.push(format!(".{:08x}", owned.segment.header.instance as u32));
        let new_path = PathBuf::from(new_path);
        let listener = UnixListener::bind(&new_path).map_err(os("listen on"))?;
        let settled = std::fs::set_permissions(&new_path, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| std::fs::symlink_metadata(&new_path));
        let meta = settled.map_err(|error| {
            let _ = std::fs::remove_file(&new_path);
            os("listen on")(error)
        })?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| os("poll")(errno.into()))?;
        let wake = Arc::new(EventFd::new().map_err(|errno| os("poll")(errno.into()))?);
        let host = Host::new(owned.segment.clone());
        let lines = (0..owned.segment.geometry.channels).map(|_| None).collect();
        let poller = Self {
            host,
            owned,
            listener,
            socket_path: new_path,
            socket_inode: meta.ino(),
            epoll,
            wake,
            sessions: HashMap::new(),
            next_session: 0,
            lines,
            frame: Vec::new(),
            due: Vec::new(),
            stalled: 0,
            ticket: 0,
            spin: SpinBudget::default(),
            accept_after: None,
        };
        poller.watch(&poller.listener, Token::Listener).map_err(os("poll"))?;
        poller.watch(&*poller.wake, Token::Wake).map_err(os("poll"))?;
        Ok(poller)
    }

    /// Gives the segment its name and says that the worker serves. Returns the pid of the worker that had the name and
    /// still lives (only with `replace`).
    pub fn open(&mut self, replace: bool) -> Result<Option<u32>, StartError> {
        let previous = self.owned.publish(replace)?;
        let path = self.owned.segment.socket();
        std::fs::rename(&self.socket_path, &path).map_err(|error| {
            let path = path.clone();
            StartError::Os { doing: "listen on", path, error }
        })?;
        self.socket_path = path;
        self.owned.ready();
        Ok(previous)
    }

    /// What the worker's threads share.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Wakes the poller from another thread or a signal handler's thread.
    pub fn waker(&self) -> Arc<EventFd> {
        self.wake.clone()
    }

    fn watch(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.pack()))?)
    }

    /// Serves until a stop is wanted and nothing runs any more, or `patience` has passed since.
    pub fn run(&mut self, service: &dyn Service, stop: &Stop, patience: Duration) -> io::Result<()> {
        let mut last_scan = Instant::now();
        let mut last_look = Instant::now();
        let mut stopping: Option<Instant> = None;
        loop {
            if stop.is_at_once() {
                return Ok(());
            }
            if stop.is_wanted() && stopping.is_none() {
                stopping = Some(Instant::now());
                self.host.segment.set_state(crate::layout::STATE_STOPPING);
            }
            let full = last_scan.elapsed() >= LONGEST_SLEEP;
            if full {
                last_scan = Instant::now();
                self.housekeeping();
            }
            let worked = self.take_attention(service, full, stopping.is_some());
            if let Some(since) = stopping {
                let running = self.in_flight();
                if (running == 0 && !worked) || since.elapsed() > patience {
                    return Ok(());
                }
            }
            if worked {
                // Sockets are looked at too, or a busy ring would keep newcomers out; a system call for every request
                // would cost as much as a short request itself.
                if last_look.elapsed() >= LOOK_AT_SOCKETS_EVERY {
                    last_look = Instant::now();
                    self.poll_sockets(EpollTimeout::ZERO)?;
                }
                continue;
            }
            let host = self.host.clone();
            let (map, geometry) = (&host.segment.map, &host.segment.geometry);
            if self.spin.spin(|| attention::any(map, geometry)) {
                continue;
            }
            self.ticket += 1;
            let sleep = map.u64(geometry.worker_sleep());
            sleep.store(self.ticket, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if !attention::any(map, geometry) {
                let longest = if self.stalled > 0 { 1 } else { LONGEST_SLEEP.as_millis() as u16 };
                self.poll_sockets(EpollTimeout::from(longest))?;
            }
            sleep.store(0, Ordering::Relaxed);
        }
    }

    fn in_flight(&self) -> u32 {
        let peers = self.sessions.values().filter_map(|session| session.peer.as_ref());
        peers.map(|peer| peer.in_flight.load(Ordering::Acquire)).sum()
    }

    /// Takes what the attention bits tell of; with `full`, looks at every channel and session whatever the bits say.
    fn take_attention(&mut self, service: &dyn Service, full: bool, stopping: bool) -> bool {
        let host = self.host.clone();
        let (map, geometry) = (&host.segment.map, &host.segment.geometry);
        let mut due = std::mem::take(&mut self.due);
        attention::take_channels(map, geometry, |index| due.push(index));
        attention::take_sessions(map, geometry, |slot| {
            if let Some(peer) = self.peer_of_slot(slot) {
                peer.collect_released(map, geometry);
            }
        });
        if full || self.stalled > 0 {
            let wanted = |line: &&Line| full || line.stalled;
            due.extend(self.lines.iter().flatten().filter(wanted).map(|line| line.path.index));
        }
        let mut worked = false;
        for index in due.drain(..) {
            worked |= self.take_requests(service, index, stopping);
            service.cancelled(index);
        }
        self.due = due;
        worked
    }

    fn peer_of_slot(&self, slot: u32) -> Option<&Arc<Peer>> {
        self.sessions.values().filter_map(|session| session.peer.as_ref()).find(|peer| peer.slot == slot)
    }

    /// Takes the requests of one channel out of its ring.
    fn take_requests(&mut self, service: &dyn Service, index: u32, stopping: bool) -> bool {
        let Some(Some(line)) = self.lines.get_mut(index as usize) else { return false };
        if line.path.peer.gone.load(Ordering::Acquire) {
            self.stalled -= usize::from(std::mem::take(&mut line.stalled));
            return false;
        }
        let mut worked = false;
        let mut fault = None;
        let mut left = MOST_A_VISIT;
        self.stalled -= usize::from(std::mem::take(&mut line.stalled));
        loop {
            if left == 0 {
                // One busy channel must not keep the others waiting: the rest is for the next round.
                attention::set_channel(&self.host.segment.map, &self.host.segment.geometry, index);
                break;
            }
            match take_one(&self.host, line, &mut self.frame) {
                Ok(Taken::Request(request)) => {
                    worked = true;
                    left -= 1;
                    if stopping {
                        request.answer(Answer::failure(
                            Outcome::Unavailable,
                            "the worker is stopping; this request was not started",
                        ));
                    } else {
                        service.serve(request);
                    }
                }
                Ok(Taken::Nothing) => break,
                Ok(Taken::NoRoom) => {
                    line.stalled = true;
                    self.stalled += 1;
                    break;
                }
                Err(what) => {
                    fault = Some(what);
                    break;
                }
            }
        }
        if worked {
            // A client that sleeps for room has some now.
            let geometry = &self.host.segment.geometry;
            let sleep = self.host.segment.map.u64(geometry.channel(index) + channel::ROOM_SLEEP);
            let _ = doorbell::ring_if_asleep(sleep, line.path.bell.as_fd());
        }
        if let Some(what) = fault {
            let session = line.session;
            self.cut(session, what);
        }
        worked
    }

    fn poll_sockets(&mut self, timeout: EpollTimeout) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            match Token::unpack(event.data()) {
                Token::Listener => self.accept(),
                Token::Wake => {
                    let _ = self.wake.read();
                }
                Token::Session(id) => self.hear(id),
                Token::Death(id) => self.died(id),
                Token::Bell(index) => {
                    if let Some(Some(line)) = self.lines.get_mut(index as usize)
                        && let Ok(doorbell::Woken::HungUp) = doorbell::drain(line.path.bell.as_fd())
                    {
                        line.hung_up = true;
                        let _ = self.epoll.delete(&line.path.bell);
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // Out of descriptors: resting keeps this from being a busy loop.
                    let _ = self.epoll.delete(&self.listener);
                    self.accept_after = Some(Instant::now() + LONGEST_SLEEP);
                    return;
                }
            };
            let Ok(credentials) = getsockopt(&socket, PeerCredentials) else { continue };
            if credentials.uid() != geteuid().as_raw() || socket.set_nonblocking(true).is_err() {
                continue;
            }
            let id = self.next_session;
            self.next_session += 1;
            let pid = credentials.pid() as u32;
            // Without it the end of the process would go unnoticed: whoever cannot be watched is not let in. Mostly it is
            // dead already.
            let Ok(pidfd) = peer_pidfd(socket.as_fd(), pid) else { continue };
            let watched =
                self.watch(&socket, Token::Session(id)).is_ok() && self.watch(&pidfd, Token::Death(id)).is_ok();
            if watched {
                let (inbox, since) = (Inbox::default(), Instant::now());
                let session =
                    Session { socket, inbox, pidfd, peer: None, pid, channels: Vec::new(), dead: false, since };
                self.sessions.insert(id, session);
            }
        }
    }

    /// Reads a session's socket.
    fn hear(&mut self, id: u64) {
        loop {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            match session.inbox.read(session.socket.as_fd()) {
                Ok(Received::Message(message)) => {
                    if let Err(what) = self.respond(id, message) {
                        return self.cut(id, what);
                    }
                }
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => return self.left(id),
                Err(error) => return self.cut(id, error.to_string()),
            }
        }
    }

    fn respond(&mut self, id: u64, message: Message) -> Result<(), String> {
        match message.kind {
            message::HELLO => self.hello(id, &message.payload),
            message::OPEN => self.open_channel(id),
            other => Err(format!("message of kind {other} does not come from a client")),
        }
    }

    fn refuse(&self, id: u64, outcome: Outcome, text: &str) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let mut payload = vec![outcome as u8];
        let room = handshake::MESSAGE_MAX - 1;
        payload.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(room)]);
        handshake::send(session.socket.as_fd(), message::REFUSED, &payload, None).map_err(|error| error.to_string())
    }

    fn hello(&mut self, id: u64, payload: &[u8]) -> Result<(), String> {
        let host = self.host.clone();
        let segment = &host.segment;
        let hello = Hello::decode(payload.try_into().map_err(|_| format!("hello of {} bytes", payload.len()))?);
        if hello.layout_version != LAYOUT_VERSION || hello.layout_hash != layout_hash() {
            let text = format!("the worker has layout {LAYOUT_VERSION}, the client {}", hello.layout_version);
            return self.refuse(id, Outcome::Unavailable, &text);
        }
        if hello.instance != segment.header.instance {
            return self.refuse(id, Outcome::Unavailable, "the worker has been started anew: look its name up again");
        }
        // Whoever has left while an answer was on its way is out by now, and must not count.
        let gone = |session: &Session| session.peer.as_ref().is_some_and(|peer| peer.gone.load(Ordering::Acquire));
        let left: Vec<u64> = self.sessions.iter().filter(|(_, session)| gone(session)).map(|(id, _)| *id).collect();
        left.into_iter().for_each(|id| self.reclaim(id));
        let pid = self.sessions.get(&id).map_or(0, |session| session.pid);
        let own = self.sessions.values().filter(|other| other.pid == pid && other.peer.is_some()).count();
        if own >= SESSIONS_OF_ONE {
            let text = format!("process {pid} has {own} sessions, as many as one may have; hint: share one client");
            return self.refuse(id, Outcome::Busy, &text);
        }
        let used: Vec<u32> = self.sessions.values().filter_map(|s| s.peer.as_ref()).map(|peer| peer.slot).collect();
        let Some(slot) = (0..segment.geometry.sessions).find(|slot| !used.contains(slot)) else {
            let text = format!("all {} session slots are taken", segment.geometry.sessions);
            return self.refuse(id, Outcome::Busy, &text);
        };
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        if session.peer.is_some() {
            return Err("a second hello".into());
        }
        let at = segment.geometry.session(slot);
        let generation = (segment.map.u64(at).load(Ordering::Relaxed) >> 8) + 1;
        segment.map.zero(at + crate::layout::session::RELEASED, segment.geometry.leases_per_session as usize / 8);
        segment.map.u32(at + crate::layout::session::UID).store(geteuid().as_raw(), Ordering::Relaxed);
        segment.map.u64(at + crate::layout::session::STARTED).store(now_ns(), Ordering::Relaxed);
        let peer = Arc::new(Peer::new(&segment.geometry, slot, generation, session.pid));
        peer.show(&segment.map, &segment.geometry, SlotState::Active, 0);
        session.peer = Some(peer);
        let welcome = Welcome { slot, reserved: 0, generation };
        handshake::send(session.socket.as_fd(), message::WELCOME, &welcome.encode(), None)
            .map_err(|error| error.to_string())
    }

    fn open_channel(&mut self, id: u64) -> Result<(), String> {
        let host = self.host.clone();
        let (map, geometry) = (&host.segment.map, &host.segment.geometry);
        let Some(peer) = self.sessions.get(&id).and_then(|session| session.peer.clone()) else {
            return Err("a channel was asked for before hello".into());
        };
        let most = (geometry.channels as usize / 4).max(1);
        if self.sessions.get(&id).is_some_and(|session| session.channels.len() >= most) {
            let text =
                format!("this process has {most} channels, as many as one may have of the {}", geometry.channels);
            return self.refuse(id, Outcome::Busy, &text);
        }
        let Some(index) = self.lines.iter().position(Option::is_none) else {
            let text = format!("all {} channels are taken", geometry.channels);
            return self.refuse(id, Outcome::Busy, &text);
        };
        let index = index as u32;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (bell, theirs) = match socketpair(AddressFamily::Unix, SockType::Stream, None, flags) {
            Ok(pair) => pair,
            Err(errno) => {
                return self.refuse(id, Outcome::Busy, &format!("no doorbell for another channel: {errno}"));
            }
        };
        let slot = geometry.channel(index);
        // Nobody else knows this channel: its last user's process is dead. Positions begin at zero again.
        let words = [
            channel::REQUEST_HEAD,
            channel::REQUEST_TAIL,
            channel::RESPONSE_HEAD,
            channel::RESPONSE_TAIL,
            channel::RESPONSE_SLEEP,
            channel::ROOM_SLEEP,
        ];
        words.iter().for_each(|word| map.u64(slot + word).store(0, Ordering::Relaxed));
        map.zero(geometry.cell(index, 0), geometry.cells_per_channel as usize * 8);
        let generation = (map.u64(slot + channel::WORD).load(Ordering::Relaxed) >> 8) + 1;
        map.u32(slot + channel::SESSION).store(peer.slot, Ordering::Relaxed);
        map.u64(slot + channel::WORD).store(slot_word(generation, SlotState::Active), Ordering::Release);
        self.watch(&bell, Token::Bell(index)).map_err(|error| error.to_string())?;
        let ring =
            ReplyRing { producer: Producer::new(map.clone(), RingPlace::of_responses(geometry, index)), taken: 0 };
        let path = Arc::new(ReplyPath { index, peer: peer.clone(), bell, ring: ring.into() });
        let requests = Consumer::new(map.clone(), RingPlace::of_requests(geometry, index));
        self.lines[index as usize] =
            Some(Line { requests, path, generation, session: id, stalled: false, hung_up: false });
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.channels.push(index);
        peer.show(map, geometry, SlotState::Active, session.channels.len() as u32);
        let opened = Opened { channel: index, reserved: 0, generation };
        handshake::send(session.socket.as_fd(), message::CHANNEL, &opened.encode(), Some(theirs.as_fd()))
            .map_err(|error| error.to_string())
    }

    /// The client's process has ended.
    fn died(&mut self, id: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.dead = true;
            let _ = self.epoll.delete(&session.pidfd);
            let _ = self.epoll.delete(&session.socket);
            if let Some(peer) = &session.peer {
                peer.gone.store(true, Ordering::Release);
            }
            self.reclaim(id);
        }
    }

    /// The client has closed its session socket: in good order, or its process ends just now.
    fn left(&mut self, id: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let _ = self.epoll.delete(&session.socket);
            match &session.peer {
                Some(peer) => {
                    peer.gone.store(true, Ordering::Release);
                    // Whatever a process still looks at keeps its session's socket open: nothing is looked at any more.
                    peer.drop_leases();
                    let (map, geometry) = (&self.host.segment.map, &self.host.segment.geometry);
                    peer.show(map, geometry, SlotState::Closing, session.channels.len() as u32);
                }
                None => session.dead = true,
            }
            self.reclaim(id);
        }
    }

    /// A session that broke a rule gets nothing more; its slot and extents wait until its process is dead.
    fn cut(&mut self, id: u64, what: String) {
        let host = self.host.clone();
        if let Some(session) = self.sessions.get_mut(&id) {
            stats::count(&host.segment.map, &host.segment.geometry, totals::CUT, 1);
            let _ = self.epoll.delete(&session.socket);
            let _ = session.socket.shutdown(std::net::Shutdown::Both);
            match &session.peer {
                Some(peer) => {
                    peer.gone.store(true, Ordering::Release);
                    peer.cut.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(what);
                    let channels = session.channels.len() as u32;
                    peer.show(&host.segment.map, &host.segment.geometry, SlotState::Quarantined, channels);
                }
                None => session.dead = true,
            }
            // Its doorbells are closed with the lines: whoever waits there notices at once.
            for index in session.channels.clone() {
                if let Some(line) = &self.lines[index as usize] {
                    let _ = nix::sys::socket::shutdown(
                        std::os::fd::AsRawFd::as_raw_fd(&line.path.bell),
                        nix::sys::socket::Shutdown::Both,
                    );
                    let _ = self.epoll.delete(&line.path.bell);
                }
            }
        }
        self.reclaim(id);
    }

    /// Takes back what a session that is gone had, once nothing reads it any more.
    fn reclaim(&mut self, id: u64) {
        let host = self.host.clone();
        let (map, geometry) = (&host.segment.map, &host.segment.geometry);
        let Some(session) = self.sessions.get(&id) else { return };
        if let Some(peer) = session.peer.clone() {
            let cut = peer.cut.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_some();
            if peer.in_flight.load(Ordering::Acquire) > 0 || (cut && !session.dead) {
                return;
            }
            peer.drop_leases();
            for index in session.channels.clone() {
                self.free_line(index);
            }
            host.blocks.arena().reclaim(peer.owner());
            peer.show(map, geometry, SlotState::Free, 0);
        } else if !session.dead {
            return;
        }
        self.sessions.remove(&id);
    }

    fn free_line(&mut self, index: u32) {
        let Some(line) = self.lines[index as usize].take() else { return };
        self.stalled -= usize::from(line.stalled);
        let _ = self.epoll.delete(&line.path.bell);
        let word = slot_word(line.generation, SlotState::Free);
        let (map, geometry) = (&self.host.segment.map, &self.host.segment.geometry);
        map.u64(geometry.channel(index) + channel::WORD).store(word, Ordering::Release);
        if let Some(session) = self.sessions.get_mut(&line.session) {
            session.channels.retain(|channel| *channel != index);
        }
    }

    /// Frees channels that their clients have closed while the session goes on.
    fn free_closed_lines(&mut self) {
        let answered = |line: &&Line| {
            line.hung_up && line.path.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).taken == 0
        };
        let closed: Vec<u32> = self.lines.iter().flatten().filter(answered).map(|line| line.path.index).collect();
        closed.into_iter().for_each(|index| self.free_line(index));
    }

    /// Every 100 ms, whatever the bits and bytes said: what was lost is found here.
    fn housekeeping(&mut self) {
        let host = self.host.clone();
        let (map, geometry) = (&host.segment.map, &host.segment.geometry);
        map.u64(HEARTBEAT_AT).store(now_ns(), Ordering::Relaxed);
        if self.accept_after.is_some_and(|after| after <= Instant::now()) {
            self.accept_after = None;
            let _ = self.watch(&self.listener, Token::Listener);
        }
        let late = |session: &Session| session.peer.is_none() && session.since.elapsed() > HELLO_WITHIN;
        let silent: Vec<u64> = self.sessions.iter().filter(|(_, session)| late(session)).map(|(id, _)| *id).collect();
        silent.into_iter().for_each(|id| self.cut(id, "no hello".into()));
        self.free_closed_lines();
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.get(&id) else { continue };
            let Some(peer) = session.peer.clone() else { continue };
            peer.collect_released(map, geometry);
            let broke = peer.cut.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
            if let (Some(what), false) = (broke, peer.gone.load(Ordering::Acquire)) {
                self.cut(id, what); // an answering thread found the fault
            } else if peer.gone.load(Ordering::Acquire) {
                self.reclaim(id);
            } else {
                peer.show(map, geometry, SlotState::Active, session.channels.len() as u32);
            }
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.host.segment.set_state(crate::layout::STATE_STOPPED);
        let own = std::fs::symlink_metadata(&self.socket_path).is_ok_and(|meta| meta.ino() == self.socket_inode);
        if own {
            let _ = std::fs::remove_file(&self.socket_path);
        }
    }
}

enum Taken {
    Request(Inflight),
    Nothing,
    /// The response ring has no room for one more reserved frame.
    NoRoom,
}

/// Copies one frame out of a channel's request ring and checks it.
fn take_one(host: &Arc<Host>, line: &mut Line, frame: &mut Vec<u8>) -> Result<Taken, String> {
    let fault = |fault: crate::ring::RingFault| fault.to_string();
    if !line.requests.has_frame().map_err(fault)? {
        return Ok(Taken::Nothing);
    }
    if !host.reserve_answer(&line.path).map_err(fault)? {
        return Ok(Taken::NoRoom);
    }
    if !line.requests.pop(kind::REQUEST, frame).map_err(fault)? {
        line.path.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).taken -= 1;
        return Ok(Taken::Nothing);
    }
    let Some((head, _)) = frame.split_first_chunk::<{ RequestHead::BYTES }>() else {
        return Err(format!("request frame of {} bytes", frame.len()));
    };
    let mut head = RequestHead::decode(head);
    // Limits count from here: a time in the future would be a way around them.
    head.sent_ns = head.sent_ns.min(now_ns());
    let cells = host.segment.geometry.cells_per_channel;
    if !Inflight::adds_up(&head) || head.cell >= cells || head.name_len as usize > NAME_MAX {
        return Err(format!("request frame whose parts do not add up: {head:?}"));
    }
    if head.flags
        & !(request_flag::IDEMPOTENT | request_flag::HANDLES | request_flag::NAMED | request_flag::PARAMS_HANDLE)
        != 0
    {
        return Err(format!("request frame with unknown flags {:#x}", head.flags));
    }
    line.path.peer.in_flight.fetch_add(1, Ordering::AcqRel);
    stats::count(&host.segment.map, &host.segment.geometry, totals::REQUESTS, 1);
    let queue_depth = host.queued.load(Ordering::Relaxed) as u32;
    let frame = std::mem::take(frame);
    Ok(Taken::Request(Inflight {
        host: host.clone(),
        path: line.path.clone(),
        head,
        frame,
        answered: false,
        readers: Default::default(),
        queue_depth,
    }))
}

/// Where sockets live when nobody says: a folder that only this user can enter.
pub fn default_socket(shm: &str) -> PathBuf {
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|dir| PathBuf::from(dir).join("molt"))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("molt-{}", geteuid().as_raw())));
    base.join(format!("{}.sock", shm.trim_start_matches('/')))
}

fn prepare_folder(socket: &Path) -> io::Result<()> {
    let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    if !folder.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    Ok(())
}
