//! A worker as a hostile process plays it: anything said on the session socket, in the response ring and in every word of
//! the segment. The client ends every call in a typed way and reads nothing outside of the segment.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow_buffer::alloc::Allocation;
use molt_ipc_shm::arena::{Arena, OWNER_WORKER};
use molt_ipc_shm::checkout;
use molt_ipc_shm::client::{Channel, Payload, Reply, Request, Session};
use molt_ipc_shm::frame::{Handle, ResponseHead, kind, response_flag};
use molt_ipc_shm::handshake::{self, Opened, Welcome, message};
use molt_ipc_shm::layout::{PAGE, channel, entry};
use molt_ipc_shm::ring::RingPlace;
use molt_ipc_shm::{Outcome, Segment, table};

use super::input::Input;
use super::segment;
use super::table::quietly;

/// `| greeting | steps |`
pub fn run(data: &[u8]) {
    quietly();
    let mut input = Input::new(data);
    let segment = segment::sound(&segment::small());
    let (map, geometry) = (&segment.map, &segment.geometry);
    // The worker's own words about its entries.
    map.write(geometry.entry(0), b"echo");
    map.u64(geometry.entry(0) + entry::LIMIT).store(input.near(1_000_000_000), Ordering::Relaxed);
    map.u64(geometry.entry(0) + entry::FLAGS).store(input.u8() as u64, Ordering::Relaxed);
    let (ours, theirs) = UnixStream::pair().expect("a connection");
    theirs.set_nonblocking(true).expect("a socket");
    say(&theirs, &mut input, message::WELCOME);
    let Ok(session) = Session::over(segment.clone(), ours, Path::new("hostile"), Instant::now()) else { return };
    let mut hostile = Hostile { segment, socket: theirs, channel: 0, tail: 0, doorbells: Vec::new() };
    let mut channel: Option<Channel> = None;
    let mut replies: Vec<Reply> = Vec::new();
    let mut steps = 0;
    while !input.is_empty() && steps < 200 {
        steps += 1;
        match (input.u8() % 12, &mut channel) {
            (0, _) => say(&hostile.socket, &mut input, message::CHANNEL),
            (1, _) => hostile.give_channel(&mut input),
            (2, channel) => {
                // The old one goes back into the pool, and may come out again.
                channel.take().into_iter().for_each(Channel::check_in);
                *channel = session.checkout(0).ok();
                hostile.tail = 0;
            }
            (3, Some(channel)) => submit(channel, &mut input),
            (4 | 5, Some(channel)) => hostile.respond(channel, &mut input),
            (6, _) => {
                let place = RingPlace::of_responses(&hostile.segment.geometry, hostile.channel);
                let at = input.u16() as usize % place.capacity;
                let len = input.u8() as usize;
                let bytes = input.bytes(len);
                hostile.segment.map.write(place.data + at, &bytes[..bytes.len().min(place.capacity - at)]);
                hostile.segment.map.u64(place.tail).store(input.near(hostile.tail), Ordering::Release);
            }
            (7, Some(channel)) => {
                while let Some((id, reply)) = channel.next_reply() {
                    assert_eq!(id, reply.head.id);
                    read(&reply, &hostile.segment);
                    replies.push(reply);
                }
            }
            (8, Some(channel)) => give_up(channel, &mut input),
            // Any word but the header: the arena's control words, positions, cells, sleep words.
            (9, _) => {
                let geometry = &hostile.segment.geometry;
                let at = PAGE + input.u32() as usize % (geometry.rings_at() - PAGE);
                hostile.segment.map.u64(at & !7).store(input.u64(), Ordering::Relaxed);
            }
            (10, _) => {
                let which = input.u8() as usize;
                if which < replies.len() {
                    let reply = replies.swap_remove(which);
                    if reply.outcome != Outcome::Ok {
                        let failure = reply.into_failure();
                        assert!(failure.outcome != Outcome::Ok && failure.submitted);
                    }
                }
            }
            (11, _) => hostile.doorbells.truncate(input.u8() as usize % 4),
            _ => {}
        }
    }
    if let Some(mut channel) = channel {
        // Whatever happened, each request that is still waited for ends.
        for id in channel.awaited() {
            channel.time_out(id);
        }
        assert!(channel.awaited().is_empty());
    }
}

/// Says something on the session socket: sound, or any bytes.
fn say(socket: &UnixStream, input: &mut Input<'_>, kind: u32) {
    match input.u8() {
        0..=99 if kind == message::WELCOME => {
            let welcome = Welcome { slot: input.near(0) as u32 % 5, reserved: 0, generation: 1 };
            let _ = handshake::send(socket.as_fd(), message::WELCOME, &welcome.encode(), None);
        }
        100..=140 => {
            let len = input.u8() as usize;
            let _ = handshake::send(socket.as_fd(), message::REFUSED, input.bytes(len), None);
        }
        141..=180 => {
            let len = input.u8() as usize;
            let kind = input.u8() as u32;
            let _ = handshake::send(socket.as_fd(), kind, input.bytes(len), None);
        }
        _ => {
            let len = input.u8() as usize;
            let mut socket = socket;
            let _ = socket.write(input.bytes(len));
        }
    }
}

struct Hostile {
    segment: Segment,
    socket: UnixStream,
    channel: u32,
    tail: u64,
    doorbells: Vec<UnixStream>,
}

impl Hostile {
    /// Answers an OPEN that is about to come, with any channel's number: the same twice, too.
    fn give_channel(&mut self, input: &mut Input<'_>) {
        let number = input.near(0) as u32;
        let (bell, theirs) = UnixStream::pair().expect("a doorbell");
        theirs.set_nonblocking(true).expect("a doorbell");
        let opened = Opened { channel: number, reserved: 0, generation: input.u8() as u64 };
        if number < self.segment.geometry.channels {
            let at = self.segment.geometry.channel(number) + channel::CHECKOUT;
            checkout::give(self.segment.map.u64(at), opened.generation);
        }
        let with = (input.u8() < 240).then_some(theirs.as_fd());
        let _ = handshake::send(self.socket.as_fd(), message::CHANNEL, &opened.encode(), with);
        self.doorbells.push(bell);
        if number < self.segment.geometry.channels {
            (self.channel, self.tail) = (number, 0);
        }
    }

    /// Writes a response to one of the open requests, right or nearly so.
    fn respond(&mut self, channel: &Channel, input: &mut Input<'_>) {
        let Segment { map, geometry, .. } = &self.segment;
        let awaited = channel.awaited();
        let id = awaited.get(input.u8() as usize % awaited.len().max(1)).copied().unwrap_or(1);
        let flags = input.u8();
        let mut rest = Vec::new();
        if flags & 1 != 0 {
            let extent = input.u8() as u32 % geometry.extents;
            if flags & 2 != 0 {
                let arena = Arena::new(map.clone(), *geometry, OWNER_WORKER);
                if let Ok(run) = arena.claim(input.u16() as u64)
                    && let Some(bytes) = Some(input.bytes(64))
                {
                    map.write(arena.offset(run), bytes);
                }
            }
            let handle = Handle {
                offset: input.near(geometry.extent_data(extent) as u64),
                len: input.near(64),
                generation: input.near(1),
                sequence: 0,
            };
            rest.extend_from_slice(&handle.encode());
        }
        let len = input.u8() as usize;
        rest.extend_from_slice(input.bytes(len));
        let whole = (ResponseHead::BYTES + rest.len()) as u64;
        let head = ResponseHead {
            len: input.near(whole) as u32,
            kind: input.near(kind::RESPONSE as u64) as u32,
            id: input.near(id),
            cell: input.near(0) as u32,
            flags: if flags & 4 != 0 { input.u16() as u8 } else { (flags & 1) * response_flag::LEASED },
            outcome: flags >> 3 & 15,
            codec: input.u8(),
            status: 0,
            text_or_age: input.near(rest.len() as u64) as u32,
            lease: input.near(0) as u32,
            ..ResponseHead::default()
        };
        let frame = [&head.encode()[..], &rest].concat();
        let place = RingPlace::of_responses(geometry, self.channel);
        let at = self.tail as usize & (place.capacity - 1);
        map.write(place.data + at, &frame[..frame.len().min(place.capacity - at)]);
        self.tail = self.tail.wrapping_add(frame.len().next_multiple_of(64) as u64);
        map.u64(place.tail).store(self.tail, Ordering::Release);
    }
}

fn submit(channel: &mut Channel, input: &mut Input<'_>) {
    let (how, len) = (input.u8(), input.u16() as usize % 6000);
    let payload = vec![how; len];
    let request = Request {
        entry: b"echo",
        params: &payload[..len.min(how as usize * 16)],
        payload: Payload::Bytes(&payload),
        codec: 3,
        accept: 0,
        idempotent: None,
        resend: true,
        timeout: Some(Duration::ZERO),
        fallback_timeout: Duration::ZERO,
        trace: None,
    };
    let session = channel.session().clone();
    let _ = session.deadline(&request);
    let _ = channel.submit(&request, 0);
}

fn give_up(channel: &mut Channel, input: &mut Input<'_>) {
    let awaited = channel.awaited();
    let Some(id) = awaited.get(input.u8() as usize % awaited.len().max(1)).copied() else { return };
    match input.u8() % 4 {
        0 => {
            channel.abandon(id);
        }
        1 => assert_eq!(channel.time_out(id).outcome, Outcome::Timeout),
        2 => {
            let lost = channel.lose(id).outcome;
            assert!(matches!(lost, Outcome::WorkerLost | Outcome::Unavailable));
        }
        // Its deadline was the clock's first moment: this ends at once.
        _ => {
            let _ = channel.wait(id);
        }
    }
    channel.drain_bell();
}

fn read(reply: &Reply, segment: &Segment) {
    let copy = reply.to_vec();
    let (_, len) = reply.bytes();
    assert_eq!(copy.len(), len);
    if let molt_ipc_shm::client::Body::Leased(lease) = &reply.body {
        assert!(lease.offset() >= segment.geometry.arena_at() && lease.offset() + lease.len() <= segment.map.len());
        let owner: Arc<dyn Allocation> = Arc::new(segment.map.clone());
        let _ = table::read(lease.mapping(), lease.offset(), lease.len(), &owner);
    }
}
