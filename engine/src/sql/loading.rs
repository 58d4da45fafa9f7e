//! Files that are being read into tables: how far each is, for whoever waits for it and for the log.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::info;

use super::stop::{RunContext, Stopped};

/// A load that takes longer than this says so in the log, and how far it is, as often as this.
const SAID_EVERY: Duration = Duration::from_secs(2);

/// One file, or folder of files, on its way into a table.
#[derive(Debug)]
pub struct Loading {
    table: String,
    path: PathBuf,
    /// What its caller knows it by.
    ticket: String,
    began: Instant,
    said: Mutex<Instant>,
    rows: AtomicU64,
    bytes: AtomicU64,
    total: AtomicU64,
    placing: AtomicBool,
    context: RunContext,
}

/// A load as `molt.loads` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub table: String,
    pub path: PathBuf,
    pub ticket: String,
    /// reading, then placing (in shared memory).
    pub state: &'static str,
    /// Rows read.
    pub rows: u64,
    /// Bytes of the files that are read; of Parquet in proportion to its rows.
    pub bytes: u64,
    /// Bytes of the files.
    pub total_bytes: u64,
    pub elapsed_ms: u64,
}

impl Loading {
    /// A load that begins, and ends when `context` says so.
    pub fn new(table: &str, path: &Path, ticket: &str, context: RunContext) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            table: table.to_owned(),
            path: path.to_owned(),
            ticket: ticket.to_owned(),
            began: now,
            said: Mutex::new(now),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            total: AtomicU64::new(0),
            placing: AtomicBool::new(false),
            context,
        })
    }

    /// How much there is to read.
    pub fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// More rows were read; `bytes` of the files are behind them in all.
    pub fn read(&self, rows: usize, bytes: u64) -> Result<(), Stopped> {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        let mut said = self.said.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if said.elapsed() >= SAID_EVERY {
            *said = Instant::now();
            let now = self.progress();
            info!(table = now.table, rows = now.rows, bytes = now.bytes, of = now.total_bytes, "table is being read");
        }
        drop(said);
        self.context.stopped().map_or(Ok(()), Err)
    }

    /// All rows are read, and are put where every process sees them.
    pub fn place(&self) {
        self.placing.store(true, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            table: self.table.clone(),
            path: self.path.clone(),
            ticket: self.ticket.clone(),
            state: if self.placing.load(Ordering::Relaxed) { "placing" } else { "reading" },
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            total_bytes: self.total.load(Ordering::Relaxed),
            elapsed_ms: self.began.elapsed().as_millis() as u64,
        }
    }
}

/// The loads that are under way.
#[derive(Debug, Default)]
pub struct Loads(Mutex<Vec<Weak<Loading>>>);

impl Loads {
    /// Lists it for as long as it lives.
    pub fn add(&self, loading: &Arc<Loading>) {
        let mut loads = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        loads.retain(|load| load.strong_count() > 0);
        loads.push(Arc::downgrade(loading));
    }

    /// How far each is.
    pub fn list(&self) -> Vec<Progress> {
        let loads = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        loads.iter().filter_map(Weak::upgrade).map(|loading| loading.progress()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelToken;

    #[test]
    fn a_load_is_listed_while_it_lives_and_says_how_far_it_is() {
        let loads = Loads::default();
        let loading = Loading::new("t", Path::new("t.csv"), "7", RunContext::default());
        loads.add(&loading);
        loading.expect(100);
        loading.read(3, 40).unwrap();
        loading.read(2, 60).unwrap();
        let now = &loads.list()[0];
        assert_eq!((now.table.as_str(), now.ticket.as_str(), now.state), ("t", "7", "reading"));
        assert_eq!((now.rows, now.bytes, now.total_bytes), (5, 60, 100));
        loading.place();
        assert_eq!(loads.list()[0].state, "placing");
        drop(loading);
        assert!(loads.list().is_empty());
    }

    #[test]
    fn a_load_that_nobody_wants_any_more_ends() {
        let cancel = CancelToken::new();
        let context = RunContext { cancel: cancel.clone(), ..RunContext::default() };
        let loading = Loading::new("t", Path::new("t.csv"), "", context);
        loading.read(1, 1).unwrap();
        cancel.cancel();
        assert_eq!(loading.read(1, 2), Err(Stopped::Cancelled));
    }
}
