//! Tables that a former worker had and this one has not: listed, each with the reason, until somebody puts it again or drops
//! it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::catalog::Listed;

/// One of them.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Its last version.
    pub number: u64,
    pub rows: usize,
    /// The file that it was loaded from.
    pub source: Option<PathBuf>,
    /// It lay in the arena.
    pub resident: bool,
    /// When it was lost.
    pub since: Instant,
    /// In words, with what to do.
    pub why: String,
}

impl Lost {
    /// What a former worker lists as lost.
    pub fn of(listed: &Listed) -> Option<Self> {
        let now = Instant::now();
        let ago = Duration::try_from_secs_f64(listed.age_s).unwrap_or_default();
        Some(Self {
            number: listed.version,
            rows: listed.rows,
            source: listed.source.clone(),
            resident: listed.resident,
            since: now.checked_sub(ago).unwrap_or(now),
            why: listed.lost.clone()?,
        })
    }
}

/// All of them, by name.
#[derive(Debug, Default)]
pub struct LostTables(Mutex<BTreeMap<String, Lost>>);

impl LostTables {
    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Lost>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// One more.
    pub fn add(&self, name: &str, lost: Lost) {
        self.names().insert(name.to_owned(), lost);
    }

    /// It is there again, or nobody wants it any more.
    pub fn remove(&self, name: &str) {
        self.names().remove(name);
    }

    /// Why a table of that name is not here.
    pub fn why(&self, name: &str) -> Option<String> {
        self.names().get(name).map(|lost| lost.why.clone())
    }

    /// As lists show them.
    pub fn list(&self) -> Vec<Listed> {
        let listed = |(name, lost): (&String, &Lost)| Listed {
            name: name.clone(),
            version: lost.number,
            rows: lost.rows,
            bytes: 0,
            schema: Vec::new(),
            readers: Vec::new(),
            source: lost.source.clone(),
            retired: false,
            age_s: lost.since.elapsed().as_secs_f64(),
            resident: lost.resident,
            lost: Some(lost.why.clone()),
        };
        self.names().iter().map(listed).collect()
    }
}
