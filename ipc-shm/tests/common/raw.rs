//! A client that says and writes what it likes.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;

use molt_ipc_shm::Segment;
use molt_ipc_shm::arena::{Arena, owner_of_session};
use molt_ipc_shm::attention;
use molt_ipc_shm::bell;
use molt_ipc_shm::checkout;
use molt_ipc_shm::doorbell;
use molt_ipc_shm::frame::{RequestHead, kind};
use molt_ipc_shm::handshake::{self, Hello, Inbox, Opened, Received, Welcome, message};
use molt_ipc_shm::layout::{LAYOUT_VERSION, channel, layout_hash};
use molt_ipc_shm::ring::RingPlace;

use super::{Names, PATIENCE};

/// A connection, with as much of a session as it has asked for.
pub struct Raw {
    pub segment: Segment,
    pub socket: UnixStream,
    pub slot: u32,
    pub channel: u32,
    generation: u64,
    pub bell: Option<OwnedFd>,
    inbox: Inbox,
    tail: u64,
}

impl Raw {
    /// Connects and says nothing.
    pub fn connect(names: &Names) -> Self {
        Self::connect_to(&names.shm, &names.socket)
    }

    fn connect_to(shm: &str, socket: &Path) -> Self {
        let segment = super::worker::look(shm).expect("a segment");
        let socket = UnixStream::connect(socket).expect("a worker");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Self { segment, socket, slot: 0, channel: 0, generation: 0, bell: None, inbox: Inbox::default(), tail: 0 }
    }

    /// Connects, says hello as a correct client does, and has one channel.
    pub fn attach(names: &Names) -> Self {
        Self::attach_to(&names.shm, &names.socket)
    }

    pub fn attach_to(shm: &str, socket: &Path) -> Self {
        let mut raw = Self::connect_to(shm, socket);
        let hello = raw.hello();
        raw.say(message::HELLO, &hello.encode());
        let Received::Message(welcome) = raw.hear() else { panic!("no welcome") };
        raw.slot = Welcome::decode(welcome.payload[..].try_into().expect("a welcome")).slot;
        raw.open();
        raw
    }

    pub fn hello(&self) -> Hello {
        let instance = self.segment.header.instance;
        Hello { layout_version: LAYOUT_VERSION, reserved: 0, layout_hash: layout_hash(), instance }
    }

    /// Asks for one more channel; `false`: refused.
    pub fn open(&mut self) -> bool {
        self.say(message::OPEN, &[]);
        let Received::Message(opened) = self.hear() else { panic!("no answer to open") };
        if opened.kind != message::CHANNEL {
            return false;
        }
        let channel = Opened::decode(opened.payload[..].try_into().expect("a channel"));
        (self.channel, self.generation) = (channel.channel, channel.generation);
        self.bell = opened.fd;
        true
    }

    /// Says that it has done with its channel.
    pub fn give_back(&self) {
        let word = self.segment.geometry.channel(self.channel) + channel::CHECKOUT;
        checkout::give_back(self.segment.map.u64(word), self.generation);
    }

    pub fn say(&self, kind: u32, payload: &[u8]) {
        handshake::send(self.socket.as_fd(), kind, payload, None).expect("a worker that listens");
    }

    pub fn hear(&mut self) -> Received {
        self.inbox.read(self.socket.as_fd()).unwrap_or(Received::Closed)
    }

    /// Sends bytes as they are.
    pub fn shout(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Whether the worker has closed the connection, within the patience of a test.
    pub fn is_cut(&mut self) -> bool {
        let mut rest = [0; 1024];
        loop {
            match self.socket.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    pub fn arena(&self) -> Arena {
        Arena::new(self.segment.map.clone(), self.segment.geometry, owner_of_session(self.slot))
    }

    /// The head of a correct request for `echo` without a payload.
    pub fn head(&self, id: u64) -> RequestHead {
        RequestHead { len: 68, kind: kind::REQUEST, id, name_len: 4, codec: 3, ..RequestHead::default() }
    }

    pub fn requests(&self) -> RingPlace {
        RingPlace::of_requests(&self.segment.geometry, self.channel)
    }

    pub fn set(&self, word: usize, value: u64) {
        self.segment.map.u64(word).store(value, Ordering::Release);
    }

    /// Writes a frame at the tail, whatever it says, moves the tail over it and wakes the worker.
    pub fn commit(&mut self, frame: &[u8]) {
        let place = self.requests();
        let at = (self.tail as usize) & (place.capacity - 1);
        self.segment.map.write(place.data + at, frame);
        self.tail += frame.len().next_multiple_of(64) as u64;
        self.set(place.tail, self.tail);
        self.wake();
    }

    pub fn wake(&self) {
        let (map, geometry) = (&self.segment.map, &self.segment.geometry);
        attention::set_channel(map, geometry, self.channel);
        if let Some(bell) = &self.bell {
            let _ = doorbell::ring_if_asleep(map.u64(geometry.worker_sleep()), || bell::ring(bell.as_fd()));
        }
    }
}
