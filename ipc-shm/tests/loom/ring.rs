//! Rings: whole frames, in order, each once; nothing is overwritten that is not consumed.

use loom::thread;
use molt_ipc_shm::frame::kind;
use molt_ipc_shm::mapping::SharedMapping;
use molt_ipc_shm::ring::{Consumer, Producer, RingPlace};

use super::model::{Places, explore, frame, publish, take};

/// One side tries so often to publish, the other so often to take; what is left is taken when both are done. Returns how
/// many were published.
fn run(map: SharedMapping, place: RingPlace, from: u64, len: usize, tries: u64) -> u64 {
    let mut producer = Producer::starting_at(map.clone(), place, from);
    let mut consumer = Consumer::starting_at(map, place, from);
    let producing = thread::spawn(move || {
        let mut published = 0;
        for _ in 0..tries {
            if let Some(room) = producer.reserve(len, 0).expect("a correct peer") {
                room.commit(&[&frame(kind::REQUEST, published, len)]);
                published += 1;
            }
        }
        published
    });
    let mut taken = 0;
    for _ in 0..tries {
        if let Some(number) = take(&mut consumer) {
            assert_eq!(number, taken, "frames come in order, each once");
            taken += 1;
        }
    }
    let published = producing.join().expect("the producer");
    while let Some(number) = take(&mut consumer) {
        assert_eq!(number, taken, "frames come in order, each once");
        taken += 1;
    }
    assert_eq!(taken, published, "what was committed is there");
    published
}

#[test]
fn two_frames_of_room_carry_whole_frames_in_order() {
    explore(None, || {
        let place = RingPlace { data: 1024, capacity: 128, head: 0, tail: 128 };
        let published = run(Places::default().ring(place).map(), place, 0, 16, 4);
        assert!((2..=4).contains(&published));
    });
}

#[test]
fn a_frame_that_would_cross_the_end_begins_at_the_start() {
    explore(None, || {
        // Frames of 128 from place 64 on: the second needs a pad before the end, and with it the room of the first.
        let place = RingPlace { data: 1024, capacity: 256, head: 0, tail: 128 };
        let map = Places::default().ring(place).map();
        [place.head, place.tail].iter().for_each(|word| map.u64(*word).store(64, std::sync::atomic::Ordering::Relaxed));
        let published = run(map, place, 64, 72, 4);
        assert!((1..=4).contains(&published));
    });
}

#[test]
fn a_producer_that_is_killed_anywhere_leaves_whole_frames_or_none() {
    super::model::explore_deaths(None, |kill| {
        let place = RingPlace { data: 1024, capacity: 128, head: 0, tail: 128 };
        let map = Places::default().ring(place).map();
        let mut producer = Producer::new(map.clone(), place);
        let mut consumer = Consumer::new(map, place);
        let producing = thread::spawn(move || {
            molt_ipc_shm::failpoint::killed_at(kill, || (0..2).for_each(|n| assert!(publish(&mut producer, n))))
                .is_none()
        });
        let mut taken = 0;
        for _ in 0..2 {
            taken += u64::from(take(&mut consumer).inspect(|number| assert_eq!(*number, taken)).is_some());
        }
        let killed = producing.join().expect("the producer");
        while let Some(number) = take(&mut consumer) {
            assert_eq!(number, taken);
            taken += 1;
        }
        assert!(killed || taken == 2);
        killed
    });
}
