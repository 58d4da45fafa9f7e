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
    let mut reader = Reader { start, head: 0, tail: 0 };
    let (head, tail) = (map.u64(place.head), map.u64(place.tail));
    let mut frame = Vec::new();
    while !input.is_empty() {
        match input.u8() % 8 {
            // The tail, near to where it may be.
            0 | 1 => {
                let sensible = start.wrapping_add(reader.head as u64).wrapping_add(input.u8() as u64 * 64);
                tail.store(input.near(sensible), Ordering::Release);
            }
            // A frame's first word.
            which @ 2..=4 => {
                let anywhere = if which == 2 { 0 } else { input.u8() as u64 * 64 };
                let at = start.wrapping_add(reader.head as u64).wrapping_add(anywhere) as usize & (place.capacity - 1);
                let at = place.data + at;
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
                let expected = reader.pop(map, place);
                match consumer.pop(kind::REQUEST, &mut frame) {
                    Ok(true) => assert_eq!(Popped::Frame(frame.clone()), expected),
                    Ok(false) => assert_eq!(Popped::Nothing, expected),
                    Err(RingFault::Position { theirs, .. }) => assert_eq!(Popped::Position(theirs), expected),
                    Err(RingFault::Length { len, .. }) => assert_eq!(Popped::Length(len as u32), expected),
                    Err(RingFault::Kind(kind)) => assert_eq!(Popped::Kind(kind), expected),
                }
            }
        }
    }
}

/// The rules of spec/ring-and-doorbell.md, in steps that cannot overflow: positions are counted from the start.
struct Reader {
    start: u64,
    head: u128,
    tail: u128,
}

#[derive(Debug, PartialEq, Eq)]
enum Popped {
    Frame(Vec<u8>),
    Nothing,
    Position(u64),
    Length(u32),
    Kind(u32),
}

impl Reader {
    fn pop(&mut self, map: &SharedMapping, place: RingPlace) -> Popped {
        let capacity = place.capacity as u128;
        let mut after_padding = false;
        loop {
            if self.head == self.tail {
                let word = map.u64(place.tail).load(Ordering::Relaxed);
                let told = word.wrapping_sub(self.start) as u128;
                if told < self.head || told > self.head + capacity || !told.is_multiple_of(64) {
                    return Popped::Position(word);
                }
                self.tail = told;
            }
            if self.head == self.tail {
                return Popped::Nothing;
            }
            let at = ((self.head + self.start as u128) % capacity) as usize;
            let mut first = [0; 8];
            map.read(place.data + at, &mut first);
            let (len, kind) = first.split_at(4);
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |number, byte| number << 8 | *byte as u32);
            let (len, found) = (number(len), number(kind));
            let room = (len as u128).next_multiple_of(64);
            let to_end = place.capacity - at;
            if len < 8 || self.head + room > self.tail || room > to_end as u128 {
                return Popped::Length(len);
            }
            let is_pad = found == kind::PAD && !after_padding && room == to_end as u128;
            if found != kind::REQUEST && !is_pad {
                return Popped::Kind(found);
            }
            self.head += room;
            if !is_pad {
                let mut frame = vec![0; len as usize];
                map.read(place.data + at, &mut frame);
                return Popped::Frame(frame);
            }
            after_padding = true;
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
