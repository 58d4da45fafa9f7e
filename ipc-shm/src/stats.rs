//! Counters and histograms in the segment: a tool reads them while the worker is busy, hangs or is dead.

use std::sync::atomic::Ordering;

use crate::layout::{Geometry, OVERDUE_AT, entry, overdue, totals};
use crate::mapping::Mapping;
use crate::outcome::Outcome;

/// Adds to a counter of [`totals`].
#[inline]
pub fn count(map: &Mapping, geometry: &Geometry, counter: usize, by: u64) {
    map.u64(geometry.total(counter)).fetch_add(by, Ordering::Relaxed);
}

/// Counts an outcome.
#[inline]
pub fn count_outcome(map: &Mapping, geometry: &Geometry, outcome: Outcome) {
    count(map, geometry, totals::OUTCOMES + outcome as usize, 1);
}

/// Gives an entry its slot. For the worker, before it is ready.
pub fn name_entry(map: &Mapping, geometry: &Geometry, index: u32, name: &str, limit_ns: u64, idempotent: bool) {
    map.u64(geometry.entry(index) + entry::FLAGS).store(u64::from(idempotent), Ordering::Relaxed);
    map.u64(geometry.entry(index) + entry::LIMIT).store(limit_ns, Ordering::Relaxed);
    let mut bytes = [0; entry::NAME_BYTES];
    let len = name.floor_char_boundary(entry::NAME_BYTES.min(name.len()));
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    map.write(geometry.entry(index), &bytes);
}

/// Records one run of an entry.
#[inline]
pub fn record_run(map: &Mapping, geometry: &Geometry, index: u32, nanoseconds: u64) {
    let at = geometry.entry(index);
    map.u64(at + entry::CALLS).fetch_add(1, Ordering::Relaxed);
    map.u64(at + entry::BUCKETS_AT + bucket(nanoseconds) * 8).fetch_add(1, Ordering::Relaxed);
}

/// Requests whose time was up long ago and whose entry runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overdue {
    /// How many.
    pub count: u32,
    /// The entry slot of the one whose time was up first.
    pub entry: u32,
    /// When that was, CLOCK_MONOTONIC nanoseconds.
    pub since_ns: u64,
}

impl Overdue {
    /// Says so in the segment.
    pub fn show(&self, map: &Mapping) {
        map.u32(OVERDUE_AT + overdue::ENTRY).store(self.entry, Ordering::Relaxed);
        map.u64(OVERDUE_AT + overdue::SINCE_NS).store(self.since_ns, Ordering::Relaxed);
        map.u32(OVERDUE_AT + overdue::COUNT).store(self.count, Ordering::Relaxed);
    }

    /// What is said there.
    pub fn read(map: &Mapping) -> Self {
        Self {
            count: map.u32(OVERDUE_AT + overdue::COUNT).load(Ordering::Relaxed),
            entry: map.u32(OVERDUE_AT + overdue::ENTRY).load(Ordering::Relaxed),
            since_ns: map.u64(OVERDUE_AT + overdue::SINCE_NS).load(Ordering::Relaxed),
        }
    }
}

/// The bucket of a value: its power of two, cut into 8 equal parts. A bucket is at most 12.5% wide.
fn bucket(value: u64) -> usize {
    let value = value.max(1);
    let power = value.ilog2() as usize;
    let part = if power >= 3 { (value >> (power - 3)) & 7 } else { (value << (3 - power)) & 7 };
    power * 8 + part as usize
}

/// The largest value of a bucket.
fn bucket_end(index: usize) -> u64 {
    let (power, part) = (index / 8, (index % 8) as u128);
    (((8 + part + 1) << power) / 8).min(u64::MAX as u128) as u64
}

/// One entry's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryStats {
    /// Its name.
    pub name: String,
    /// Calls answered.
    pub calls: u64,
    /// The longest it may take, nanoseconds; 0: no limit of its own.
    pub limit_ns: u64,
    /// Whether running it twice does no harm.
    pub idempotent: bool,
    /// Bucket counts.
    pub buckets: Vec<u64>,
}

impl EntryStats {
    /// Reads an entry's slot; `None` when it has no name.
    pub fn read(map: &Mapping, geometry: &Geometry, index: u32) -> Option<Self> {
        let at = geometry.entry(index);
        let mut name = [0; entry::NAME_BYTES];
        map.read(at, &mut name);
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        let load = |offset: usize| map.u64(at + offset).load(Ordering::Relaxed);
        let buckets = (0..entry::BUCKETS).map(|bucket| load(entry::BUCKETS_AT + bucket * 8)).collect();
        (!name.is_empty()).then(|| Self {
            name,
            calls: load(entry::CALLS),
            limit_ns: load(entry::LIMIT),
            idempotent: load(entry::FLAGS) & 1 != 0,
            buckets,
        })
    }

    /// Nanoseconds that a share of the runs (0.5, 0.99, ...) did not exceed; 0 without runs.
    pub fn quantile(&self, share: f64) -> u64 {
        // Saturating: a tool reads what anybody may have written.
        let total = self.buckets.iter().fold(0_u64, |total, count| total.saturating_add(*count));
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0_u64;
        let hit = self.buckets.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= wanted && total > 0
        });
        hit.map_or(0, bucket_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_within_an_eighth() {
        for value in (0..63).flat_map(|power| [1_u64 << power, (1 << power) + 1, (1 << power) * 2 - 1]) {
            let end = bucket_end(bucket(value));
            assert!(end >= value && end as u128 <= value as u128 * 9 / 8 + 2, "{value} -> {end}");
        }
        assert!(bucket(u64::MAX) < entry::BUCKETS);
    }
}
