//! A session as a hostile process leads it: anything on its socket, its doorbell and in every word that it has mapped, in
//! any order. The worker goes on; unless other sessions' words were written, it serves them as before.

use std::io::{IoSlice, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use molt_ipc_shm::attention;
use molt_ipc_shm::cell;
use molt_ipc_shm::frame::{RequestHead, kind};
use molt_ipc_shm::handshake::message;
use molt_ipc_shm::layout::{Geometry, PAGE, channel, session, totals};
use molt_ipc_shm::ring::{Consumer, RingPlace};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::input::Input;
use super::served::{Peer, Served, answer};
use super::table::quietly;

/// Steps of one byte each, and what they take.
pub fn run(data: &[u8]) {
    quietly();
    let mut input = Input::new(data);
    let mut served = Served::new();
    let mut witness = served.attach();
    let mut vandal = served.connect();
    // The witness has the first slot and the first channel.
    let mut untouched = true;
    let mut steps = 0;
    while !input.is_empty() && steps < 200 {
        steps += 1;
        let segment = served.segment().clone();
        let (map, geometry) = (&segment.map, &segment.geometry);
        match input.u8() % 16 {
            0 => vandal.hello(&segment),
            1 => vandal.say(message::OPEN, &[]),
            2 => {
                let len = input.u8() as usize;
                let _ = (&vandal.socket).write(input.bytes(len));
            }
            3 => {
                let (fd, flags) = (vandal.socket.as_raw_fd(), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
                let bytes = [input.u8(); 8];
                let _ = sendmsg::<()>(fd, &[IoSlice::new(&bytes)], &[ControlMessage::ScmRights(&[fd; 3])], flags, None);
            }
            4 => hear(&mut vandal),
            5 => {
                let len = input.u8() as usize;
                let frame = input.bytes(len);
                vandal.commit(&segment, frame);
            }
            // A sound request, so that what follows meets one in flight.
            6 => request(&mut vandal, &mut input, &served),
            // Its own words.
            7 | 8 => {
                let index = vandal.channel.unwrap_or(geometry.channels - 1);
                let slot = geometry.channel(index);
                let (at, sensible) = match input.u8() % 6 {
                    0 => (slot + channel::REQUEST_TAIL, vandal.tail),
                    1 => (slot + channel::REQUEST_HEAD, vandal.tail),
                    2 => (slot + channel::RESPONSE_HEAD, 0),
                    3 => (slot + channel::RESPONSE_TAIL, 0),
                    4 => (slot + channel::RESPONSE_SLEEP, 1),
                    _ => (slot + channel::ROOM_SLEEP, 1),
                };
                map.u64(at).store(input.near(sensible), Ordering::Release);
            }
            9 => {
                let cell = geometry.cell(vandal.channel.unwrap_or(7), input.u8() as u32 % geometry.cells_per_channel);
                map.u64(cell).store(input.near(0x102), Ordering::Release);
            }
            10 => {
                let word = input.u8() as usize % (geometry.leases_per_session as usize / 64);
                // Before it has a slot of its own: a slot that nobody has.
                let slot = if vandal.channel.is_some() { vandal.slot } else { geometry.sessions - 1 };
                map.u64(geometry.session(slot) + session::RELEASED + word * 8).fetch_or(input.u64(), Ordering::Release);
                attention::set_session(map, geometry, slot);
            }
            11 => map.u64(geometry.channel_word(0)).store(input.u64(), Ordering::Release),
            12 => {
                let held = served.service.held.take();
                let seen = served.service.requests.borrow().clone();
                for request in held {
                    let parts =
                        seen.iter().find(|(head, _)| head.id == request.head.id && head.cell == request.head.cell);
                    match parts {
                        Some((_, parts)) if input.u8() & 1 == 0 => answer(request, parts),
                        _ => drop(request),
                    }
                }
            }
            // Another session begins; what the last one had stays as it is.
            13 => vandal = served.connect(),
            // Any word of the segment but the header, which nobody reads again.
            14 => {
                let at = PAGE + input.u32() as usize % (geometry.rings_at() - PAGE);
                map.u64(at & !7).store(input.u64(), Ordering::Relaxed);
                untouched = false;
            }
            _ => {
                if let Some(bell) = vandal.bell.take_if(|_| input.u8() & 1 == 0) {
                    drop(bell);
                }
            }
        }
        served.look();
    }
    served.service.held.take();
    served.look();
    if untouched {
        let before =
            served.segment().map.u64(total(&served.segment().geometry, totals::REQUESTS)).load(Ordering::Relaxed);
        serve(&mut witness, &mut served);
        let after =
            served.segment().map.u64(total(&served.segment().geometry, totals::REQUESTS)).load(Ordering::Relaxed);
        assert_eq!(after, before + 1);
    }
}

fn total(geometry: &Geometry, counter: usize) -> usize {
    geometry.total(counter)
}

fn hear(peer: &mut Peer) {
    while let Some(message) = peer.hear() {
        match message.kind {
            message::WELCOME => peer.slot = message.payload.first().map_or(0, |slot| *slot as u32),
            message::CHANNEL => peer.opened(message),
            _ => {}
        }
    }
}

fn request(peer: &mut Peer, input: &mut Input<'_>, served: &Served) {
    let segment = served.segment();
    let Some(index) = peer.channel else { return };
    let (how, len) = (input.u8(), input.u8() as usize);
    let payload = input.bytes(len);
    let entry = [b"echo", b"hold", b"drop", b"big ", b"tabl"][how as usize % 5];
    let head = RequestHead {
        len: (RequestHead::BYTES + entry.len() + payload.len()) as u32,
        kind: kind::REQUEST,
        id: how as u64,
        cell: how as u32 % segment.geometry.cells_per_channel,
        codec: 3,
        name_len: entry.len() as u16,
        payload_len: payload.len() as u32,
        ..RequestHead::default()
    };
    cell::queue(segment.map.u64(segment.geometry.cell(index, head.cell)), head.id);
    peer.commit(segment, &[&head.encode()[..], entry, payload].concat());
}

/// The witness asks and is answered.
fn serve(witness: &mut Peer, served: &mut Served) {
    let segment = served.segment().clone();
    let index = witness.channel.expect("it has one");
    let body = b"still here";
    let head = RequestHead {
        len: (RequestHead::BYTES + 4 + body.len()) as u32,
        kind: kind::REQUEST,
        id: 77,
        codec: 3,
        name_len: 4,
        payload_len: body.len() as u32,
        ..RequestHead::default()
    };
    cell::queue(segment.map.u64(segment.geometry.cell(index, 0)), head.id);
    witness.commit(&segment, &[&head.encode()[..], b"echo", body].concat());
    served.look();
    let mut ring = Consumer::new(segment.map.clone(), RingPlace::of_responses(&segment.geometry, index));
    let mut frame = Vec::new();
    assert_eq!(ring.pop(kind::RESPONSE, &mut frame), Ok(true), "the witness was not answered");
    assert!(frame.ends_with(body));
}
