//! What hours of kills add up to.

use std::time::Duration;

use crate::journal::{Event, Record};
use crate::oracle::Tally;
use crate::summary::{Times, line};

/// The promise for half of all deaths, milliseconds.
pub const RECLAIMED_MS: f64 = 100.0;
/// Fewer deaths have no median to speak of.
const ENOUGH: u64 = 8;
/// The longest that a bystander may go without an answer while only others of its kind are killed. A death costs it nothing:
/// this is for a machine that is busy with other things.
const STALL_MOST: Duration = Duration::from_secs(2);
/// The same while workers die, stand still and are started again, by a supervisor in growing pauses.
const STALL_WITH_RESTARTS_MOST: Duration = Duration::from_secs(15);

/// Counts of a run.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    /// Clients killed at a random moment.
    pub killed_clients: u64,
    /// Clients that died at a failpoint.
    pub trapped_clients: u64,
    /// Clients that were stopped, and went on.
    pub stopped_clients: u64,
    /// Workers killed at a random moment.
    pub killed_workers: u64,
    /// Workers that died at a failpoint.
    pub trapped_workers: u64,
    /// Workers that were stopped, and went on.
    pub stopped_workers: u64,
    /// Times that everybody left and everything was counted.
    pub rounds: u64,
    /// Requests and their ends.
    pub tally: Tally,
    /// How long a killed client's session took to be free.
    pub reclaimed: Times,
    /// How long it took after a round until all was at the baseline.
    pub baseline: Times,
    /// The longest time in which no call of a bystander was answered, while only clients were killed, nanoseconds.
    pub stall_ns: u64,
    /// The same while workers were killed, stopped and started too.
    pub stall_with_restarts_ns: u64,
    /// What was owed and not kept.
    pub violations: Vec<String>,
    /// How many of them were shown already.
    pub shown: usize,
}

impl Totals {
    /// Processes that died.
    pub fn kills(&self) -> u64 {
        self.killed_clients + self.trapped_clients + self.killed_workers + self.trapped_workers
    }

    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.killed_clients += other.killed_clients;
        self.trapped_clients += other.trapped_clients;
        self.stopped_clients += other.stopped_clients;
        self.killed_workers += other.killed_workers;
        self.trapped_workers += other.trapped_workers;
        self.stopped_workers += other.stopped_workers;
        self.rounds += other.rounds;
        self.tally.add(&other.tally);
        self.reclaimed.join(&other.reclaimed);
        self.baseline.join(&other.baseline);
        self.stall_ns = self.stall_ns.max(other.stall_ns);
        self.stall_with_restarts_ns = self.stall_with_restarts_ns.max(other.stall_with_restarts_ns);
        self.violations.extend(other.violations);
    }

    /// Looks for the longest time in which a client was not answered.
    pub fn watch(&mut self, records: &[Record], disturbed: bool) {
        let ends = records.iter().filter(|record| matches!(record.event, Event::Ended(molt_ipc_shm::Outcome::Ok, _)));
        let mut at: Vec<u64> = ends.map(|record| record.at_ns).collect();
        at.sort_unstable();
        let longest = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let stall = if disturbed { &mut self.stall_with_restarts_ns } else { &mut self.stall_ns };
        *stall = longest.max(*stall);
    }

    /// What took longer than it may. A killed client is noticed by its pidfd, not by the look every 100 ms: half of them
    /// within that time, also on a machine that does other things.
    pub fn judge(&mut self) {
        let half = self.reclaimed.quantile_ms(0.5);
        if self.reclaimed.count() >= ENOUGH && half > RECLAIMED_MS {
            let text = format!(
                "a killed client's session is free within p50 {half:.1} ms, at most {RECLAIMED_MS} are allowed"
            );
            self.violations.push(text);
        }
        for (stall, most, when) in [
            (self.stall_ns, STALL_MOST, "only clients were killed"),
            (self.stall_with_restarts_ns, STALL_WITH_RESTARTS_MOST, "workers were killed too"),
        ] {
            let stall = Duration::from_nanos(stall);
            if stall > most {
                self.violations
                    .push(format!("a bystander was not served for {stall:.1?} while {when}, at most {most:?}"));
            }
        }
    }

    /// The live line.
    pub fn short(&self) -> String {
        format!(
            "clients {}+{} workers {}+{} stops {} requests {} violations {}",
            self.killed_clients,
            self.trapped_clients,
            self.killed_workers,
            self.trapped_workers,
            self.stopped_clients + self.stopped_workers,
            self.tally.requests,
            self.violations.len()
        )
    }

    /// The summary.
    pub fn print(&self) {
        line("kills", format_args!("{}", self.kills()));
        line(
            "  clients",
            format_args!("{} at a random moment, {} at a failpoint", self.killed_clients, self.trapped_clients),
        );
        line(
            "  workers",
            format_args!("{} at a random moment, {} at a failpoint", self.killed_workers, self.trapped_workers),
        );
        line(
            "stops",
            format_args!("{} of clients, {} of workers, each continued", self.stopped_clients, self.stopped_workers),
        );
        line("requests", format_args!("{}: {}", self.tally.requests, self.tally.outcomes()));
        line(
            "",
            format_args!(
                "{} sent twice, {} of killed clients without an end, {} runs",
                self.tally.again, self.tally.unfinished, self.tally.runs
            ),
        );
        line("reclaimed", format_args!("a killed client's session within {}", self.reclaimed));
        let ms = |ns: u64| ns as f64 / 1e6;
        line(
            "longest stall",
            format_args!(
                "of a bystander: {:.1} ms while clients were killed, {:.1} ms while workers were too",
                ms(self.stall_ns),
                ms(self.stall_with_restarts_ns)
            ),
        );
        line("baseline", format_args!("{} rounds, all given back within {}", self.rounds, self.baseline));
        line("violations", format_args!("{}", self.violations.len()));
        self.violations.iter().take(40).for_each(|violation| println!("  {violation}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(totals: Totals) -> Vec<String> {
        let mut totals = totals;
        totals.judge();
        totals.violations
    }

    #[test]
    fn what_takes_longer_than_it_may_is_a_violation() {
        let mut slow = Totals::default();
        (0..20).for_each(|_| slow.reclaimed.add(Duration::from_millis(101)));
        assert!(judged(slow.clone()).iter().any(|what| what.contains("p50 101")), "{:?}", judged(slow));
        let stalled = Totals { stall_ns: 2_100_000_000, ..Totals::default() };
        assert!(judged(stalled)[0].contains("only clients were killed"));
        let stalled = Totals { stall_with_restarts_ns: 16_000_000_000, ..Totals::default() };
        assert!(judged(stalled)[0].contains("workers were killed too"));
    }

    #[test]
    fn one_slow_death_among_many_is_none() {
        let mut fine = Totals { stall_ns: 1_000_000_000, stall_with_restarts_ns: 9_000_000_000, ..Totals::default() };
        (0..20).for_each(|_| fine.reclaimed.add(Duration::from_millis(2)));
        fine.reclaimed.add(Duration::from_secs(3));
        assert_eq!(judged(fine), [] as [&str; 0]);
    }
}
