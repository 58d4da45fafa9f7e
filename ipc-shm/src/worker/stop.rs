//! Telling a worker to stop.

use std::sync::atomic::{AtomicU32, Ordering};

/// Tells a worker to stop.
#[derive(Debug, Default)]
pub struct Stop {
    level: AtomicU32,
}

impl Stop {
    /// Finish what runs, refuse the rest.
    pub fn want(&self) {
        self.level.fetch_max(1, Ordering::AcqRel);
    }

    /// Do not wait for what runs.
    pub fn at_once(&self) {
        self.level.fetch_max(2, Ordering::AcqRel);
    }

    /// Whether to stop.
    pub fn is_wanted(&self) -> bool {
        self.level.load(Ordering::Acquire) >= 1
    }

    /// Whether not even to wait.
    pub fn is_at_once(&self) -> bool {
        self.level.load(Ordering::Acquire) >= 2
    }
}
