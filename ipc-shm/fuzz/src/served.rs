//! A worker that is driven step by step, with a service that looks at every part of a request and remembers what it saw.
//! No thread, no sleep: the same input does the same thing every time.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};

use molt_ipc_shm::arena::{Arena, owner_of_session};
use molt_ipc_shm::frame::RequestHead;
use molt_ipc_shm::handshake::{self, Hello, Inbox, Message, Opened, Received, Welcome, message};
use molt_ipc_shm::layout::{LAYOUT_VERSION, layout_hash};
use molt_ipc_shm::ring::RingPlace;
use molt_ipc_shm::segment::{Blueprint, OwnedSegment};
use molt_ipc_shm::worker::{Answer, AnswerBody, Inflight, Payload, Placed, Poller, Service};
use molt_ipc_shm::{Codec, Outcome, Segment};

use super::segment::small;

/// A worker under names of its own, which go with it.
pub struct Served {
    pub poller: Poller,
    pub service: Seen,
    // After the poller: its socket lies in there.
    _folder: tempfile::TempDir,
}

impl Served {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("/molt-fuzz-{}-{count}", std::process::id());
        let folder = tempfile::Builder::new().prefix("molt-fuzz").tempdir().expect("a folder");
        let plan =
            Blueprint { geometry: small(), socket: folder.path().join("s"), max_body: 1 << 20, session_quota: 1 << 20 };
        let owned = OwnedSegment::create(&name, &plan).expect("room for a small segment");
        let poller = Poller::new(owned).expect("a worker");
        Self { poller, service: Seen::default(), _folder: folder }
    }

    pub fn segment(&self) -> &Segment {
        &self.poller.host().segment
    }

    pub fn look(&mut self) {
        self.poller.look(&self.service).expect("a poller that goes on");
    }

    /// A connection that has said nothing yet.
    pub fn connect(&mut self) -> Peer {
        let (theirs, ours) = UnixStream::pair().expect("a connection");
        theirs.set_nonblocking(true).expect("a socket");
        self.poller.admit(ours);
        Peer { socket: theirs, inbox: Inbox::default(), slot: 0, channel: None, bell: None, tail: 0 }
    }

    /// A session with one channel, got as a correct client gets it.
    pub fn attach(&mut self) -> Peer {
        let mut peer = self.connect();
        peer.hello(self.segment());
        self.look();
        let welcome = peer.hear().expect("a welcome");
        peer.slot = Welcome::decode(welcome.payload[..].try_into().expect("a welcome")).slot;
        peer.say(message::OPEN, &[]);
        self.look();
        let opened = peer.hear().expect("a channel");
        peer.opened(opened);
        peer
    }
}

/// The other end of a connection.
pub struct Peer {
    pub socket: UnixStream,
    pub inbox: Inbox,
    pub slot: u32,
    pub channel: Option<u32>,
    pub bell: Option<OwnedFd>,
    /// Where its next frame begins.
    pub tail: u64,
}

impl Peer {
    pub fn hello(&self, segment: &Segment) {
        let instance = segment.header.instance;
        let hello = Hello { layout_version: LAYOUT_VERSION, reserved: 0, layout_hash: layout_hash(), instance };
        self.say(message::HELLO, &hello.encode());
    }

    pub fn say(&self, kind: u32, payload: &[u8]) {
        let _ = handshake::send(self.socket.as_fd(), kind, payload, None);
    }

    /// What the worker said, if it said something.
    pub fn hear(&mut self) -> Option<Message> {
        match self.inbox.read(self.socket.as_fd()) {
            Ok(Received::Message(message)) => Some(message),
            _ => None,
        }
    }

    pub fn opened(&mut self, message: Message) {
        if let Ok(payload) = <&[u8; Opened::BYTES]>::try_from(&message.payload[..]) {
            self.channel = Some(Opened::decode(payload).channel);
            (self.bell, self.tail) = (message.fd, 0);
        }
    }

    pub fn arena(&self, segment: &Segment) -> Arena {
        Arena::new(segment.map.clone(), segment.geometry, owner_of_session(self.slot))
    }

    pub fn requests(&self, segment: &Segment) -> RingPlace {
        // Before it has one: a channel that nobody has.
        RingPlace::of_requests(&segment.geometry, self.channel.unwrap_or(segment.geometry.channels - 1))
    }

    /// Writes a frame at the tail and moves the tail over it.
    pub fn commit(&mut self, segment: &Segment, frame: &[u8]) {
        let place = self.requests(segment);
        let at = self.tail as usize & (place.capacity - 1);
        let fits = frame.len().min(place.capacity - at);
        segment.map.write(place.data + at, &frame[..fits]);
        self.tail += frame.len().next_multiple_of(64) as u64;
        segment.map.u64(place.tail).store(self.tail, Ordering::Release);
    }
}

/// A request's parts, as the service saw them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    pub entry: String,
    pub begun: bool,
    /// `None`: a handle that is not the sender's.
    pub params: Option<Vec<u8>>,
    pub payload: Option<Carried>,
}

/// A request's payload, as the service saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    Inline(Vec<u8>),
    Arena(Vec<u8>),
    Tables(Vec<(String, u64)>),
}

/// Looks at everything that a request gives, and answers in the way that the entry's name says.
#[derive(Default)]
pub struct Seen {
    pub requests: RefCell<Vec<(RequestHead, Parts)>>,
    pub held: RefCell<Vec<Inflight>>,
}

impl Service for Seen {
    fn serve(&self, request: Inflight) {
        let parts = look_at(&request);
        let head = request.head;
        match parts.entry.as_bytes().first() {
            Some(b'h') => self.held.borrow_mut().push(request),
            Some(b'd') => drop(request),
            _ => answer(request, &parts),
        }
        self.requests.borrow_mut().push((head, parts));
    }

    fn cancelled(&self, _channel: u32) {
        let (taken_back, others) = self.held.take().into_iter().partition(Inflight::is_cancelled);
        self.held.replace(others);
        let taken_back: Vec<Inflight> = taken_back;
        taken_back.into_iter().for_each(|request| request.answer(Answer::failure(Outcome::Cancelled, "taken back")));
    }
}

fn look_at(request: &Inflight) -> Parts {
    let copy = |handle| request.copy_out(&handle).ok();
    let payload = match request.payload() {
        Ok(Payload::Inline(bytes)) => Some(Carried::Inline(bytes.to_vec())),
        Ok(Payload::Arena(handle)) => copy(handle).map(Carried::Arena),
        Ok(Payload::Tables(tables)) => {
            Some(Carried::Tables(tables.into_iter().map(|table| (table.name, table.handle.len)).collect()))
        }
        Err(_) => None,
    };
    let _ = (request.codec(), request.accept(), request.deadline_ns(), request.is_cancelled());
    assert_eq!(request.payload_len().is_ok(), payload.is_some());
    Parts { entry: request.entry().to_owned(), begun: request.begin(), params: request.params().ok(), payload }
}

pub fn answer(request: Inflight, parts: &Parts) {
    let text = |outcome, text: &str| Answer::failure(outcome, text);
    let answer = match (parts.entry.as_bytes().first(), &parts.payload) {
        (_, None) => text(Outcome::InvalidInput, "a handle that is not yours"),
        // Reads what it was given as tables, in place.
        (Some(b't'), Some(_)) => {
            let handles = match request.payload() {
                Ok(Payload::Arena(handle)) => vec![handle],
                Ok(Payload::Tables(tables)) => tables.into_iter().map(|table| table.handle).collect(),
                _ => Vec::new(),
            };
            let faults = handles.iter().filter(|handle| request.read_table(handle).is_err()).count();
            text(Outcome::InvalidInput, &"x".repeat(faults * 40))
        }
        // A long answer, from the arena.
        (Some(b'b'), Some(Carried::Inline(bytes))) => match request.result_block(bytes.len() * 64) {
            Ok(block) => Answer::ok(Codec::Raw, AnswerBody::Placed(Placed::Block(block))),
            Err(full) => text(Outcome::Busy, &full.to_string()),
        },
        (_, Some(Carried::Inline(bytes) | Carried::Arena(bytes))) => {
            Answer::ok(Codec::Raw, AnswerBody::Bytes(bytes.clone()))
        }
        (_, Some(Carried::Tables(_))) => text(Outcome::InvalidInput, "no tables here"),
    };
    request.answer(answer);
}
