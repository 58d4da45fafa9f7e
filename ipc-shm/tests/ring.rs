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
    let map = common::bytes(PLACE.data + CAPACITY);
    map.u64(PLACE.head).store(start, Ordering::Relaxed);
    map.u64(PLACE.tail).store(start, Ordering::Relaxed);
    let (producer, consumer) =
        (Producer::starting_at(map.clone(), PLACE, start), Consumer::starting_at(map.clone(), PLACE, start));
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

proptest! {
    #![proptest_config(common::cases(200))]

    /// Faults 16, 26: wrap, padding, full and empty, also where positions pass 2^32 or are near 2^63.
    #[test]
    fn frames_come_out_as_they_went_in(
        start in prop_oneof![Just(0), Just((1 << 32) - 2048), Just((u64::MAX / 2) & !63), Just((1_u64 << 63) - 4096)],
        moves in proptest::collection::vec((any::<bool>(), 8_usize..=CAPACITY / 2), 1..300),
    ) {
        let (map, mut producer, mut consumer) = ring_at(start);
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        for (number, (write, len)) in moves.into_iter().enumerate() {
            if write {
                let frame = frame(number as u64, len);
                let (head, tail) = (map.u64(PLACE.head).load(Ordering::Relaxed), map.u64(PLACE.tail).load(Ordering::Relaxed));
                let to_end = CAPACITY as u64 - tail % CAPACITY as u64;
                let padded = len.next_multiple_of(64) as u64;
                let cost = padded + if padded > to_end { to_end } else { 0 };
                let fits = cost <= CAPACITY as u64 - (tail - head);
                prop_assert_eq!(push(&mut producer, &frame), fits, "{} bytes, {} used", len, tail - head);
                if fits {
                    model.push_back(frame);
                }
            } else {
                prop_assert_eq!(pop(&mut consumer), Ok(model.pop_front()));
            }
        }
        for expected in model {
            prop_assert_eq!(pop(&mut consumer), Ok(Some(expected)));
        }
        prop_assert_eq!(pop(&mut consumer), Ok(None));
        prop_assert_eq!(producer.is_drained(), Ok(true));
    }

    /// Faults 25, 27: whatever stands in the shared words and bytes, the consumer answers or reports a fault, and ends.
    #[test]
    fn a_hostile_producer_is_a_fault_and_never_a_panic(
        tail in prop_oneof![any::<u64>(), 0..3 * CAPACITY as u64, (0_u64..65).prop_map(|n| n * 64)],
        words in proptest::collection::vec((0_usize..64, prop_oneof![any::<u32>(), 0_u32..5000], 0_u32..4), 0..40),
    ) {
        let (map, _producer, mut consumer) = ring_at(0);
        for (place, len, kind) in words {
            map.write(PLACE.data + place * 64, &len.to_le_bytes());
            map.write(PLACE.data + place * 64 + 4, &kind.to_le_bytes());
        }
        map.u64(PLACE.tail).store(tail, Ordering::Release);
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
        heads in proptest::collection::vec(prop_oneof![any::<u64>(), 0..20_000_u64], 1..20),
    ) {
        let (map, mut producer, _consumer) = ring_at(0);
        prop_assert!(push(&mut producer, &frame(1, 2048)));
        // The furthest that the consumer can have come, as far as one may believe it.
        let (mut tail, mut head_seen) = (2048, 0);
        for head in heads {
            if (head_seen..=tail).contains(&head) {
                head_seen = head;
            }
            map.u64(PLACE.head).store(head, Ordering::Release);
            match producer.reserve(2048, 0) {
                Ok(Some(room)) => {
                    prop_assert!(tail + 2048 - head_seen <= CAPACITY as u64, "room in use: {} .. {}", head_seen, tail);
                    let bytes = frame(2, 2048);
                    room.commit(&[&bytes]);
                    tail += 2048;
                }
                Ok(None) => {}
                Err(fault) => prop_assert!(matches!(fault, RingFault::Position { .. }), "{}", fault),
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
