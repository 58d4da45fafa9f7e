//! How clients come and go: who is let in, what they are given, and how everything comes back.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use crate::attention;
use crate::bell::LONGEST_SLEEP;
use crate::handshake::{self, Hello, Inbox, Leave, Message, Received, Welcome, message};
use crate::layout::{LAYOUT_VERSION, SlotState, layout_hash, session, totals};
use crate::os::{now_ns, peer_pidfd};
use crate::outcome::Outcome;
use crate::slot;
use crate::stats;

use super::lines::is_shortage;
use super::peer::Peer;
use super::poller::{Poller, Token};

/// Connections, or messages of one, that are looked at before others are.
const MOST_A_VISIT: u32 = 64;
/// A process whose sockets are closed is dead by then, unless it has closed them itself.
const DYING_WITHIN: Duration = Duration::from_millis(500);
/// A process needs one session; several clients in it are allowed, a leak of them is not.
const SESSIONS_OF_ONE: usize = 16;

/// A connection, from accept until nothing of it is left.
pub(super) struct Session {
    pub socket: UnixStream,
    pub inbox: Inbox,
    pub pidfd: OwnedFd,
    /// After HELLO.
    pub peer: Option<Arc<Peer>>,
    pub pid: u32,
    pub channels: Vec<u32>,
    /// The process is dead (not merely its socket closed).
    pub dead: bool,
    /// Its socket was closed, and its client has not said that it lets go: until the process is dead, nothing of it is
    /// given to others.
    pub lost: Option<Instant>,
    pub since: Instant,
}

impl Session {
    /// What tells its process from others: the pid, or, of one in another container, whose pid the kernel does not tell, the
    /// inode of the pidfd (Linux 6.9; before, all of them count as one).
    fn process(&self) -> (u32, u64) {
        let inode = || nix::sys::stat::fstat(&self.pidfd).map_or(0, |stat| stat.st_ino);
        (self.pid, if self.pid == 0 { inode() } else { 0 })
    }
}

impl Poller {
    pub(super) fn accept(&mut self) {
        // The rest is for the next time: others have waited, too.
        for _ in 0..MOST_A_VISIT {
            let socket = match self.listener.accept() {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // Out of descriptors: resting keeps this from being a busy loop.
                    let _ = self.epoll.delete(&self.listener);
                    self.accept_after = Some(Instant::now() + LONGEST_SLEEP);
                    return;
                }
            };
            self.admit(socket);
        }
    }

    /// Lets a new connection in, if its process is this user's and can be watched.
    pub fn admit(&mut self, socket: UnixStream) {
        let Ok(credentials) = getsockopt(&socket, PeerCredentials) else { return };
        if credentials.uid() != geteuid().as_raw() || socket.set_nonblocking(true).is_err() {
            return;
        }
        let id = self.next_session;
        self.next_session += 1;
        let pid = credentials.pid() as u32;
        // Without it the end of the process would go unnoticed: whoever cannot be watched is not let in. Mostly it is dead
        // already.
        let Ok(pidfd) = peer_pidfd(socket.as_fd(), pid) else { return };
        let watched = self.watch(&socket, Token::Session(id)).is_ok() && self.watch(&pidfd, Token::Death(id)).is_ok();
        if watched {
            let (inbox, since) = (Inbox::default(), Instant::now());
            let session =
                Session { socket, inbox, pidfd, peer: None, pid, channels: Vec::new(), dead: false, lost: None, since };
            self.sessions.insert(id, session);
        }
    }

    /// Reads a session's socket.
    pub(super) fn hear(&mut self, id: u64) {
        for heard in 0_u32.. {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            // Who never stops talking is heard again next time, like everybody else. What has been read must be answered
            // now: the socket will not tell of it once more.
            if heard >= MOST_A_VISIT && !session.inbox.has_message() {
                return;
            }
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
            message::LOOK => self.tell_segment(id),
            message::PIN => self.pin(id, message.fd),
            message::LEAVE => self.leave(id, &message.payload),
            other => Err(format!("message of kind {other} does not come from a client")),
        }
    }

    pub(super) fn refuse(&self, id: u64, outcome: Outcome, text: &str) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let mut payload = vec![outcome as u8];
        let room = handshake::MESSAGE_MAX - 1;
        payload.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(room)]);
        handshake::send(session.socket.as_fd(), message::REFUSED, &payload, None).map_err(|error| error.to_string())
    }

    /// Says where the segment is to be found: takes no slot, so tools can ask too.
    fn tell_segment(&self, id: u64) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let segment = &self.host.segment;
        let (name, object) = match &segment.object {
            Some(object) => (&[][..], Some(object.as_fd())),
            None => (segment.name.as_bytes(), None),
        };
        match handshake::send(session.socket.as_fd(), message::SEGMENT, name, object) {
            Err(error) if is_shortage(&error) => {
                self.refuse(id, Outcome::Busy, &format!("the worker cannot hand its segment out now: {error}"))
            }
            sent => sent.map_err(|error| error.to_string()),
        }
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
        self.reclaim_gone();
        let pid = self.sessions.get(&id).map_or(0, |session| session.pid);
        let process = self.sessions.get(&id).map(Session::process);
        let is_own = |other: &&Session| Some(other.process()) == process && other.peer.is_some();
        let own = self.sessions.values().filter(is_own).count();
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
        let generation = slot::prepare_session(&segment.map, &segment.geometry, slot);
        segment.map.u32(at + session::UID).store(geteuid().as_raw(), Ordering::Relaxed);
        segment.map.u64(at + session::STARTED).store(now_ns(), Ordering::Relaxed);
        let peer = Arc::new(Peer::new(&segment.geometry, slot, generation, session.pid));
        peer.show(&segment.map, &segment.geometry, SlotState::Active, 0);
        session.peer = Some(peer);
        let welcome = Welcome { slot, reserved: 0, generation };
        handshake::send(session.socket.as_fd(), message::WELCOME, &welcome.encode(), None)
            .map_err(|error| error.to_string())
    }

    /// A successor says that it serves. Asked for by whoever means another start of the worker, it is refused.
    fn leave(&mut self, id: u64, payload: &[u8]) -> Result<(), String> {
        let leave = Leave::decode(payload.try_into().map_err(|_| format!("leave of {} bytes", payload.len()))?);
        if leave.instance != self.host.segment.header.instance {
            return self.refuse(id, Outcome::Unavailable, "that start of the worker is not here any more");
        }
        self.succeeded = true;
        Ok(())
    }

    /// The client's process has ended.
    pub(super) fn died(&mut self, id: u64) {
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
                    let (map, geometry) = (&self.host.segment.map, &self.host.segment.geometry);
                    if peer.is_held(map, geometry) {
                        session.lost = Some(Instant::now());
                    } else {
                        // Whatever a process still looks at is held: nothing is looked at any more.
                        peer.drop_leases();
                    }
                    peer.show(map, geometry, SlotState::Closing, session.channels.len() as u32);
                }
                None => session.dead = true,
            }
            self.reclaim(id);
        }
    }

    /// A process that ends closes its sockets a moment before it is dead. One that lives on with a session whose socket is
    /// closed has lost its descriptors: it may read and write what it has mapped, so all of it stays its own.
    pub(super) fn quarantine_lost(&mut self, id: u64) {
        let (map, geometry) = (&self.host.segment.map, &self.host.segment.geometry);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(peer) = &session.peer
            && session.lost.take_if(|since| since.elapsed() > DYING_WITHIN).is_some()
        {
            stats::count(map, geometry, totals::CUT, 1);
            peer.show(map, geometry, SlotState::Quarantined, session.channels.len() as u32);
        }
    }

    /// A session that broke a rule gets nothing more; its slot and extents wait until its process is dead.
    pub(super) fn cut(&mut self, id: u64, what: String) {
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
                    let _ = shutdown(line.path.bell.as_raw_fd(), Shutdown::Both);
                    let _ = self.epoll.delete(&line.path.bell);
                }
            }
        }
        self.reclaim(id);
    }

    /// Takes back what all sessions that are gone had, as far as nothing reads it any more.
    pub(super) fn reclaim_gone(&mut self) {
        let gone = |session: &Session| session.peer.as_ref().is_some_and(|peer| peer.gone.load(Ordering::Acquire));
        let left: Vec<u64> = self.sessions.iter().filter(|(_, session)| gone(session)).map(|(id, _)| *id).collect();
        left.into_iter().for_each(|id| self.reclaim(id));
    }

    /// Takes back what a session that is gone had, once nothing reads it any more.
    pub(super) fn reclaim(&mut self, id: u64) {
        let host = self.host.clone();
        let (map, geometry) = (&host.segment.map, &host.segment.geometry);
        let Some(session) = self.sessions.get(&id) else { return };
        if let Some(peer) = session.peer.clone() {
            let cut = peer.cut.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_some();
            if peer.in_flight.load(Ordering::Acquire) > 0 {
                // What it still has running is cancelled at the poller's next step, not at its next full look.
                session.channels.iter().for_each(|index| attention::set_channel(map, geometry, *index));
                return;
            }
            if !session.dead && (cut || peer.is_held(map, geometry)) {
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
}
