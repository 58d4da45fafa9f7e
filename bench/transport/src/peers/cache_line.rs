//! The floor: one shared word that two processes write in turn. It carries no payload.

use std::fs::OpenOptions;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use molt_ipc_shm::mapping::{Mapping, SharedMapping};

use crate::peer::{Attached, Caller, Looking, OneSide, Peer, Place, Tried, ready, until_input_closes};

/// The bare cache line.
pub struct CacheLine;

fn map(place: &Place) -> Tried<SharedMapping> {
    let path = format!("/dev/shm/{}-line", place.name);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.set_len(4096)?;
    Ok(Arc::new(Mapping::new(&file)?))
}

impl Peer for CacheLine {
    fn name(&self) -> &'static str {
        "bare cache line"
    }

    fn longest(&self) -> usize {
        64
    }

    fn is_whole(&self) -> bool {
        false
    }

    fn serve(&self, place: &Place) -> Tried<()> {
        let map = map(place)?;
        std::thread::spawn(move || {
            let (word, mut next) = (map.u64(0), 1);
            loop {
                while word.load(Ordering::Acquire) != next {
                    std::hint::spin_loop();
                }
                word.store(next + 1, Ordering::Release);
                next += 2;
            }
        });
        ready();
        until_input_closes();
        Ok(std::fs::remove_file(format!("/dev/shm/{}-line", place.name))?)
    }

    fn attach(&self, place: &Place) -> Tried<Box<dyn Attached>> {
        Ok(Box::new(OneSide::of(Line { map: map(place)?, next: 1 })))
    }
}

struct Line {
    map: SharedMapping,
    next: u64,
}

impl Caller for Line {
    fn call(&mut self, payload: &[u8], read: &mut dyn FnMut(&[u8])) -> Tried<()> {
        let word = self.map.u64(0);
        word.store(self.next, Ordering::Release);
        let mut looking = Looking::default();
        while word.load(Ordering::Acquire) != self.next + 1 {
            looking.on()?;
        }
        self.next += 2;
        read(payload); // nothing came back but the turn
        Ok(())
    }
}
