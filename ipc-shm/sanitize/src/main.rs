//! What two processes do to shared memory, done by two threads: the plain bytes are ordered by the words around them, or
//! the thread sanitizer says so. `scenarios` alone lists them, `scenarios NAME` runs one.
//!
//! No test harness: its threads talk over a channel of the standard library, which is built without the sanitizer.
//! Here threads are started and joined, which the sanitizer knows, and everything else is the product's.
//!
//! Both sides use one mapping. The sanitizer knows bytes by their address, so it would take two mappings of one segment for
//! different bytes, as it would those of two processes.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use molt_ipc_shm_sanitized::arena::{Arena, OWNER_WORKER, owner_of_session};
use molt_ipc_shm_sanitized::block::{Block, Blocks};
use molt_ipc_shm_sanitized::cell::{self, CellState};
use molt_ipc_shm_sanitized::frame::{Handle, kind};
use molt_ipc_shm_sanitized::layout::{Geometry, session};
use molt_ipc_shm_sanitized::lease;
use molt_ipc_shm_sanitized::mapping::{Mapping, SharedMapping};
use molt_ipc_shm_sanitized::ring::{Consumer, Producer, RingPlace};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Rounds. Few will do: the sanitizer asks whether anything orders two accesses, not whether they met. A side that waits
/// gives up its turn, which on a busy machine comes back after milliseconds.
const FRAMES: u64 = 20_000;
const CLAIMS: u64 = 10_000;
const BLOCKS: usize = 5_000;
const CALLS: u64 = 500;

const SCENARIOS: [(&str, fn()); 5] = [
    ("frames", frames_in_a_ring),
    ("extents", extents_of_four_owners),
    ("blocks", blocks_of_one_owner),
    ("bodies", bodies_that_are_handed_over_and_given_back),
    ("leases", bytes_that_are_used_again_once_let_go_of),
];

fn main() {
    let Some(wanted) = std::env::args().nth(1) else {
        return SCENARIOS.iter().for_each(|(name, _)| println!("{name}"));
    };
    let scenario = SCENARIOS.iter().find(|(name, _)| *name == wanted);
    scenario.unwrap_or_else(|| panic!("no scenario is called {wanted}")).1();
}

const GEOMETRY: Geometry = Geometry {
    sessions: 4,
    channels: 2,
    ring_bytes: 16 << 10,
    cells_per_channel: 8,
    leases_per_session: 64,
    entries: 2,
    extent_bytes: 4096,
    extents: 32,
};

fn segment() -> SharedMapping {
    let file = File::from(memfd_create(c"molt-sanitize", MFdFlags::MFD_CLOEXEC).expect("an anonymous object"));
    file.set_len(GEOMETRY.total_bytes() as u64).expect("its size");
    Arc::new(Mapping::new(&file).expect("a mapping"))
}

fn frame(kind: u32, rest: &[u8]) -> Vec<u8> {
    [&(8 + rest.len() as u32).to_le_bytes()[..], &kind.to_le_bytes(), rest].concat()
}

fn push(ring: &mut Producer, frame: &[u8]) {
    loop {
        match ring.reserve(frame.len(), 0).expect("an honest consumer") {
            Some(room) => return room.commit(&[frame]),
            None => std::thread::yield_now(),
        }
    }
}

fn pop(ring: &mut Consumer, kind: u32, frame: &mut Vec<u8>) {
    while !ring.pop(kind, frame).expect("an honest producer") {
        std::thread::yield_now();
    }
}

/// Fills the ring again and again: every byte of it is written by one thread and read by the other.
fn frames_in_a_ring() {
    let (map, place) = (segment(), RingPlace::of_requests(&GEOMETRY, 0));
    let (mut producer, mut consumer) = (Producer::new(map.clone(), place), Consumer::new(map, place));
    let length = |number: u64| (number.wrapping_mul(0x9e37_79b9) >> 7) as usize % 3000;
    let writer = std::thread::spawn(move || {
        for number in 0..FRAMES {
            push(&mut producer, &frame(kind::REQUEST, &vec![number as u8; length(number)]));
        }
    });
    let mut found = Vec::new();
    for number in 0..FRAMES {
        pop(&mut consumer, kind::REQUEST, &mut found);
        assert!(found.len() == 8 + length(number) && found[8..].iter().all(|byte| *byte == number as u8), "{number}");
    }
    writer.join().expect("the writer");
}

/// Four owners claim, write, read and free: an extent's bytes pass from one to the next.
fn extents_of_four_owners() {
    let map = segment();
    let owners = (0..4_u32).map(|slot| {
        let (map, arena) = (map.clone(), Arena::new(map.clone(), GEOMETRY, owner_of_session(slot)));
        std::thread::spawn(move || {
            for step in 0..CLAIMS {
                let Ok(run) = arena.claim((step * (7 + u64::from(slot)) % 9) * 4096) else { continue };
                let mut bytes = [0; 300];
                map.write(arena.offset(run), &[slot as u8; 300]);
                map.read(arena.offset(run), &mut bytes);
                assert_eq!(bytes, [slot as u8; 300]);
                arena.free(run);
            }
        })
    });
    owners.collect::<Vec<_>>().into_iter().for_each(|owner| owner.join().expect("an owner"));
}

/// Blocks made by one thread of a process and dropped by another.
fn blocks_of_one_owner() {
    let blocks = Blocks::new(Arena::new(segment(), GEOMETRY, owner_of_session(0)), u64::MAX);
    let shelf: Arc<Mutex<Vec<(Block, u8)>>> = Arc::default();
    let threads = (0..4_u8).map(|number| {
        let (blocks, shelf) = (blocks.clone(), shelf.clone());
        std::thread::spawn(move || {
            for step in 0..BLOCKS {
                if let Ok(block) = blocks.allocate(step % 3000) {
                    block.write(0, &vec![number; block.len()]);
                    shelf.lock().expect("the shelf").push((block, number));
                }
                let mut held = shelf.lock().expect("the shelf");
                let oldest = (held.len() > 8).then(|| held.remove(0));
                drop(held);
                if let Some((block, whose)) = oldest {
                    let mut copy = Vec::new();
                    block.mapping().read_to_vec(block.offset(), block.len(), &mut copy);
                    assert!(copy.iter().all(|byte| *byte == whose));
                }
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().expect("a thread"));
    shelf.lock().expect("the shelf").clear();
    assert_eq!(blocks.arena().usage(None).bytes, 0);
}

/// A request's whole way: body into the arena, its handle through one ring, the cell's steps, the answer in a block of the
/// worker's through the other ring, the lease let go of, and both blocks' bytes used again.
fn bodies_that_are_handed_over_and_given_back() {
    let map = segment();
    let requests = RingPlace::of_requests(&GEOMETRY, 0);
    let responses = RingPlace::of_responses(&GEOMETRY, 0);
    let (mut asking, mut asked) = (Producer::new(map.clone(), requests), Consumer::new(map.clone(), requests));
    let (mut answering, mut answered) = (Producer::new(map.clone(), responses), Consumer::new(map.clone(), responses));
    let shared = map.clone();
    let worker = std::thread::spawn(move || {
        let map = shared;
        let arena = Arena::new(map.clone(), GEOMETRY, OWNER_WORKER);
        let blocks = Blocks::new(arena.clone(), u64::MAX);
        let (mut found, mut lent) = (Vec::new(), None);
        for number in 1..=CALLS {
            pop(&mut asked, kind::REQUEST, &mut found);
            let handle = Handle::decode(found[8..].try_into().expect("a handle"));
            assert_eq!(arena.check(&handle, owner_of_session(0)), Ok(()));
            let cell = map.u64(GEOMETRY.cell(0, 1));
            assert!(cell::advance(cell, number, CellState::Queued, CellState::Running));
            let mut body = Vec::new();
            map.read_to_vec(handle.offset as usize, handle.len as usize, &mut body);
            assert!(body.iter().all(|byte| *byte == number as u8));
            // The last answer was let go of before this request was sent.
            lease::take_released(&map, &GEOMETRY, 0, |_| lent = None);
            assert!(lent.is_none(), "request {number} came before the last lease was let go of");
            let answer = blocks.allocate(body.len()).expect("room");
            answer.write(0, &body);
            assert!(cell::advance(cell, number, CellState::Running, CellState::Done));
            push(&mut answering, &frame(kind::RESPONSE, &answer.handle().encode()));
            lent = Some(answer);
        }
    });
    let blocks = Blocks::new(Arena::new(map.clone(), GEOMETRY, owner_of_session(0)), u64::MAX);
    let mut found = Vec::new();
    for number in 1..=CALLS {
        let body = blocks.allocate(1 + number as usize % 5000).expect("room");
        body.write(0, &vec![number as u8; body.len()]);
        let cell = map.u64(GEOMETRY.cell(0, 1));
        cell::queue(cell, number);
        push(&mut asking, &frame(kind::REQUEST, &body.handle().encode()));
        pop(&mut answered, kind::RESPONSE, &mut found);
        assert_eq!(cell::state(cell, number), Some(CellState::Done));
        cell::release(cell);
        let handle = Handle::decode(found[8..].try_into().expect("a handle"));
        let mut answer = Vec::new();
        map.read_to_vec(handle.offset as usize, handle.len as usize, &mut answer);
        assert!(answer.len() == body.len() && answer.iter().all(|byte| *byte == number as u8));
        lease::release(&map, &GEOMETRY, 0, (number % 64) as u32);
    }
    worker.join().expect("the worker");
    let word = map.u64(GEOMETRY.session(0) + session::RELEASED).load(Ordering::Relaxed);
    assert_eq!(word.count_ones(), 1, "the last lease alone");
}

/// A result that is written over as soon as its lease was let go of: only the lease's bit orders the reads of its bytes
/// before the writes of the next.
fn bytes_that_are_used_again_once_let_go_of() {
    let (map, place) = (segment(), RingPlace::of_responses(&GEOMETRY, 0));
    let (mut answering, mut answered) = (Producer::new(map.clone(), place), Consumer::new(map.clone(), place));
    let shared = map.clone();
    let worker = std::thread::spawn(move || {
        let arena = Arena::new(shared.clone(), GEOMETRY, OWNER_WORKER);
        let at = arena.offset(arena.claim(4096).expect("an extent of an empty arena"));
        for number in 1..=CALLS {
            shared.write(at, &[number as u8; 4096]);
            push(&mut answering, &frame(kind::RESPONSE, &(at as u64).to_le_bytes()));
            let mut released = None;
            while released.is_none() {
                std::thread::yield_now();
                lease::take_released(&shared, &GEOMETRY, 0, |lease| released = Some(lease));
            }
            assert_eq!(released, Some(5));
        }
    });
    let mut found = Vec::new();
    for number in 1..=CALLS {
        pop(&mut answered, kind::RESPONSE, &mut found);
        let at = u64::from_le_bytes(found[8..].try_into().expect("a place")) as usize;
        let mut bytes = [0; 4096];
        map.read(at, &mut bytes);
        assert_eq!(bytes, [number as u8; 4096]);
        lease::release(&map, &GEOMETRY, 0, 5);
    }
    worker.join().expect("the worker");
}
