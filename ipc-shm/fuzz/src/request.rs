//! One frame in a request ring, its bytes any. The worker cuts the session exactly if a model of spec/messages.md says
//! that the frame is none; otherwise every part that it hands to an entry is the model's, and one answer comes back.

use std::sync::atomic::Ordering;

use molt_ipc_shm::TraceContext;
use molt_ipc_shm::arena::{Arena, OWNER_WORKER};
use molt_ipc_shm::cell;
use molt_ipc_shm::frame::{Handle, NAME_MAX, REQUEST_FLAGS, RequestHead, ResponseHead, kind, request_flag};
use molt_ipc_shm::layout::totals;
use molt_ipc_shm::ring::{Consumer, RingPlace};
use molt_ipc_shm::segment::Segment;

use super::input::Input;
use super::served::{Carried, Parts, Peer, Served};
use super::table::quietly;

/// `| mode | frame |`
pub fn run(data: &[u8]) {
    quietly();
    let mut input = Input::new(data);
    let mode = input.u8();
    let mut served = Served::new();
    let mut peer = served.attach();
    let segment = served.segment().clone();
    // Some bytes that the sender owns, and some that it does not.
    let (own, theirs) = (peer.arena(&segment), Arena::new(segment.map.clone(), segment.geometry, OWNER_WORKER));
    let bytes = segment.geometry.extent_bytes as u64;
    let claimed = [own.claim(3 * bytes), theirs.claim(2 * bytes), own.claim(bytes)];
    assert!(claimed.iter().all(Result::is_ok));
    let mut frame = repaired(mode, input.rest(), &segment);
    // One frame: what lies behind its end would be the next.
    if let Some(len) = frame.first_chunk().map(|len| u32::from_le_bytes(*len) as usize).filter(|len| *len >= 8) {
        frame.truncate(len);
    }
    if frame.is_empty() {
        return; // nothing is committed, and nothing happens
    }
    let expected = expected(&frame, &segment, &own);
    if mode & 64 == 0
        && let Ok((head, _)) = &expected
    {
        cell::queue(segment.map.u64(segment.geometry.cell(peer.channel.unwrap_or(0), head.cell)), head.id);
    }
    peer.commit(&segment, &frame);
    served.look();
    let counter = |counter| segment.map.u64(segment.geometry.total(counter)).load(Ordering::Relaxed);
    let seen = served.service.requests.take();
    match expected {
        Err(why) => {
            assert!(seen.is_empty() && counter(totals::CUT) == 1, "{why}, and it was taken: {seen:?}");
        }
        Ok((head, parts)) => {
            assert_eq!(counter(totals::CUT), 0, "a sound frame was cut: {head:?}");
            let expected = Parts { begun: mode & 64 == 0, ..parts };
            assert_eq!(seen.iter().map(|(_, parts)| parts).collect::<Vec<_>>(), [&expected]);
            let held = served.service.held.take();
            let holds = held.len();
            held.into_iter().for_each(|request| super::served::answer(request, &expected));
            let answers = answers(&peer, &segment);
            assert_eq!(answers.len(), 1, "{holds} were held");
            assert_eq!((answers[0].id, answers[0].cell), (head.id, head.cell));
        }
    }
}

fn answers(peer: &Peer, segment: &Segment) -> Vec<ResponseHead> {
    let place = RingPlace::of_responses(&segment.geometry, peer.channel.unwrap_or(0));
    let mut ring = Consumer::new(segment.map.clone(), place);
    let (mut frame, mut heads) = (Vec::new(), Vec::new());
    while ring.pop(kind::RESPONSE, &mut frame).expect("the worker writes sound frames") {
        heads.push(ResponseHead::decode(frame.first_chunk().expect("a head")));
    }
    heads
}

/// Makes some of a frame's parts sensible, as the mode's bits say: without help, few frames would pass the first check.
fn repaired(mode: u8, given: &[u8], segment: &Segment) -> Vec<u8> {
    let said = |bit: u8| mode & bit != 0;
    let geometry = &segment.geometry;
    let mut frame = given[..given.len().min(geometry.ring_bytes as usize)].to_vec();
    let Some(head) = frame.first_chunk::<{ RequestHead::BYTES }>() else { return frame };
    let mut head = RequestHead::decode(head);
    if said(1) {
        (head.kind, head.len) = (kind::REQUEST, frame.len() as u32);
    }
    if said(2) {
        head.cell %= geometry.cells_per_channel;
        head.flags &= REQUEST_FLAGS;
    }
    if said(4) {
        // Lengths that share out what there is.
        let mut left = frame.len() - RequestHead::BYTES;
        let mut take = |wanted: usize| {
            let taken = wanted.min(left);
            left -= taken;
            taken
        };
        head.name_len = take(head.name_len as usize % 32) as u16;
        head.params_len = take(head.params_len as usize % 128) as u32;
        head.names_len = take(head.names_len as usize % 64) as u32;
        head.handles = (take(head.handles as usize % 4 * Handle::BYTES) / Handle::BYTES) as u16;
        if head.flags & request_flag::TRACED != 0 && take(TraceContext::BYTES) < TraceContext::BYTES {
            return frame; // as it is: too short for what it says
        }
        let parts = head.name_len as usize + head.params_len as usize + head.names_len as usize;
        let traced = if head.flags & request_flag::TRACED != 0 { TraceContext::BYTES } else { 0 };
        let rest = frame.len() - RequestHead::BYTES - parts - head.handles as usize * Handle::BYTES;
        head.payload_len = (rest - traced) as u32;
    }
    if said(8) && head.handles < 8 {
        let handles = RequestHead::BYTES + head.name_len as usize + head.params_len as usize + head.names_len as usize;
        for index in 0..head.handles as usize {
            let at = handles + index * Handle::BYTES;
            let Some(bytes) = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<{ Handle::BYTES }>()) else {
                break;
            };
            let mut handle = Handle::decode(bytes);
            handle.offset = geometry.arena_at() as u64 + handle.offset % (8 * geometry.extent_bytes as u64);
            handle.len %= 2 * geometry.extent_bytes as u64;
            handle.generation = 1;
            *bytes = handle.encode();
        }
    }
    frame[..RequestHead::BYTES].copy_from_slice(&head.encode());
    frame
}

/// What the frame says, read from spec/messages.md.
fn expected(frame: &[u8], segment: &Segment, own: &Arena) -> Result<(RequestHead, Parts), String> {
    let committed = frame.len().next_multiple_of(64);
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| frame.get(at + byte).copied().unwrap_or(0)));
    let (len, kind) = (word(0) as usize, word(4));
    if len < RequestHead::BYTES || len.next_multiple_of(64) > committed || kind != kind::REQUEST {
        return Err(format!("{len} bytes of kind {kind}, {committed} committed"));
    }
    // What lies behind the frame's own bytes is what the ring held: zeros.
    let mut whole = frame.to_vec();
    whole.resize(len, 0);
    let mut rest = &whole[RequestHead::BYTES..];
    let head = RequestHead::decode(whole.first_chunk().ok_or("no head")?);
    let mut part = |len: usize| {
        let taken = rest.split_off(..len);
        taken.ok_or("a part beyond the end".to_owned())
    };
    let name = part(head.name_len as usize)?;
    let params = part(head.params_len as usize)?;
    let names = part(head.names_len as usize)?;
    let handles = part(head.handles as usize * Handle::BYTES)?;
    let payload = part(head.payload_len as usize)?;
    let _trace = part(if head.flags & request_flag::TRACED != 0 { TraceContext::BYTES } else { 0 })?;
    if !rest.is_empty() {
        return Err(format!("{} bytes belong to no part", rest.len()));
    }
    if head.cell >= segment.geometry.cells_per_channel || name.len() > NAME_MAX || head.flags & !REQUEST_FLAGS != 0 {
        return Err("a cell, a name or a flag that is none".into());
    }
    let all: Vec<Handle> = handles.as_chunks().0.iter().map(Handle::decode).collect();
    let owner = molt_ipc_shm::arena::owner_of_session(0);
    let sound = |handle: &Handle| own.check(handle, owner).is_ok();
    let bytes = |handle: &Handle| {
        sound(handle).then(|| {
            let mut copy = vec![0; handle.len as usize];
            segment.map.read(handle.offset as usize, &mut copy);
            copy
        })
    };
    let flag = |flag: u16| head.flags & flag != 0;
    let (first, tables) = match all.split_first() {
        Some((first, rest)) if flag(request_flag::PARAMS_HANDLE) => (Some(first), rest),
        _ => (None, &all[..]),
    };
    let mut names = names.split(|byte| *byte == 0);
    let payload = if flag(request_flag::NAMED) {
        let tables = tables.iter().map(|handle| {
            let name = String::from_utf8_lossy(names.next().unwrap_or_default()).into_owned();
            sound(handle).then_some((name, handle.len))
        });
        tables.collect::<Option<_>>().map(Carried::Tables)
    } else if let (true, Some(handle)) = (flag(request_flag::HANDLES), tables.first()) {
        bytes(handle).map(Carried::Arena)
    } else {
        Some(Carried::Inline(payload.to_vec()))
    };
    let parts = Parts {
        entry: std::str::from_utf8(name).unwrap_or("\u{fffd}").to_owned(),
        begun: false,
        params: first.map_or_else(|| Some(params.to_vec()), bytes),
        payload,
    };
    Ok((head, parts))
}
