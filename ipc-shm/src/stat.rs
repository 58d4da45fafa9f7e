//! What a tool shows of a segment, read from the segment alone: it works while the worker hangs or is dead.

use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::arena::{Arena, OWNER_NONE, owner_of_session};
use crate::catalogue::{Catalogue, Listing};
use crate::layout::{LAYOUT_VERSION, SlotState, session, totals};
use crate::os::now_ns;
use crate::outcome::Outcome;
use crate::segment::Segment;
use crate::stats::{EntryStats, Overdue};

/// A segment's figures. Serialises to what `molt-shm-stat NAME --json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The object.
    pub segment: SegmentReport,
    /// Its worker.
    pub worker: WorkerReport,
    /// Its arena.
    pub arena: ArenaReport,
    /// Its sessions, those in use.
    pub sessions: Vec<SessionReport>,
    /// Its entries.
    pub entries: Vec<EntryReport>,
    /// Its tables by name, those that are lost included.
    pub tables: Vec<TableReport>,
    /// Counters since the start.
    pub totals: serde_json::Map<String, serde_json::Value>,
}

/// The object.
#[derive(Debug, Serialize)]
pub struct SegmentReport {
    /// Its name.
    pub name: String,
    /// Its layout's version.
    pub layout_version: u32,
    /// Its bytes.
    pub total_bytes: u64,
    /// The random number of this start of the worker.
    pub epoch: u64,
}

/// The worker.
#[derive(Debug, Serialize)]
pub struct WorkerReport {
    /// Its process.
    pub pid: u32,
    /// starting, serving, stopping, stopped, or dead.
    pub state: &'static str,
    /// Seconds since its start.
    pub uptime_s: f64,
    /// Requests whose time was up long ago and whose entry runs on.
    pub overdue: u32,
    /// What its supervisor says, if it has one.
    pub supervisor: Option<SupervisorReport>,
}

/// The supervisor of a worker.
#[derive(Debug, Clone, Serialize)]
pub struct SupervisorReport {
    /// Its process.
    pub pid: u32,
    /// Whether it lives.
    pub alive: bool,
    /// How often it has started a worker again.
    pub restarts: u32,
    /// Workers in a row that died young.
    pub in_a_row: u32,
    /// How the last worker that died ended.
    pub last_end: Option<String>,
    /// Seconds since then.
    pub last_end_ago_s: Option<f64>,
    /// Seconds until the next worker is started, if this one has died.
    pub next_start_in_s: Option<f64>,
    /// All of it in words.
    pub text: String,
}

impl SupervisorReport {
    /// Reads what a segment says of its worker's supervisor; `None`: there was none.
    pub fn of(segment: &Segment) -> Option<Self> {
        let said = segment.supervision();
        if said.pid == 0 {
            return None;
        }
        let alive = segment.is_supervised();
        let seconds = |ns: u64| ns as f64 / 1e9;
        let gone = if alive { "" } else { ", and is dead by now" };
        Some(Self {
            pid: said.pid,
            alive,
            restarts: said.restarts,
            in_a_row: said.in_a_row,
            last_end: said.last_end.map(|(end, _)| end.to_string()),
            last_end_ago_s: said.last_end.map(|(_, at)| seconds(now_ns().saturating_sub(at))),
            next_start_in_s: said.next_start_ns.map(|at| seconds(at.saturating_sub(now_ns()))),
            text: format!("{said}{gone}"),
        })
    }
}

/// The arena.
#[derive(Debug, Serialize)]
pub struct ArenaReport {
    /// Its bytes.
    pub total_bytes: u64,
    /// Bytes of claimed extents.
    pub used_bytes: u64,
    /// Runs of extents.
    pub blocks: u64,
}

/// A session.
#[derive(Debug, Serialize)]
pub struct SessionReport {
    /// Its slot.
    pub slot: u32,
    /// The client's process.
    pub pid: u32,
    /// active, closing or quarantined.
    pub state: &'static str,
    /// Channels open.
    pub channels: u32,
    /// Requests taken and not answered.
    pub in_flight: u32,
    /// Results and tables it holds.
    pub leases: u32,
    /// Bytes that these keep; of a table with several views, once.
    pub leased_bytes: u64,
    /// Seconds since the oldest of them was lent.
    pub oldest_lease_s: Option<f64>,
    /// Bytes of its extents.
    pub arena_bytes: u64,
}

/// A table.
#[derive(Debug, Serialize)]
pub struct TableReport {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes in the arena; of a table that stays on disk, of its files.
    pub bytes: u64,
    /// The file that it was loaded from.
    pub source: Option<String>,
    /// It lies in the arena.
    pub resident: bool,
    /// Seconds since it was published; of a lost one, since it was lost.
    pub age_s: f64,
    /// Why it is not here any more: a former worker had it.
    pub lost: Option<String>,
}

impl TableReport {
    fn of(listing: Listing) -> Self {
        let Listing { name, version, rows, bytes, source, resident, since_ns, lost } = listing;
        Self { name, version, rows, bytes, source, resident, age_s: seconds_since(since_ns), lost }
    }
}

fn seconds_since(ns: u64) -> f64 {
    now_ns().saturating_sub(ns) as f64 / 1e9
}

/// An entry.
#[derive(Debug, Serialize)]
pub struct EntryReport {
    /// Its name.
    pub name: String,
    /// Calls answered.
    pub calls: u64,
    /// Microseconds of running that half of the calls did not exceed.
    pub p50_us: f64,
    /// The same for 99%.
    pub p99_us: f64,
    /// The same for 99.9%.
    pub p999_us: f64,
}

impl Report {
    /// Reads a segment.
    pub fn of(segment: &Segment) -> Self {
        let (map, geometry, header) = (&segment.map, &segment.geometry, &segment.header);
        let arena = Arena::new(map.clone(), *geometry, OWNER_NONE);
        let usage = arena.usage(None);
        let sessions = (0..geometry.sessions).filter_map(|slot| {
            let at = geometry.session(slot);
            let state = match SlotState::of(map.u64(at + session::WORD).load(Ordering::Acquire)) {
                SlotState::Free => return None,
                SlotState::Active => "active",
                SlotState::Closing => "closing",
                SlotState::Quarantined => "quarantined",
            };
            let word = |offset| map.u32(at + offset).load(Ordering::Relaxed);
            let long = |offset| map.u64(at + offset).load(Ordering::Relaxed);
            Some(SessionReport {
                slot,
                pid: word(session::PID),
                state,
                channels: word(session::CHANNELS),
                in_flight: word(session::IN_FLIGHT),
                leases: word(session::LEASES),
                leased_bytes: long(session::LEASED_BYTES),
                oldest_lease_s: Some(long(session::OLDEST_LEASE_NS)).filter(|at| *at > 0).map(seconds_since),
                arena_bytes: arena.usage(Some(owner_of_session(slot))).bytes,
            })
        });
        let us = |entry: &EntryStats, share| entry.quantile(share) as f64 / 1000.0;
        let entries =
            (0..geometry.entries).filter_map(|index| EntryStats::read(map, geometry, index)).map(|entry| EntryReport {
                p50_us: us(&entry, 0.5),
                p99_us: us(&entry, 0.99),
                p999_us: us(&entry, 0.999),
                calls: entry.calls,
                name: entry.name,
            });
        let mut tables = Catalogue::read(map, geometry).unwrap_or_default().tables;
        tables.sort_by(|one, other| one.name.cmp(&other.name));
        let total = |counter| map.u64(geometry.total(counter)).load(Ordering::Relaxed);
        let mut counters = serde_json::Map::new();
        counters.insert("requests".into(), total(totals::REQUESTS).into());
        for outcome in Outcome::ALL {
            counters.insert(outcome.name().into(), total(totals::OUTCOMES + outcome as usize).into());
        }
        counters.insert("doorbells".into(), total(totals::DOORBELLS).into());
        counters.insert("cut".into(), total(totals::CUT).into());
        counters.insert("stuck".into(), total(totals::STUCK).into());
        counters.insert("copied_bytes".into(), total(totals::COPIED_BYTES).into());
        Self {
            segment: SegmentReport {
                name: segment.name.clone(),
                layout_version: LAYOUT_VERSION,
                total_bytes: header.total_bytes,
                epoch: header.instance,
            },
            worker: WorkerReport {
                pid: header.worker_pid,
                state: if segment.is_alive() { segment.state_name() } else { "dead" },
                uptime_s: now_ns().saturating_sub(header.started_ns) as f64 / 1e9,
                overdue: Overdue::read(map).count,
                supervisor: SupervisorReport::of(segment),
            },
            arena: ArenaReport {
                total_bytes: geometry.arena_bytes() as u64,
                used_bytes: usage.bytes,
                blocks: usage.blocks,
            },
            sessions: sessions.collect(),
            entries: entries.collect(),
            tables: tables.into_iter().map(TableReport::of).collect(),
            totals: counters,
        }
    }

    /// The report as JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }
}
