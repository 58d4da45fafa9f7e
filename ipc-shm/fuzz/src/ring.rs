//! Ring contents and positions written by a hostile peer, seen from both sides. What comes out of a ring are bytes that
//! stand in it, as long as they say, within what was committed; room is never given that the peer has not given back.

use std::sync::atomic::Ordering;

use molt_ipc_shm::frame::kind;
use molt_ipc_shm::mapping::SharedMapping;
use molt_ipc_shm::ring::{Consumer, Producer, RingFault, RingPlace};

use super::guard::Guard;
use super::input::Input;
use super::segment;

const DATA: usize = 8192;

/// `| capacity and side | start | steps |`
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let capacity = 256_usize << (mode & 7).min(4);
    let place = RingPlace { data: DATA, capacity, head: 128, tail: 256 };
    let start = match input.u8() {
        0..=99 => 0,
        100..=149 => (1 << 32) - 512,
        150..=199 => 0_u64.wrapping_sub(512),
        _ => input.u64() & !63,
    };
    let map = segment::bytes(DATA + 2 * capacity);
    map.u64(place.head).store(start, Ordering::Relaxed);
    map.u64(place.tail).store(start, Ordering::Relaxed);
    // The peer's words and the bytes, and nothing else: not even the bytes just behind the ring.
    let word = |at: usize| at..at + 8;
    let _guard = Guard::all_but(&map, &[word(place.head), word(place.tail), DATA..DATA + capacity]);
    if mode & 8 == 0 { consumer(&mut input, &map, place, start) } else { producer(&mut input, &map, place, start) }
}

fn consumer(input: &mut Input<'_>, map: &SharedMapping, place: RingPlace, start: u64) {
    let mut consumer = Consumer::starting_at(map.clone(), place, start);
    let capacity = place.capacity as u64;
    let (head, tail) = (map.u64(place.head), map.u64(place.tail));
    let mut frame = Vec::new();
    while !input.is_empty() {
        match input.u8() % 8 {
            // The tail, near to where it may be.
            0 | 1 => {
                let sensible = head.load(Ordering::Relaxed).wrapping_add(input.u8() as u64 * 64);
                tail.store(input.near(sensible), Ordering::Release);
            }
            // A frame's first word.
            2..=4 => {
                let at = place.data + input.u8() as usize * 64 % place.capacity;
                let len = input.near(64) as u32;
                map.write(at, &len.to_le_bytes());
                map.write(at + 4, &(input.near(kind::REQUEST as u64) as u32).to_le_bytes());
            }
            // The head, which is not the peer's to write.
            5 => head.store(input.u64(), Ordering::Release),
            6 => {
                let at = input.u16() as usize % place.capacity;
                let bytes = input.bytes(16);
                map.write(place.data + at, &bytes[..bytes.len().min(place.capacity - at)]);
            }
            _ => {
                let (own_head, committed) = (head.load(Ordering::Relaxed), tail.load(Ordering::Relaxed));
                match consumer.pop(kind::REQUEST, &mut frame) {
                    Ok(true) => {
                        assert!((8..=place.capacity).contains(&frame.len()));
                        assert_eq!(frame[..4], (frame.len() as u32).to_le_bytes());
                        assert_eq!(frame[4..8], kind::REQUEST.to_le_bytes());
                        // Its bytes are those before the new head.
                        let room = frame.len().next_multiple_of(64) as u64;
                        let at = head.load(Ordering::Relaxed).wrapping_sub(room) & (capacity - 1);
                        assert!(at + room <= capacity, "a frame across the end");
                        let mut there = vec![0; frame.len()];
                        map.read(place.data + at as usize, &mut there);
                        assert_eq!(frame, there);
                    }
                    Ok(false) => {}
                    Err(RingFault::Position { theirs, .. }) => assert_eq!(theirs, committed),
                    Err(RingFault::Length { .. } | RingFault::Kind(_)) => {
                        let _ = own_head;
                    }
                }
            }
        }
    }
}

fn producer(input: &mut Input<'_>, map: &SharedMapping, place: RingPlace, start: u64) {
    let mut producer = Producer::starting_at(map.clone(), place, start);
    let capacity = place.capacity as u64;
    let (head, tail) = (map.u64(place.head), map.u64(place.tail));
    // How far the consumer can have come, and what was committed, counted from the start.
    let (mut believed, mut written) = (0_u64, 0_u64);
    while !input.is_empty() {
        match input.u8() % 4 {
            0 => {
                let sensible = start.wrapping_add(believed).wrapping_add(input.u8() as u64 * 64);
                head.store(input.near(sensible), Ordering::Release);
            }
            1 => tail.store(input.u64(), Ordering::Release),
            _ => {
                let (len, keep) = (8 + input.u16() as usize % (2 * place.capacity), input.u8() as usize * 8);
                let commit = input.u8() & 1 == 0;
                let told = head.load(Ordering::Relaxed).wrapping_sub(start);
                let sound = told >= believed && told <= written;
                match producer.reserve(len, keep) {
                    Ok(Some(room)) => {
                        let frame = len.next_multiple_of(64) as u64;
                        let to_end = capacity - (start.wrapping_add(written) & (capacity - 1));
                        let cost = frame + if frame > to_end { to_end } else { 0 };
                        // It asked the shared word only if what it knew left too little room.
                        if written + cost + keep as u64 > believed + capacity {
                            assert!(sound, "a head of {told} was believed, between {believed} and {written}");
                            believed = told;
                        }
                        assert!(written + cost + keep as u64 <= believed + capacity, "room that is in use");
                        if commit {
                            let bytes = vec![0xa5; len];
                            room.commit(&[&bytes[..8], &bytes[8..]]);
                            written += cost;
                            assert_eq!(tail.load(Ordering::Relaxed), start.wrapping_add(written));
                        }
                    }
                    Ok(None) => {
                        assert!(sound, "a head of {told} was believed, between {believed} and {written}");
                        believed = told;
                    }
                    Err(fault) => {
                        assert!(!sound, "{fault}: a head of {told} lies between {believed} and {written}");
                        assert!(matches!(fault, RingFault::Position { .. }));
                    }
                }
            }
        }
    }
}
