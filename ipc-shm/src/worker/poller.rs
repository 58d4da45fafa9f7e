//! The one thread that owns sockets and request rings: it looks where attention is asked for, takes requests, and sleeps
//! when there is nothing.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use crate::attention;
use crate::bell::{self, LONGEST_SLEEP};
use crate::doorbell::{self, Woken};
use crate::frame::{NAME_MAX, REQUEST_FLAGS, RequestHead, kind};
use crate::layout::{HEARTBEAT_AT, STATE_STOPPED, STATE_STOPPING, SlotState, channel, totals};
use crate::os::now_ns;
use crate::outcome::Outcome;
use crate::segment::{Claim, OwnedSegment};
use crate::spin::SpinBudget;
use crate::stats;

use super::former::Former;
use super::host::Host;
use super::inflight::{Answer, Inflight};
use super::lines::Line;
use super::listener::{Listener, StartError};
use super::peer::Peer;
use super::pins::Pin;
use super::sessions::Session;
use super::stall::Stall;
use super::stop::Stop;

/// What runs the requests.
pub trait Service {
    /// Takes a request over. Called on the poller's thread: what is not short belongs to another one.
    fn serve(&self, request: Inflight);
    /// Looks for requests of this channel that were cancelled while they waited or ran.
    fn cancelled(&self, channel: u32);
    /// Ten times a second, whatever happens: what is due by the clock is done here.
    fn tick(&self) {}
    /// The worker stops: what waits and has not begun is to be answered now, not when its turn would have come.
    fn stopping(&self) {}
}

/// The poller.
pub struct Poller {
    pub(super) host: Arc<Host>,
    pub(super) owned: OwnedSegment,
    pub(super) listener: Listener,
    pub(super) epoll: Epoll,
    wake: Arc<EventFd>,
    pub(super) sessions: HashMap<u64, Session>,
    pub(super) next_session: u64,
    pub(super) pins: HashMap<u64, Pin>,
    pub(super) lines: Vec<Option<Line>>,
    frame: Vec<u8>,
    /// Channels to look at, gathered and taken in one go; kept for its memory.
    due: Vec<u32>,
    /// Channels whose bit told of requests: it may have told of cancelled ones too.
    unasked: Vec<u32>,
    pub(super) stall: Stall,
    ticket: u64,
    spin: SpinBudget,
    /// Accepting rests until then: the process is out of descriptors.
    pub(super) accept_after: Option<Instant>,
    /// The worker's successor has said that it serves.
    pub(super) succeeded: bool,
}

/// What an epoll event is about, packed into its 64 bits: the kind in the top byte, the number below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Wake,
    Session(u64),
    Death(u64),
    /// The channel and its generation: of one look's events, an earlier one may free a channel and open it for somebody
    /// else, and what its last user's socket told must not be taken for the next one's.
    Bell(u32, u64),
    Pin(u64),
}

/// What of a generation fits beside the channel's number, of which there are at most 65,536.
const BELL_GENERATIONS: u64 = (1 << 40) - 1;

impl Token {
    fn pack(self) -> u64 {
        match self {
            Token::Listener => 0,
            Token::Wake => 1 << 56,
            Token::Session(id) => 2 << 56 | id,
            Token::Death(id) => 3 << 56 | id,
            Token::Bell(index, generation) => 4 << 56 | (generation & BELL_GENERATIONS) << 16 | index as u64,
            Token::Pin(id) => 5 << 56 | id,
        }
    }

    fn unpack(data: u64) -> Self {
        let number = data & ((1 << 56) - 1);
        match data >> 56 {
            0 => Token::Listener,
            1 => Token::Wake,
            2 => Token::Session(number),
            3 => Token::Death(number),
            4 => Token::Bell(number as u32 & 0xffff, number >> 16),
            _ => Token::Pin(number),
        }
    }
}

/// Requests taken from one channel before the others are looked at.
const MOST_A_VISIT: u32 = 32;
/// While requests keep coming, newcomers wait at most this long to be heard.
const LOOK_AT_SOCKETS_EVERY: Duration = Duration::from_millis(1);
/// How long a worker whose successor serves finishes what it runs: longer than a query may take where nobody says.
const SUCCEEDED_PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

impl Poller {
    /// Listens on the segment's socket. The segment is not ready yet: see [`Poller::open`].
    pub fn new(owned: OwnedSegment) -> Result<Self, StartError> {
        let listener = Listener::bind(owned.segment.socket())?;
        Self::listening(owned, listener)
    }

    /// The same with a socket that is bound already.
    pub fn listening(owned: OwnedSegment, listener: Listener) -> Result<Self, StartError> {
        let place = owned.segment.socket();
        let os = |error: io::Error| StartError::Os { doing: "poll", path: place.clone(), error };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| os(errno.into()))?;
        let wake = Arc::new(EventFd::new().map_err(|errno| os(errno.into()))?);
        let host = Host::new(owned.segment.clone());
        let _ = host.wake.set(wake.clone());
        let lines = (0..owned.segment.geometry.channels).map(|_| None).collect();
        let poller = Self {
            host,
            owned,
            listener,
            epoll,
            wake,
            sessions: HashMap::new(),
            next_session: 0,
            pins: HashMap::new(),
            lines,
            frame: Vec::new(),
            due: Vec::new(),
            unasked: Vec::new(),
            stall: Stall::none(),
            ticket: 0,
            spin: SpinBudget::worker(),
            accept_after: None,
            succeeded: false,
        };
        poller.watch(&poller.listener, Token::Listener).map_err(os)?;
        poller.watch(&*poller.wake, Token::Wake).map_err(os)?;
        Ok(poller)
    }

    /// Gives the segment its name and says that the worker serves. Returns the worker that had the name and still lives
    /// (only with `replace`), for it to be told.
    pub fn open(&mut self, replace: bool) -> Result<Option<Former>, StartError> {
        self.open_with(if replace { Claim::Anybodys } else { Claim::Free })
    }

    /// The same for any kind of name.
    pub fn open_with(&mut self, claim: Claim) -> Result<Option<Former>, StartError> {
        let former = self.take_name(claim)?;
        self.ready();
        Ok(former)
    }

    /// Says that the worker serves.
    pub fn ready(&self) {
        self.owned.ready();
    }

    /// Gives the segment its name alone: who looks it up waits until the worker serves. Of a segment that has none it is the
    /// socket's path that is claimed.
    pub fn take_name(&mut self, claim: Claim) -> Result<Option<Former>, StartError> {
        let Self { owned, listener, .. } = self;
        let replace = claim == Claim::Anybodys;
        let (nameless, instance) = (owned.segment.is_nameless(), owned.segment.header.instance);
        let mut former = None;
        owned.publish_with(claim, |live| {
            // Before its socket loses its path.
            former = match live {
                Some(live) => Some(Former::of(live)),
                None if nameless && replace => Former::at(listener.place(), instance),
                None => None,
            };
            listener.publish(replace)
        })?;
        Ok(former)
    }

    /// Leaves name and socket where they are when this worker ends: its supervisor starts it again.
    pub fn keep_name(&mut self) {
        self.owned.keep_name();
    }

    /// What the worker's threads share.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Wakes the poller from another thread or a signal handler's thread.
    pub fn waker(&self) -> Arc<EventFd> {
        self.wake.clone()
    }

    pub(super) fn watch(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        self.watch_for(fd, EpollFlags::EPOLLIN, token)
    }

    pub(super) fn watch_for(&self, fd: impl AsFd, events: EpollFlags, token: Token) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(events, token.pack()))?)
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
            if self.succeeded {
                stop.leave();
            }
            if stop.is_wanted() && stopping.is_none() {
                stopping = Some(Instant::now());
                self.host.segment.set_state(STATE_STOPPING);
                service.stopping();
            }
            let full = last_scan.elapsed() >= LONGEST_SLEEP;
            if full {
                last_scan = Instant::now();
                self.housekeeping();
                service.tick();
            }
            let worked = self.take_attention(service, full, stopping.is_some());
            if let Some(since) = stopping {
                // What does not end ends with this process.
                let running = (self.in_flight() as usize).saturating_sub(self.host.overdue.load(Ordering::Relaxed));
                let patience = if stop.is_leaving() { patience.max(SUCCEEDED_PATIENCE) } else { patience };
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
                    self.look_for_cancelled(service);
                }
                continue;
            }
            self.look_for_cancelled(service);
            let host = self.host.clone();
            let (map, geometry) = (&host.segment.map, &host.segment.geometry);
            if self.spin.spin(|| attention::any(map, geometry)) {
                continue;
            }
            self.ticket += 1;
            let (ticket, longest) = (self.ticket, self.stall.longest_sleep());
            let wait = || self.poll_sockets(EpollTimeout::from(longest)).map(|()| Woken::Look);
            let asleep = now_ns();
            attention::sleep(map, geometry, ticket, wait)?;
            self.spin.slept(now_ns() - asleep);
        }
    }

    /// One look at every socket, channel and session, without sleeping; returns whether a request was taken. For whoever
    /// drives the poller step by step: a test that must see the same thing happen every time.
    pub fn look(&mut self, service: &dyn Service) -> io::Result<bool> {
        self.poll_sockets(EpollTimeout::ZERO)?;
        self.housekeeping();
        service.tick();
        let worked = self.take_attention(service, true, false);
        self.look_for_cancelled(service);
        Ok(worked)
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
        if self.stall.is_due() || full {
            let wanted = |line: &&Line| full || line.stalled;
            due.extend(self.lines.iter().flatten().filter(wanted).map(|line| line.path.index));
        }
        let mut worked = false;
        for index in due.drain(..) {
            if self.take_requests(service, index, stopping) {
                worked = true;
                // To look through what waits and runs with every request would cost as much as a short one itself.
                if !self.unasked.contains(&index) {
                    self.unasked.push(index);
                }
            } else {
                service.cancelled(index);
            }
        }
        self.due = due;
        worked
    }

    /// At once when there is nothing else to do, else every millisecond.
    fn look_for_cancelled(&mut self, service: &dyn Service) {
        self.unasked.drain(..).for_each(|index| service.cancelled(index));
    }

    fn peer_of_slot(&self, slot: u32) -> Option<&Arc<Peer>> {
        self.sessions.values().filter_map(|session| session.peer.as_ref()).find(|peer| peer.slot == slot)
    }

    /// Takes the requests of one channel out of its ring.
    fn take_requests(&mut self, service: &dyn Service, index: u32, stopping: bool) -> bool {
        let Some(Some(line)) = self.lines.get_mut(index as usize) else { return false };
        let stalled = std::mem::take(&mut line.stalled);
        if stalled {
            self.stall.ends();
        }
        if line.path.peer.gone.load(Ordering::Acquire) {
            return false;
        }
        let mut worked = false;
        let mut fault = None;
        let mut left = MOST_A_VISIT;
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
                    self.stall.begins(worked || !stalled);
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
            let _ = doorbell::ring_if_asleep(sleep, || bell::ring(line.path.bell.as_fd()));
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
                    self.reclaim_gone();
                }
                Token::Session(id) => self.hear(id),
                Token::Death(id) => self.died(id),
                Token::Pin(id) => self.hear_pin(id),
                Token::Bell(index, generation) => {
                    if let Some(Some(line)) = self.lines.get_mut(index as usize)
                        && line.generation & BELL_GENERATIONS == generation
                        && line.rung(event.events())
                    {
                        let _ = self.epoll.delete(&line.path.bell);
                    }
                }
            }
        }
        Ok(())
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
        self.empty_bells();
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
                self.quarantine_lost(id);
            } else {
                peer.show(map, geometry, SlotState::Active, session.channels.len() as u32);
            }
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.sessions.values().filter_map(|session| session.peer.as_ref()).for_each(|peer| peer.abandon_leases());
        self.pins.values().for_each(|pin| pin.pinned.abandon());
        self.host.segment.set_state(STATE_STOPPED);
        let Self { owned, listener, .. } = self;
        owned.retire(|| listener.unlink());
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
    if head.flags & !REQUEST_FLAGS != 0 {
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

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn an_event_names_what_it_is_about() {
        for token in [
            Token::Listener,
            Token::Wake,
            Token::Session(7),
            Token::Death(1 << 40),
            Token::Bell(0, 0),
            Token::Bell(65_535, (1 << 40) - 1),
            Token::Bell(3, 9),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
        assert_ne!(Token::Bell(3, 9).pack(), Token::Bell(3, 10).pack(), "the channel's next user is another");
    }
}
