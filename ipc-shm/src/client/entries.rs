//! What a segment says of its entries, as far as their callers need to know it.

use std::collections::HashMap;
use std::time::Duration;

use crate::Segment;
use crate::stats::EntryStats;

/// The entries of one worker, by name.
#[derive(Debug, Default)]
pub(super) struct Entries(HashMap<String, Facts>);

#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    limit: Option<Duration>,
    idempotent: bool,
}

impl Entries {
    /// Those of that segment's worker.
    pub fn of(segment: &Segment) -> Self {
        let listed = (0..segment.geometry.entries)
            .map_while(|index| EntryStats::read(&segment.map, &segment.geometry, index))
            .map(|entry| {
                let limit = (entry.limit_ns > 0).then(|| Duration::from_nanos(entry.limit_ns));
                (entry.name, Facts { limit, idempotent: entry.idempotent })
            });
        Self(listed.collect())
    }

    fn facts(&self, name: &[u8]) -> Facts {
        self.0.get(std::str::from_utf8(name).unwrap_or_default()).copied().unwrap_or_default()
    }

    /// How long a call may take: its own limit, capped by the entry's; without one the entry's, else the fallback.
    pub fn timeout(&self, name: &[u8], own: Option<Duration>, fallback: Duration) -> Duration {
        match (own, self.facts(name).limit) {
            (Some(own), Some(limit)) => own.min(limit),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => fallback,
        }
    }

    /// Whether the entry says that it may run twice.
    pub fn is_idempotent(&self, name: &[u8]) -> bool {
        self.facts(name).idempotent
    }
}
