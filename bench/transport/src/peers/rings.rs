//! molt's bare ring pair: two rings and nothing around them. What the client library and the poller add is the
//! difference to `molt`.

use std::fs::OpenOptions;
use std::sync::Arc;

use molt_ipc_shm::frame::kind;
use molt_ipc_shm::mapping::{Mapping, SharedMapping};
use molt_ipc_shm::ring::{Consumer, Producer, RingPlace};

use crate::peer::{Attached, Caller, Looking, OneSide, Peer, Place, Tried, ready, until_input_closes};

/// The ring pair.
pub struct Rings;

const CAPACITY: usize = 32 << 10;
const DATA_AT: usize = 4096;

fn map(place: &Place) -> Tried<SharedMapping> {
    let path = format!("/dev/shm/{}-rings", place.name);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.set_len((DATA_AT + 2 * CAPACITY) as u64)?;
    Ok(Arc::new(Mapping::new(&file)?))
}

/// The positions lie on lines of their own, as in a segment.
fn ring(index: usize) -> RingPlace {
    RingPlace { data: DATA_AT + index * CAPACITY, capacity: CAPACITY, head: index * 256, tail: index * 256 + 128 }
}

fn head(payload: &[u8], kind: u32) -> [u8; 8] {
    ((8 + payload.len() as u64) | u64::from(kind) << 32).to_le_bytes()
}

/// One side: what it sends goes into one ring, what it gets comes from the other.
struct Side {
    sends: Producer,
    gets: Consumer,
    frame: Vec<u8>,
}

impl Side {
    fn new(map: &SharedMapping, sends: usize, gets: usize) -> Self {
        let (sends, gets) = (Producer::new(map.clone(), ring(sends)), Consumer::new(map.clone(), ring(gets)));
        Self { sends, gets, frame: Vec::new() }
    }

    fn send(&mut self, payload: &[u8], kind: u32) -> Tried<()> {
        loop {
            if let Some(room) = self.sends.reserve(8 + payload.len(), 0)? {
                room.commit(&[&head(payload, kind), payload]);
                return Ok(());
            }
            std::hint::spin_loop();
        }
    }

    fn get(&mut self, wanted: u32) -> Tried<&[u8]> {
        let mut looking = Looking::default();
        while !self.gets.pop(wanted, &mut self.frame)? {
            if wanted == kind::RESPONSE {
                looking.on()?;
            } else {
                std::hint::spin_loop(); // the server waits for its next turn as long as it takes
            }
        }
        Ok(&self.frame[8..])
    }
}

impl Peer for Rings {
    fn name(&self) -> &'static str {
        "ring pair"
    }

    fn longest(&self) -> usize {
        CAPACITY / 8
    }

    fn is_whole(&self) -> bool {
        false
    }

    fn serve(&self, place: &Place) -> Tried<()> {
        let map = map(place)?;
        std::thread::spawn(move || -> Tried<()> {
            let mut side = Side::new(&map, 1, 0);
            let mut answer = Vec::new();
            loop {
                answer.clear();
                answer.extend_from_slice(side.get(kind::REQUEST)?);
                side.send(&answer, kind::RESPONSE)?;
            }
        });
        ready();
        until_input_closes();
        Ok(std::fs::remove_file(format!("/dev/shm/{}-rings", place.name))?)
    }

    fn attach(&self, place: &Place) -> Tried<Box<dyn Attached>> {
        Ok(Box::new(OneSide::of(Side::new(&map(place)?, 0, 1))))
    }
}

impl Caller for Side {
    fn call(&mut self, payload: &[u8], read: &mut dyn FnMut(&[u8])) -> Tried<()> {
        self.send(payload, kind::REQUEST)?;
        read(self.get(kind::RESPONSE)?);
        Ok(())
    }
}
