//! What hours of kills add up to.

use crate::journal::{Event, Record};
use crate::oracle::Tally;
use crate::summary::{Times, line};

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
