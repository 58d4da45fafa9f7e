//! A segment small enough to be modelled, a bell, and the ways to run a scenario.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use loom::sync::{Condvar, Mutex};
use molt_ipc_shm::doorbell::Woken;
use molt_ipc_shm::failpoint::around;
use molt_ipc_shm::frame::kind;
use molt_ipc_shm::layout::{Geometry, channel, session};
use molt_ipc_shm::mapping::{Mapping, SharedMapping};
use molt_ipc_shm::ring::{Consumer, Producer, RingPlace};

/// Rings of two frames, two extents, one word of attention bits, of cells and of leases.
pub const GEOMETRY: Geometry = Geometry {
    sessions: 2,
    channels: 2,
    ring_bytes: 128,
    cells_per_channel: 1,
    leases_per_session: 64,
    entries: 1,
    extent_bytes: 4096,
    extents: 2,
};

/// What a scenario touches.
#[derive(Default)]
pub struct Places {
    words: Vec<usize>,
    halves: Vec<usize>,
    plain: Vec<Range<usize>>,
}

impl Places {
    /// One ring.
    pub fn ring(mut self, place: RingPlace) -> Self {
        self.words.extend([place.head, place.tail]);
        self.plain.push(place.data..place.data + place.capacity);
        self
    }

    /// A word of its own.
    pub fn word(mut self, at: usize) -> Self {
        self.words.push(at);
        self
    }

    /// A channel: both rings, their sleep words, its cells, its state, who uses it.
    pub fn channel(mut self, index: u32) -> Self {
        let slot = GEOMETRY.channel(index);
        let words = [channel::WORD, channel::RESPONSE_SLEEP, channel::ROOM_SLEEP, channel::CHECKOUT];
        self.words.extend(words.map(|word| slot + word));
        self.words.extend((0..GEOMETRY.cells_per_channel).map(|cell| GEOMETRY.cell(index, cell)));
        self.halves.push(slot + channel::SESSION);
        self.ring(RingPlace::of_requests(&GEOMETRY, index)).ring(RingPlace::of_responses(&GEOMETRY, index))
    }

    /// The poller's sleep word and the attention bits.
    pub fn attention(mut self) -> Self {
        self.words.extend([GEOMETRY.worker_sleep(), GEOMETRY.channel_word(0), GEOMETRY.session_word(0)]);
        self
    }

    /// A session: its state, what it has let go of, whether its client uses it.
    pub fn session(mut self, slot: u32) -> Self {
        let words = [session::WORD, session::RELEASED, session::HELD];
        self.words.extend(words.map(|word| GEOMETRY.session(slot) + word));
        self
    }

    /// The extents' control words and the first bytes of each.
    pub fn arena(mut self) -> Self {
        for extent in 0..GEOMETRY.extents {
            self.words.push(GEOMETRY.extent(extent));
            let data = GEOMETRY.extent_data(extent);
            self.plain.push(data..data + 8);
        }
        self
    }

    pub fn map(self) -> SharedMapping {
        Arc::new(Mapping::of(&self.words, &self.halves, &self.plain))
    }
}

/// A frame that says which one it is, in its first word and its last.
pub fn frame(kind: u32, number: u64, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
    frame[4..8].copy_from_slice(&kind.to_le_bytes());
    frame[8..16].copy_from_slice(&number.to_le_bytes());
    frame[len - 8..].copy_from_slice(&number.to_le_bytes());
    frame
}

/// Publishes a short request frame if there is room.
pub fn publish(producer: &mut Producer, number: u64) -> bool {
    match producer.reserve(16, 0).expect("a correct peer") {
        Some(room) => {
            room.commit(&[&frame(kind::REQUEST, number, 16)]);
            true
        }
        None => false,
    }
}

/// The number of the next frame; a frame that is not whole ends the model.
pub fn take(consumer: &mut Consumer) -> Option<u64> {
    take_kind(consumer, kind::REQUEST)
}

/// The same for any kind.
pub fn take_kind(consumer: &mut Consumer, kind: u32) -> Option<u64> {
    let mut found = Vec::new();
    consumer.pop(kind, &mut found).expect("a correct peer").then(|| {
        let number = u64::from_le_bytes(found[8..16].try_into().expect("eight bytes"));
        assert_eq!(found, frame(kind, number, found.len()), "half a frame");
        number
    })
}

/// A doorbell whose sleeper waits for ever if nobody rings: no scenario rests on the product's 100 ms.
pub struct Bell {
    bytes: Mutex<u32>,
    rung: Condvar,
}

impl Bell {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(0), rung: Condvar::new() })
    }

    /// Sends a byte.
    pub fn ring(&self) -> io::Result<()> {
        around(|| {
            *self.bytes.lock().expect("nobody panics") += 1;
            self.rung.notify_one();
        });
        Ok(())
    }

    /// Waits for a byte and takes what is there.
    pub fn wait(&self) -> io::Result<Woken> {
        let mut bytes = self.bytes.lock().expect("nobody panics");
        while *bytes == 0 {
            bytes = self.rung.wait(bytes).expect("nobody panics");
        }
        *bytes = 0;
        Ok(Woken::Look)
    }
}

/// Runs a scenario in every order; with a bound, in every order of at most that many preemptions.
pub fn explore(most_preemptions: Option<usize>, scenario: impl Fn() + Send + Sync + 'static) -> usize {
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = most_preemptions;
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions, preemptions: {most_preemptions:?}");
    executions
}

/// Runs a scenario once for every place at which its victim can be killed, and once unharmed. The scenario gets the place
/// and says whether its victim died there.
pub fn explore_deaths(most_preemptions: Option<usize>, scenario: impl Fn(u32) -> bool + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    for place in 0.. {
        let died = Arc::new(AtomicBool::new(false));
        let (run, noted) = (scenario.clone(), died.clone());
        explore(most_preemptions, move || {
            if run(place) {
                noted.store(true, Ordering::Relaxed);
            }
        });
        if !died.load(Ordering::Relaxed) {
            println!("killed at each of {place} places");
            assert!(place > 0, "nobody was killed anywhere");
            return;
        }
    }
}
