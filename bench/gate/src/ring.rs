//! One frame into a ring and out of it.

use molt_ipc_shm::frame::kind;
use molt_ipc_shm::mapping::{Mapping, SharedMapping};
use molt_ipc_shm::ring::{Consumer, Producer, RingPlace};

use crate::Arguments;

const PLACE: RingPlace = RingPlace { data: 4096, capacity: 4096, head: 128, tail: 256 };

/// Pushes and pops.
pub fn walk(arguments: &Arguments) {
    let file = tempfile::tempfile().expect("a file");
    file.set_len((PLACE.data + PLACE.capacity) as u64).expect("its size");
    let map = SharedMapping::new(Mapping::new(&file).expect("a mapping"));
    let (mut producer, mut consumer) = (Producer::new(map.clone(), PLACE), Consumer::new(map, PLACE));
    let mut frame = [7_u8; 64];
    frame[..4].copy_from_slice(&64_u32.to_le_bytes());
    frame[4..8].copy_from_slice(&kind::REQUEST.to_le_bytes());
    let (head, body) = frame.split_at(32);
    let mut popped = Vec::with_capacity(64);
    crate::walk(arguments, || {
        let room = producer.reserve(frame.len(), 0).expect("an honest consumer").expect("an empty ring");
        room.commit(&[head, body]);
        assert!(consumer.pop(kind::REQUEST, &mut popped).expect("an honest producer"));
    });
    assert_eq!(popped, frame);
}
