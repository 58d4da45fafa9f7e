//! What two snapshots tell together: rates, percentiles of what ran in between, how long something has been there.

use std::collections::{HashMap, VecDeque};

use molt_ipc_shm::Outcome;
use molt_ipc_shm::stats::EntryStats;

use super::requests::Age;
use super::snapshot::Snapshot;

/// Rates kept for the curve: more than the widest terminal has columns.
const KEPT: usize = 512;

/// What was seen until now.
#[derive(Debug, Default)]
pub struct History {
    last: Option<Snapshot>,
    /// Channel and id of each request that was open at the last look, with when it was first seen.
    first_seen: HashMap<(u32, u64), u64>,
    /// Requests a second, the newest last.
    pub curve: VecDeque<u64>,
}

/// What happened between two looks.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    /// Nanoseconds between them; 0: there was but one.
    pub interval_ns: u64,
    /// Requests taken a second.
    pub requests: f64,
    /// Answers a second, by outcome.
    pub outcomes: [f64; Outcome::ALL.len()],
    /// One for each of the snapshot's entries.
    pub entries: Vec<EntryRates>,
}

/// What an entry did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EntryRates {
    /// Calls answered a second.
    pub per_second: f64,
    /// Of the calls in between; `None`: there was none.
    pub last: Option<Percentiles>,
    /// Of all calls since the start.
    pub all: Option<Percentiles>,
}

/// Nanoseconds that a share of the runs did not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of them.
    pub p50: u64,
    /// 95 of 100.
    pub p95: u64,
    /// 99 of 100.
    pub p99: u64,
}

impl Percentiles {
    fn of(stats: &EntryStats) -> Option<Self> {
        stats.buckets.iter().any(|count| *count > 0).then(|| Self {
            p50: stats.quantile(0.5),
            p95: stats.quantile(0.95),
            p99: stats.quantile(0.99),
        })
    }
}

impl History {
    /// Takes a snapshot in, and says what happened since the last one. Ages that its frames do not tell are filled in.
    pub fn take(&mut self, mut now: Snapshot) -> (Snapshot, Rates) {
        let before = self.last.take().filter(|last| last.instance == now.instance && last.at_ns < now.at_ns);
        if before.is_none() {
            self.first_seen.clear();
        }
        let known = std::mem::take(&mut self.first_seen);
        for request in &mut now.requests {
            let key = (request.channel, request.id);
            let since = known.get(&key).copied().unwrap_or(now.at_ns);
            self.first_seen.insert(key, since);
            if let Age::AtLeast(age) = &mut request.age {
                *age = now.at_ns.saturating_sub(since);
            }
        }
        now.requests.sort_by_key(|request| (std::cmp::Reverse(request.age.ns()), request.channel, request.id));
        let rates = between(before.as_ref(), &now);
        if before.is_some() {
            // Counters that somebody else wrote may say anything; a curve is drawn of what is possible.
            self.curve.push_back(rates.requests.clamp(0.0, 1e12).round() as u64);
            self.curve.drain(..self.curve.len().saturating_sub(KEPT));
        }
        self.last = Some(now.clone());
        (now, rates)
    }
}

fn between(before: Option<&Snapshot>, now: &Snapshot) -> Rates {
    let interval_ns = before.map_or(0, |before| now.at_ns.saturating_sub(before.at_ns));
    let seconds = interval_ns as f64 / 1e9;
    // A counter that went back, in a segment that somebody else writes to, counts nothing.
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let entries = now.entries.iter().enumerate().map(|(index, entry)| {
        let all = Percentiles::of(entry);
        let earlier = before.and_then(|before| before.entries.get(index)).filter(|earlier| earlier.name == entry.name);
        let Some(earlier) = earlier else { return EntryRates { all, ..EntryRates::default() } };
        let buckets = entry.buckets.iter().zip(&earlier.buckets).map(|(now, before)| now.saturating_sub(*before));
        EntryRates {
            per_second: per_second(entry.calls, earlier.calls),
            last: Percentiles::of(&EntryStats { buckets: buckets.collect(), ..entry.clone() }),
            all,
        }
    });
    let entries = entries.collect();
    let Some(before) = before else { return Rates { entries, ..Rates::default() } };
    let mut outcomes = [0.0; Outcome::ALL.len()];
    for (index, rate) in outcomes.iter_mut().enumerate() {
        *rate = per_second(now.totals.outcomes[index], before.totals.outcomes[index]);
    }
    Rates { interval_ns, requests: per_second(now.totals.requests, before.totals.requests), outcomes, entries }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::view::sample::{busy, stats};

    const SECOND: u64 = 1_000_000_000;

    /// The bucket of 2^power nanoseconds, whose values are at most an eighth more.
    fn runs(power: usize, count: u64) -> EntryStats {
        let mut entry = stats("compute", count);
        entry.buckets[power * 8] = count;
        entry
    }

    fn at(seconds: u64, entry: EntryStats) -> Snapshot {
        let (mut snapshot, _) = busy();
        snapshot.at_ns = seconds * SECOND;
        snapshot.totals.requests = entry.calls;
        snapshot.entries = vec![entry];
        snapshot
    }

    #[test]
    fn rates_and_percentiles_are_of_what_happened_in_between() {
        let mut history = History::default();
        let (_, first) = history.take(at(10, runs(10, 1000)));
        let all = first.entries[0].all.expect("a thousand runs");
        assert!((1024..=1152).contains(&all.p99), "{all:?}");
        assert_eq!((first.interval_ns, first.requests, first.entries[0].last), (0, 0.0, None));

        let mut later = runs(10, 1000);
        later.calls += 100;
        later.buckets[20 * 8] = 90;
        later.buckets[30 * 8] = 10;
        let (_, second) = history.take(at(12, later.clone()));
        let entry = second.entries[0].clone();
        assert_eq!((second.requests, entry.per_second), (50.0, 50.0));
        let (last, all) = (entry.last.expect("a hundred runs"), entry.all.expect("all runs"));
        let within = |ns: u64, power: u32| (1_u64 << power..=(9_u64 << power) / 8).contains(&ns);
        assert!(within(last.p50, 20) && within(last.p95, 30) && within(last.p99, 30), "{last:?}");
        assert!(within(all.p50, 10) && within(all.p95, 20) && within(all.p99, 20), "{all:?}");
        assert_eq!(history.curve, [50]);

        let (_, quiet) = history.take(at(13, later));
        assert_eq!((quiet.entries[0].per_second, quiet.entries[0].last), (0.0, None));
    }

    #[test]
    fn counters_that_go_back_or_belong_to_another_worker_count_nothing() {
        let mut history = History::default();
        history.take(at(10, runs(10, 1000)));
        let (_, back) = history.take(at(11, runs(10, 10)));
        assert_eq!((back.requests, back.entries[0].per_second, back.entries[0].last), (0.0, 0.0, None));
        let mut other = at(12, runs(10, 5000));
        other.instance += 1;
        let (_, other) = history.take(other);
        assert_eq!((other.interval_ns, other.entries[0].per_second), (0, 0.0));
        let mut full = runs(10, u64::MAX);
        full.buckets = vec![u64::MAX; full.buckets.len()];
        let mut full = at(13, full);
        full.instance += 1;
        let (_, full) = history.take(full);
        assert!(full.requests >= 0.0 && history.curve.iter().all(|rate| *rate <= 1_000_000_000_000));
    }

    /// A request whose frame is gone is as old as this view knows it.
    #[test]
    fn an_age_that_no_frame_tells_counts_from_the_first_look() {
        let mut history = History::default();
        let nameless = |seconds| {
            let mut snapshot = at(seconds, runs(10, 1));
            snapshot.requests.truncate(1);
            snapshot.requests[0].age = Age::AtLeast(0);
            snapshot
        };
        assert_eq!(history.take(nameless(10)).0.requests[0].age, Age::AtLeast(0));
        assert_eq!(history.take(nameless(13)).0.requests[0].age, Age::AtLeast(3 * SECOND));
        let mut none = nameless(14);
        none.requests.clear();
        history.take(none);
        assert_eq!(history.take(nameless(15)).0.requests[0].age, Age::AtLeast(0), "another request of that id");
    }
}
