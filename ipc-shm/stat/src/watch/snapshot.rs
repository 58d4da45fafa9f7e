//! What one look at a segment shows: plain data, read once, which nobody changes under whoever draws it. Everything in it
//! was written by processes that may be hostile or half dead, so it is clamped here and believed nowhere.

use std::sync::atomic::Ordering;

use molt_ipc_shm::arena::{Arena, ExtentWord, OWNER_NONE};
use molt_ipc_shm::doctor::{self, Finding, Look};
use molt_ipc_shm::layout::{HEARTBEAT_AT, SlotState, channel, session, totals};
use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::stat::SupervisorReport;
use molt_ipc_shm::stats::EntryStats;
use molt_ipc_shm::{Outcome, Segment};

use super::requests::{self, Open};
use crate::units::plain;

/// A segment at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// CLOCK_MONOTONIC nanoseconds of the look.
    pub at_ns: u64,
    /// What the segment is called.
    pub name: String,
    /// The random number of this start of the worker.
    pub instance: u64,
    /// The worker.
    pub worker: Worker,
    /// What the doctor says.
    pub findings: Vec<Finding>,
    /// Counters.
    pub totals: Totals,
    /// Sessions in use.
    pub sessions: Vec<Session>,
    /// Channels in use.
    pub channels: Vec<Channel>,
    /// Entries.
    pub entries: Vec<EntryStats>,
    /// Requests queued or running, as far as they are listed.
    pub requests: Vec<Open>,
    /// The arena.
    pub arena: ArenaMap,
    /// Slots there are: sessions, channels.
    pub slots: (u32, u32),
    /// Bytes of a ring.
    pub ring_bytes: u64,
}

/// The worker.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its process.
    pub pid: u32,
    /// Whether the kernel says that it lives.
    pub alive: bool,
    /// Its own word.
    pub state: &'static str,
    /// Nanoseconds since its start.
    pub up_ns: u64,
    /// Nanoseconds since its poller's last sign of life.
    pub silent_ns: u64,
    /// Who starts it again when it dies.
    pub supervisor: Option<SupervisorReport>,
}

/// Counters since the start.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Requests taken.
    pub requests: u64,
    /// Answers, one counter an outcome.
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Doorbell bytes sent.
    pub doorbells: u64,
    /// Sessions cut.
    pub cut: u64,
}

/// A client process.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its slot.
    pub slot: u32,
    /// Its process.
    pub pid: u32,
    /// active, closing or cut.
    pub state: &'static str,
    /// Channels open.
    pub channels: u32,
    /// Requests taken and not answered.
    pub in_flight: u32,
    /// Results and tables it holds.
    pub leases: u32,
    /// Bytes that these keep.
    pub leased_bytes: u64,
    /// Nanoseconds since the oldest of them was lent.
    pub oldest_lease_ns: Option<u64>,
    /// Bytes of its extents.
    pub arena_bytes: u64,
}

/// A channel.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its number.
    pub index: u32,
    /// Whose it is.
    pub session: u32,
    /// The process.
    pub pid: u32,
    /// active, closing or cut.
    pub state: &'static str,
    /// Bytes in its request ring; `None`: its positions cannot be.
    pub requests: Option<u64>,
    /// Bytes in its response ring.
    pub responses: Option<u64>,
    /// Requests not started.
    pub queued: u32,
    /// Requests started.
    pub running: u32,
}

/// The arena's control words.
#[derive(Debug, Clone, Default)]
pub struct ArenaMap {
    /// Bytes of an extent.
    pub extent_bytes: u64,
    /// A word an extent.
    pub words: Vec<ExtentWord>,
}

impl ArenaMap {
    /// Bytes of it all.
    pub fn total(&self) -> u64 {
        self.words.len() as u64 * self.extent_bytes
    }

    /// Bytes that somebody has.
    pub fn used(&self) -> u64 {
        self.words.iter().filter(|word| word.taken).count() as u64 * self.extent_bytes
    }

    /// Bytes that one owner has, and in how many runs.
    pub fn of(&self, owner: u16) -> (u64, u64) {
        let his = self.words.iter().filter(|word| word.taken && word.owner == owner);
        let (extents, runs) = his.fold((0, 0), |(extents, runs), word| (extents + 1, runs + u64::from(word.head)));
        (extents * self.extent_bytes, runs)
    }

    /// Bytes of the longest free run.
    pub fn longest_free(&self) -> u64 {
        let runs = self.words.split(|word| word.taken).map(<[ExtentWord]>::len);
        runs.max().unwrap_or(0) as u64 * self.extent_bytes
    }
}

fn in_words(state: SlotState) -> &'static str {
    match state {
        SlotState::Free => "free",
        SlotState::Active => "active",
        SlotState::Closing => "closing",
        SlotState::Quarantined => "cut",
    }
}

impl Snapshot {
    /// Looks at a segment. The look for the doctor is kept for the next time: what does not move shows in two of them.
    pub fn of(segment: &Segment, before: Option<&Look>) -> (Self, Look) {
        let (map, geometry, header) = (&segment.map, &segment.geometry, &segment.header);
        let look = Look::at(segment);
        let findings = doctor::compare(segment, before, &look);
        let at_ns = now_ns();
        let word = |at: usize| map.u64(at).load(Ordering::Acquire);
        let short = |at: usize| map.u32(at).load(Ordering::Relaxed);
        let arena = ArenaMap {
            extent_bytes: u64::from(geometry.extent_bytes),
            words: Arena::new(map.clone(), *geometry, OWNER_NONE).words(),
        };
        let sessions: Vec<Session> = (0..geometry.sessions)
            .filter_map(|slot| {
                let at = geometry.session(slot);
                let state = SlotState::of(word(at + session::WORD));
                (state != SlotState::Free).then(|| Session {
                    slot,
                    pid: short(at + session::PID),
                    state: in_words(state),
                    channels: short(at + session::CHANNELS),
                    in_flight: short(at + session::IN_FLIGHT),
                    leases: short(at + session::LEASES),
                    leased_bytes: word(at + session::LEASED_BYTES),
                    oldest_lease_ns: Some(word(at + session::OLDEST_LEASE_NS))
                        .filter(|since| *since > 0)
                        .map(|since| at_ns.saturating_sub(since)),
                    arena_bytes: arena.of(molt_ipc_shm::arena::owner_of_session(slot)).0,
                })
            })
            .collect();
        let (mut channels, mut open) = (Vec::new(), Vec::new());
        for index in 0..geometry.channels {
            let at = geometry.channel(index);
            let state = SlotState::of(word(at + channel::WORD));
            if state == SlotState::Free {
                continue;
            }
            let session = short(at + channel::SESSION);
            let pid = sessions.iter().find(|peer| peer.slot == session).map_or(0, |peer| peer.pid);
            let fill = |head: usize, tail: usize| {
                // The head first: a ring that is in use is then never shown fuller than it was.
                let head = word(at + head);
                let bytes = word(at + tail).wrapping_sub(head);
                (bytes <= u64::from(geometry.ring_bytes)).then_some(bytes)
            };
            let found = requests::of_channel(segment, index, pid, at_ns, open.len());
            channels.push(Channel {
                index,
                session,
                pid,
                state: in_words(state),
                requests: fill(channel::REQUEST_HEAD, channel::REQUEST_TAIL),
                responses: fill(channel::RESPONSE_HEAD, channel::RESPONSE_TAIL),
                queued: found.queued,
                running: found.running,
            });
            open.extend(found.listed);
        }
        let total = |counter| word(geometry.total(counter));
        let entries = (0..geometry.entries).filter_map(|index| EntryStats::read(map, geometry, index));
        let snapshot = Self {
            at_ns,
            name: plain(&segment.name),
            instance: header.instance,
            worker: Worker {
                pid: header.worker_pid,
                alive: segment.is_alive(),
                state: segment.state_name(),
                up_ns: at_ns.saturating_sub(header.started_ns),
                silent_ns: at_ns.saturating_sub(word(HEARTBEAT_AT).max(header.started_ns)),
                supervisor: SupervisorReport::of(segment),
            },
            findings,
            totals: Totals {
                requests: total(totals::REQUESTS),
                outcomes: Outcome::ALL.map(|outcome| total(totals::OUTCOMES + outcome as usize)),
                doorbells: total(totals::DOORBELLS),
                cut: total(totals::CUT),
            },
            sessions,
            channels,
            entries: entries.map(|entry| EntryStats { name: plain(&entry.name), ..entry }).collect(),
            requests: open,
            arena,
            slots: (geometry.sessions, geometry.channels),
            ring_bytes: u64::from(geometry.ring_bytes),
        };
        (snapshot, look)
    }
}
