//! A segment as it may look, for tests of whatever reads or draws one.

use molt_ipc_shm::arena::{ExtentWord, OWNER_WORKER, owner_of_session};
use molt_ipc_shm::layout::entry;
use molt_ipc_shm::stats::EntryStats;

use crate::watch::history::{EntryRates, Percentiles, Rates};
use crate::watch::requests::{Age, Open};
use crate::watch::snapshot::{ArenaMap, Channel, Session, Snapshot, Totals, Worker};

const SECOND: u64 = 1_000_000_000;

/// An entry that was called so often.
pub fn stats(name: &str, calls: u64) -> EntryStats {
    EntryStats { name: name.into(), calls, limit_ns: 0, idempotent: false, buckets: vec![0; entry::BUCKETS] }
}

fn session(slot: u32, pid: u32, in_flight: u32, arena_bytes: u64) -> Session {
    let (leased_bytes, oldest_lease_ns) = (3 << 20, Some(7384 * SECOND));
    Session {
        slot,
        pid,
        state: "active",
        channels: 2,
        in_flight,
        leases: 1,
        leased_bytes,
        oldest_lease_ns,
        arena_bytes,
    }
}

fn channel(index: u32, session: u32, pid: u32, (requests, responses): (u64, u64), open: u32) -> Channel {
    let (requests, responses) = (Some(requests), Some(responses));
    Channel { index, session, pid, state: "active", requests, responses, queued: open, running: open }
}

fn open(entry: &str, pid: u32, age: u64, running: bool) -> Open {
    let left_ns = Some(5 * SECOND as i64 - age as i64);
    Open { channel: 0, id: 4711, pid, running, entry: Some(entry.into()), age: Age::Exactly(age), left_ns }
}

/// A worker that serves two clients.
pub fn busy() -> (Snapshot, Rates) {
    let taken =
        |count, owner| (0..count).map(move |at| ExtentWord { taken: true, owner, head: at == 0, generation: 1 });
    let free = (0..900).map(|_| ExtentWord { taken: false, owner: 0, head: false, generation: 0 });
    let mut outcomes = [0; 10];
    outcomes[0] = 1_234_000;
    outcomes[6] = 17;
    let snapshot = Snapshot {
        at_ns: 100 * SECOND,
        name: "/molt0".into(),
        instance: 7,
        worker: Worker {
            pid: 22_447,
            alive: true,
            state: "serving",
            up_ns: 7384 * SECOND,
            silent_ns: SECOND / 20,
            supervisor: None,
        },
        findings: Vec::new(),
        totals: Totals { requests: 1_234_567, outcomes, doorbells: 98_765, cut: 0 },
        sessions: vec![session(0, 23_072, 2, 20 << 20), session(5, 4_194_304, 0, 0)],
        channels: vec![
            channel(0, 0, 23_072, (16 << 10, 64), 1),
            channel(3, 5, 4_194_304, (0, 31 << 10), 0),
            channel(4, 5, 4_194_304, (0, 0), 0),
        ],
        entries: vec![
            stats("echo", 0),
            stats("summary_of_orders_by_customer_and_month", 12),
            stats("compute", 1_200_000),
        ],
        requests: vec![open("molt.query", 23_072, 2_500_000_000, true), open("compute", 23_072, 12_300, false)],
        arena: ArenaMap {
            extent_bytes: 256 << 10,
            words: taken(80, owner_of_session(0)).chain(taken(44, OWNER_WORKER)).chain(free).collect(),
        },
        slots: (256, 320),
        ring_bytes: 32 << 10,
    };
    let percentiles = |p50, p95, p99| Some(Percentiles { p50, p95, p99 });
    let entries = vec![
        EntryRates::default(),
        EntryRates { all: percentiles(25_200_000, 54_500_000, 1_540_000_000), ..EntryRates::default() },
        EntryRates {
            per_second: 3412.0,
            last: percentiles(5_120, 10_240, 14_340),
            all: percentiles(5_630, 11_260, 999_999),
        },
    ];
    let mut outcomes = [0.0; 10];
    outcomes[0] = 3412.0;
    (snapshot, Rates { interval_ns: SECOND, requests: 3412.4, outcomes, entries })
}
