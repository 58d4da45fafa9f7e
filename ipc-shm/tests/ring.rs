//! Rings against a model, against hostile peers, and between two threads.

mod common;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use molt_ipc_shm::frame::kind;
use molt_ipc_shm::mapping::SharedMapping;
use molt_ipc_shm::ring::{Consumer, Producer, RingFault, RingPlace};
use proptest::prelude::*;

const CAPACITY: usize = 4096;
const PLACE: RingPlace = RingPlace { data: 4096, capacity: CAPACITY, head: 128, tail: 256 };

/// A ring whose positions begin at `start`.
fn ring_at(start: u64) -> (SharedMapping, Producer, Consumer) {
    ring(PLACE, start)
}

fn ring(place: RingPlace, start: u64) -> (SharedMapping, Producer, Consumer) {
    let map = common::bytes(place.data + place.capacity);
    map.u64(place.head).store(start, Ordering::Relaxed);
    map.u64(place.tail).store(start, Ordering::Relaxed);
    let (producer, consumer) =
        (Producer::starting_at(map.clone(), place, start), Consumer::starting_at(map.clone(), place, start));
    (map, producer, consumer)
}

fn frame(seed: u64, len: usize) -> Vec<u8> {
    let mut frame = common::pattern(seed, len);
    frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
    frame[4..8].copy_from_slice(&kind::REQUEST.to_le_bytes());
    frame
}

/// Commits a frame in three parts; `false`: no room.
fn push(producer: &mut Producer, frame: &[u8]) -> bool {
    let (first, rest) = frame.split_at(8);
    let (second, third) = rest.split_at(rest.len() / 2);
    match producer.reserve(frame.len(), 0).expect("an honest consumer") {
        Some(room) => {
            room.commit(&[first, second, third]);
            true
        }
        None => false,
    }
}

fn pop(consumer: &mut Consumer) -> Result<Option<Vec<u8>>, RingFault> {
    let mut frame = vec![1, 2, 3];
    Ok(consumer.pop(kind::REQUEST, &mut frame)?.then_some(frame))
}

#[derive(Debug, Clone)]
enum Move {
    /// A frame of so many 200ths of the ring, while so many 255ths of it stay free.
    Write { share: u8, keep: u8, commit: bool },
    /// As many frames as there are, at most.
    Read { most: u8 },
}

fn any_move() -> impl Strategy<Value = Move> {
    let keep = prop_oneof![3 => Just(0), 1 => any::<u8>()];
    prop_oneof![
        3 => (any::<u8>(), keep, any::<u8>()).prop_map(|(share, keep, commit)| Move::Write { share, keep, commit: commit > 40 }),
        // A small frame: many fit.
        2 => (0_u8..8).prop_map(|share| Move::Write { share, keep: 0, commit: true }),
        2 => (1_u8..9).prop_map(|most| Move::Read { most }),
    ]
}

proptest! {
    #![proptest_config(common::cases(300))]

    /// Faults 16, 26: wrap, padding, full and empty, in rings of several sizes, also where positions pass 2^32, 2^63 and
    /// 2^64. What fits is known beforehand, to the byte.
    #[test]
    fn frames_come_out_as_they_went_in(
        capacity in prop_oneof![Just(128_usize), Just(512), Just(CAPACITY), Just(32 << 10)],
        start in (prop_oneof![Just(0_u64), Just(1 << 32), Just(1 << 63)], 0_u64..64).prop_map(|(at, back)| at.wrapping_sub(back * 64)),
        moves in proptest::collection::vec(any_move(), 1..300),
    ) {
        let place = RingPlace { capacity, ..PLACE };
        let (map, mut producer, mut consumer) = ring(place, start);
        // Frames that wait, each with the bytes that it takes in the ring; and where the next one begins.
        let mut model: VecDeque<(Vec<u8>, usize)> = VecDeque::new();
        let (mut at, mut used) = (start as usize % capacity, 0);
        for (number, step) in moves.into_iter().enumerate() {
            match step {
                Move::Write { share, keep, commit } => {
                    let (len, keep) = (8 + share as usize * capacity / 200, keep as usize * capacity / 255);
                    let (padded, to_end) = (len.next_multiple_of(64), capacity - at);
                    let cost = padded + if padded > to_end { to_end } else { 0 };
                    let fits = used + cost + keep <= capacity;
                    prop_assert_eq!(producer.fits(len, keep), Ok(fits), "{} bytes, {} used, {} kept", len, used, keep);
                    let frame = frame(number as u64, len);
                    match producer.reserve(len, keep).expect("an honest consumer") {
                        None => prop_assert!(!fits),
                        Some(room) if commit => {
                            prop_assert!(fits);
                            let (first, rest) = frame.split_at(len / 2);
                            room.commit(&[first, &[], rest]);
                            (at, used) = ((at + cost) % capacity, used + cost);
                            model.push_back((frame, cost));
                        }
                        // Reserved and given up: as if it had never been.
                        Some(room) => drop(room),
                    }
                }
                Move::Read { most } => {
                    for _ in 0..most {
                        prop_assert_eq!(consumer.has_frame(), Ok(!model.is_empty()));
                        let expected = model.pop_front();
                        used -= expected.as_ref().map_or(0, |(_, cost)| *cost);
                        prop_assert_eq!(pop(&mut consumer), Ok(expected.map(|(frame, _)| frame)));
                    }
                }
            }
            prop_assert_eq!(producer.is_drained(), Ok(model.is_empty()));
            let (head, tail) = (map.u64(place.head).load(Ordering::Relaxed), map.u64(place.tail).load(Ordering::Relaxed));
            prop_assert_eq!(tail.wrapping_sub(head), used as u64);
        }
        for (expected, _) in model {
            prop_assert_eq!(pop(&mut consumer), Ok(Some(expected)));
        }
        prop_assert_eq!(pop(&mut consumer), Ok(None));
        prop_assert_eq!(producer.is_drained(), Ok(true));
    }

    /// Faults 25, 27: whatever stands in the shared words and bytes, the consumer answers or reports a fault, and ends.
    #[test]
    fn a_hostile_producer_is_a_fault_and_never_a_panic(
        start in prop_oneof![Just(0_u64), Just((1 << 32) - 128), Just(0_u64.wrapping_sub(128))],
        tail in prop_oneof![any::<u64>(), 0..3 * CAPACITY as u64, (0_u64..65).prop_map(|n| n * 64)],
        words in proptest::collection::vec((0_usize..64, prop_oneof![any::<u32>(), 0_u32..5000], 0_u32..4), 0..40),
    ) {
        let (map, _producer, mut consumer) = ring_at(start);
        for (place, len, kind) in words {
            map.write(PLACE.data + place * 64, &len.to_le_bytes());
            map.write(PLACE.data + place * 64 + 4, &kind.to_le_bytes());
        }
        map.u64(PLACE.tail).store(start.wrapping_add(tail), Ordering::Release);
        let mut frames = 0;
        while let Ok(Some(frame)) = pop(&mut consumer) {
            prop_assert!(frame.len() >= 8 && frame.len() <= CAPACITY);
            frames += 1;
            prop_assert!(frames <= 64, "more frames than the ring has room for");
        }
    }

    /// Fault 25, the other direction.
    #[test]
    fn a_hostile_consumer_is_a_fault_and_never_room_that_is_in_use(
        start in prop_oneof![Just(0_u64), Just((1 << 32) - 4096), Just(0_u64.wrapping_sub(4096))],
        heads in proptest::collection::vec(prop_oneof![any::<u64>(), 0..20_000_u64], 1..20),
    ) {
        let (map, mut producer, _consumer) = ring_at(start);
        prop_assert!(push(&mut producer, &frame(1, 2048)));
        // The furthest that the consumer can have come, as far as one may believe it; both counted from the start.
        let (mut tail, mut head_seen) = (2048, 0);
        for head in heads {
            map.u64(PLACE.head).store(start.wrapping_add(head), Ordering::Release);
            let sound = (head_seen..=tail).contains(&head);
            match producer.reserve(2048, 0) {
                Ok(room) => {
                    // Asked only while what it knew left too little room.
                    if tail + 2048 - head_seen > CAPACITY as u64 {
                        prop_assert!(sound, "a head of {} was believed, between {} and {}", head, head_seen, tail);
                        head_seen = head;
                    }
                    prop_assert_eq!(room.is_some(), tail + 2048 - head_seen <= CAPACITY as u64);
                    if let Some(room) = room {
                        let bytes = frame(2, 2048);
                        room.commit(&[&bytes]);
                        tail += 2048;
                    }
                }
                Err(fault) => prop_assert!(!sound && matches!(fault, RingFault::Position { .. }), "{}", fault),
            }
        }
    }
}

#[test]
fn a_position_that_goes_backwards_is_a_fault() {
    let (map, mut producer, mut consumer) = ring_at(1 << 20);
    assert!(push(&mut producer, &frame(1, 100)) && push(&mut producer, &frame(2, 100)));
    assert!(pop(&mut consumer).expect("honest so far").is_some());
    assert!(pop(&mut consumer).expect("honest so far").is_some());
    map.u64(PLACE.tail).store((1 << 20) + 64, Ordering::Release);
    assert!(matches!(pop(&mut consumer), Err(RingFault::Position { .. })));
    map.u64(PLACE.head).store((1 << 20) - 64, Ordering::Release);
    assert!(matches!(producer.is_drained(), Err(RingFault::Position { .. })));
}

#[test]
fn each_kind_of_lie_about_a_frame_has_its_fault() {
    let lie = |len: u32, kind: u32, tail: u64| {
        let (map, _producer, mut consumer) = ring_at(0);
        map.write(PLACE.data, &len.to_le_bytes());
        map.write(PLACE.data + 4, &kind.to_le_bytes());
        map.u64(PLACE.tail).store(tail, Ordering::Release);
        pop(&mut consumer)
    };
    assert!(matches!(lie(65, kind::REQUEST, 64), Err(RingFault::Length { len: 65, .. })), "longer than committed");
    assert!(matches!(lie(0, kind::REQUEST, 64), Err(RingFault::Length { len: 0, .. })), "shorter than its head");
    assert!(matches!(lie(7, kind::PAD, 64), Err(RingFault::Length { len: 7, .. })), "padding shorter than its head");
    assert!(matches!(lie(u32::MAX, kind::PAD, 64), Err(RingFault::Length { .. })), "padding beyond the ring");
    assert!(matches!(lie(u32::MAX, kind::REQUEST, CAPACITY as u64), Err(RingFault::Length { .. })));
    assert_eq!(lie(64, kind::RESPONSE, 64), Err(RingFault::Kind(kind::RESPONSE)));
    assert_eq!(lie(64, 99, 64), Err(RingFault::Kind(99)));
    assert!(matches!(lie(64, kind::REQUEST, 65), Err(RingFault::Position { .. })), "a tail between two frames");
    assert!(matches!(lie(64, kind::REQUEST, CAPACITY as u64 + 64), Err(RingFault::Position { .. })));
}

/// Fault 28: a frame never crosses the ring's end, whatever its length says.
#[test]
fn a_frame_that_would_cross_the_end_is_a_fault() {
    let (map, mut producer, mut consumer) = ring_at(0);
    assert!(push(&mut producer, &frame(1, CAPACITY / 2)) && push(&mut producer, &frame(2, CAPACITY / 2 - 64)));
    assert!(pop(&mut consumer).expect("honest").is_some() && pop(&mut consumer).expect("honest").is_some());
    let last = PLACE.data + CAPACITY - 64;
    map.write(last, &128_u32.to_le_bytes());
    map.write(last + 4, &kind::REQUEST.to_le_bytes());
    map.u64(PLACE.tail).store(CAPACITY as u64 + 64, Ordering::Release);
    assert!(matches!(pop(&mut consumer), Err(RingFault::Length { committed: 64, .. })));
}

/// Padding is told of once, where the ring ends: records of it without end must not keep the reader inside one look.
#[test]
fn padding_that_does_not_reach_the_end_of_the_ring_is_a_fault() {
    let (map, _producer, mut consumer) = ring_at(0);
    for place in 0..8 {
        map.write(PLACE.data + place * 64, &64_u32.to_le_bytes());
        map.write(PLACE.data + place * 64 + 4, &kind::PAD.to_le_bytes());
    }
    map.u64(PLACE.tail).store(8 * 64, Ordering::Release);
    assert!(pop(&mut consumer).is_err());
}

/// Fault 2: what was reserved and not committed is never seen.
#[test]
fn an_uncommitted_frame_leaves_no_trace() {
    let (_map, mut producer, mut consumer) = ring_at(0);
    for _ in 0..200 {
        drop(producer.reserve(1000, 0).expect("honest").expect("an empty ring"));
        assert_eq!(pop(&mut consumer), Ok(None));
    }
    assert!(push(&mut producer, &frame(7, 1000)));
    assert_eq!(pop(&mut consumer), Ok(Some(frame(7, 1000))));
}

#[test]
fn what_must_stay_free_behind_a_frame_stays_free() {
    let (_map, mut producer, _consumer) = ring_at(0);
    assert!(producer.reserve(1024, CAPACITY - 1024).expect("honest").is_some());
    assert!(producer.reserve(1024, CAPACITY - 1023).expect("honest").is_none());
    assert!(producer.reserve(usize::from(u16::MAX), 0).expect("honest").is_none());
}

/// Two threads, a million frames: each arrives once, in order, whole.
#[test]
fn a_million_frames_pass_between_two_threads_unharmed() {
    const FRAMES: u64 = 1_000_000;
    let (_map, mut producer, mut consumer) = ring_at((1 << 32) - 4096);
    let length = |number: u64| 16 + (number.wrapping_mul(0x9e37_79b9) >> 7) as usize % 200;
    let sum = |number: u64| number.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0xabcd;
    let writer = std::thread::spawn(move || {
        let mut bytes = [0; 256];
        for number in 0..FRAMES {
            let len = length(number);
            bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
            bytes[4..8].copy_from_slice(&kind::REQUEST.to_le_bytes());
            bytes[8..len].fill(number as u8);
            bytes[len - 8..len].copy_from_slice(&sum(number).to_le_bytes());
            loop {
                if let Some(room) = producer.reserve(len, 0).expect("an honest consumer") {
                    room.commit(&[&bytes[..len]]);
                    break;
                }
                std::thread::yield_now();
            }
        }
    });
    let mut frame = Vec::new();
    for number in 0..FRAMES {
        while !consumer.pop(kind::REQUEST, &mut frame).expect("an honest producer") {
            std::thread::yield_now();
        }
        let (body, check) = frame.split_at(frame.len() - 8);
        assert_eq!(frame.len(), length(number), "frame {number}");
        assert_eq!(check, sum(number).to_le_bytes(), "frame {number}");
        assert!(body.get(8..).unwrap_or_default().iter().all(|byte| *byte == number as u8), "frame {number}");
    }
    writer.join().expect("the writer");
    assert!(!consumer.pop(kind::REQUEST, &mut frame).expect("an honest producer"));
}
