//! A session as the worker sees it: slot, channels, leases.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::arena;
use crate::block::Block;
use crate::frame::Handle;
use crate::layout::{Geometry, SlotState, session};
use crate::lease;
use crate::mapping::Mapping;
use crate::os::now_ns;
use crate::ring::Producer;
use crate::slot;

use super::inflight::Placed;
use super::resident::Reading;

/// What a lease keeps.
#[derive(Debug)]
enum Lent {
    /// A result, for this session alone.
    Block(Block),
    /// A resident table, which others read too.
    Resident(Reading),
}

impl Lent {
    /// Where it lies.
    fn handle(&self) -> Handle {
        match self {
            Lent::Block(block) => block.handle(),
            Lent::Resident(reading) => reading.resident().handle(),
        }
    }

    /// Leaves it where it lies when its last holder is gone.
    fn abandon(&self) {
        match self {
            Lent::Block(block) => block.abandon(),
            Lent::Resident(reading) => reading.resident().abandon(),
        }
    }
}

/// A lease that is not let go of.
#[derive(Debug)]
struct Held {
    lent: Arc<Lent>,
    /// CLOCK_MONOTONIC nanoseconds when it was lent.
    since_ns: u64,
}

/// What a session holds by its leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lending {
    /// How many there are.
    pub leases: u32,
    /// Bytes that they keep; of a table with several views, once.
    pub bytes: u64,
    /// CLOCK_MONOTONIC nanoseconds when the oldest was lent; 0: there is none.
    pub oldest_ns: u64,
}

/// One client process's session. Lives until nobody needs it: the poller, and every request of it that still runs.
#[derive(Debug)]
pub struct Peer {
    /// Its slot.
    pub slot: u32,
    /// The slot's generation.
    pub generation: u64,
    /// The client's process.
    pub pid: u32,
    /// Requests taken and not yet answered. At zero, nothing reads the session's blocks.
    pub in_flight: AtomicU32,
    /// Nothing is sent to it any more: it has left, lost its socket, died or been cut.
    pub gone: AtomicBool,
    /// The rule it broke, once it has.
    pub cut: Mutex<Option<String>>,
    leases: Mutex<Leases>,
}

#[derive(Debug, Default)]
struct Leases {
    held: Vec<Option<Held>>,
    free: Vec<u32>,
    /// Forks under way: what is lent meanwhile is for the child too.
    pins: Vec<Arc<Pinned>>,
}

/// What a forked child keeps of its parent's results.
#[derive(Debug, Default)]
pub struct Pinned(Mutex<Vec<Arc<Lent>>>);

impl Pinned {
    /// Leaves the results where they lie: the worker goes.
    pub fn abandon(&self) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter().for_each(|lent| lent.abandon());
    }
}

impl Peer {
    /// A new session.
    pub fn new(geometry: &Geometry, slot: u32, generation: u64, pid: u32) -> Self {
        let leases = Leases {
            held: (0..geometry.leases_per_session).map(|_| None).collect(),
            free: (0..geometry.leases_per_session).rev().collect(),
            pins: Vec::new(),
        };
        Self {
            slot,
            generation,
            pid,
            in_flight: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            cut: Mutex::new(None),
            leases: Mutex::new(leases),
        }
    }

    /// Whether its client says that it still uses slot, channels and extents.
    pub fn is_held(&self, map: &Mapping, geometry: &Geometry) -> bool {
        slot::is_session_held(map, geometry, self.slot, self.generation)
    }

    /// The owner number of its extents.
    pub fn owner(&self) -> u16 {
        arena::owner_of_session(self.slot)
    }

    /// Lends it a result. `Err`: all its lease numbers are taken.
    pub fn lend(&self, result: Placed) -> Result<u32, Placed> {
        let mut leases = self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match leases.free.pop() {
            Some(lease) => {
                let lent = Arc::new(match result {
                    Placed::Block(block) => Lent::Block(block),
                    Placed::Resident(resident) => Lent::Resident(Reading::new(resident, self.pid)),
                });
                for pinned in &leases.pins {
                    pinned.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(lent.clone());
                }
                leases.held[lease as usize] = Some(Held { lent, since_ns: now_ns() });
                Ok(lease)
            }
            None => Err(result),
        }
    }

    /// Keeps what it holds now, and what it is lent until `seal`, for as long as the result lives.
    pub fn pin(&self) -> Arc<Pinned> {
        let mut leases = self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let held = leases.held.iter().flatten().map(|held| held.lent.clone()).collect();
        let pinned = Arc::new(Pinned(Mutex::new(held)));
        leases.pins.push(pinned.clone());
        pinned
    }

    /// The fork is over: nothing is added to the pin any more.
    pub fn seal(&self, pinned: &Arc<Pinned>) {
        let mut leases = self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        leases.pins.retain(|open| !Arc::ptr_eq(open, pinned));
    }

    /// Frees what it has let go of. A bit of a lease that it does not hold changes nothing.
    pub fn collect_released(&self, map: &Mapping, geometry: &Geometry) {
        let mut leases = self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        lease::take_released(map, geometry, self.slot, |lease| {
            if leases.held[lease as usize].take().is_some() {
                leases.free.push(lease);
            }
        });
    }

    /// Frees all of its leases: its process is dead.
    pub fn drop_leases(&self) {
        let mut leases = self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for lease in 0..leases.held.len() {
            if leases.held[lease].take().is_some() {
                leases.free.push(lease as u32);
            }
        }
    }

    /// Leaves its results where they lie: the worker goes, and whoever has an answer unread or a table open still looks at
    /// them. Freed, they could be claimed and overwritten by another client of this segment.
    pub fn abandon_leases(&self) {
        let mut leases = self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        leases.held.iter_mut().filter_map(Option::take).for_each(|held| held.lent.abandon());
    }

    /// What it holds now. It looks at each lease: for the poller, now and then.
    pub fn lending(&self) -> Lending {
        let leases = self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let count = leases.held.len() - leases.free.len();
        // Low numbers are lent first, so the search mostly ends early.
        let held = || leases.held.iter().flatten().take(count);
        let mut places: Vec<(u64, u64)> = held().map(|held| held.lent.handle()).map(|at| (at.offset, at.len)).collect();
        places.sort_unstable();
        places.dedup();
        Lending {
            leases: count as u32,
            bytes: places.iter().map(|(_, len)| len).sum(),
            oldest_ns: held().map(|held| held.since_ns).min().unwrap_or(0),
        }
    }

    /// Writes the slot's word and figures for `molt-shm-stat`.
    pub fn show(&self, map: &Mapping, geometry: &Geometry, state: SlotState, channels: u32) {
        let at = geometry.session(self.slot);
        map.u32(at + session::PID).store(self.pid, Ordering::Relaxed);
        map.u32(at + session::CHANNELS).store(channels, Ordering::Relaxed);
        map.u32(at + session::IN_FLIGHT).store(self.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
        let lending = self.lending();
        map.u32(at + session::LEASES).store(lending.leases, Ordering::Relaxed);
        map.u64(at + session::LEASED_BYTES).store(lending.bytes, Ordering::Relaxed);
        map.u64(at + session::OLDEST_LEASE_NS).store(lending.oldest_ns, Ordering::Relaxed);
        slot::show_session(map, geometry, self.slot, self.generation, state);
    }
}

/// The answering side of a channel: any thread that has finished a request writes here, one at a time.
#[derive(Debug)]
pub struct ReplyPath {
    /// The channel.
    pub index: u32,
    /// Whose it is.
    pub peer: Arc<Peer>,
    /// The worker's end of the doorbell.
    pub bell: OwnedFd,
    /// The response ring.
    pub ring: Mutex<ReplyRing>,
}

/// The response ring and what is promised of it.
#[derive(Debug)]
pub struct ReplyRing {
    /// The ring.
    pub producer: Producer,
    /// Requests taken and not yet answered: each has a reserved frame in the ring.
    pub taken: u32,
}
