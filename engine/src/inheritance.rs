//! Tables of the worker that died before this one. Their rows went with it; its segment still tells which there were, and
//! from which files. Those are loaded again before this worker serves; of the others it is said that they are lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use molt_ipc_shm::catalogue::{Catalogue, Listing};
use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::worker::Host;
use molt_ipc_shm::{Address, SegmentError};
use tracing::{info, warn};

use crate::sql::{Catalog, Lost};

/// Any client can have written what stands there: no figure of it is believed beyond this.
const MOST: u64 = 1 << 50;

/// What a dead worker has left word of.
#[derive(Debug)]
pub struct Inheritance {
    pid: u32,
    catalogue: Catalogue,
}

impl Inheritance {
    /// What the dead worker there has left word of. `None`: there is none, it lives, or it left in good order.
    pub fn find(address: &Address) -> Option<Self> {
        let segment = match address.left_behind() {
            Ok(segment) => segment?,
            Err(error @ (SegmentError::Version { .. } | SegmentError::Build { .. } | SegmentError::Damaged { .. })) => {
                warn!(%error, "which tables the former worker had cannot be told");
                return None;
            }
            Err(_) => return None, // the start itself says what is wrong with that name
        };
        let pid = segment.header.worker_pid;
        let catalogue = Catalogue::read(&segment.map, &segment.geometry);
        if catalogue.is_none() {
            warn!(pid, "which tables the former worker had cannot be told: its catalogue is damaged");
        }
        Some(Self { pid, catalogue: catalogue? })
    }

    /// The number of the last version that was published there.
    pub fn last(&self) -> u64 {
        self.catalogue.last.min(MOST)
    }

    /// Bytes of the arena that its files will need.
    pub fn bytes(&self) -> u64 {
        let from_files = self.catalogue.tables.iter().filter(|table| table.source.is_some() && table.resident);
        from_files.map(|table| table.bytes).fold(0, u64::saturating_add).min(MOST)
    }

    /// Loads its files, and says what is lost. What the manifest names is there already.
    pub fn restore(self, host: &Host, catalog: &Catalog) {
        if self.catalogue.unlisted > 0 {
            warn!(
                pid = self.pid,
                unlisted = self.catalogue.unlisted,
                "the former worker had more tables than it could list"
            );
        }
        for table in &self.catalogue.tables {
            if let Some(own) = catalog.version(&table.name) {
                let same = own.source.as_deref() == table.source.as_deref().map(Path::new);
                if !same && table.lost.is_none() {
                    warn!(
                        table = table.name,
                        from = table.source.as_deref().unwrap_or("a client"),
                        "the manifest's file is here again; what the former worker had in its place is not"
                    );
                }
                continue;
            }
            self.restore_one(table, host, catalog);
        }
    }

    fn restore_one(&self, table: &Listing, host: &Host, catalog: &Catalog) {
        let pid = self.pid;
        let (why, since_ns) = match (&table.source, &table.lost) {
            (Some(path), _) => match load(table, Path::new(path), host, catalog) {
                Ok(rows) => {
                    info!(table = table.name, rows, path, "table of the former worker is loaded again");
                    return;
                }
                Err(what) => {
                    (format!("the worker (pid {pid}) died, and its file cannot be loaded again: {what}"), None)
                }
            },
            // Nobody has put it again since.
            (None, Some(why)) => (why.clone(), Some(table.since_ns)),
            (None, None) => (format!("a client had put it, and the worker (pid {pid}) died"), None),
        };
        warn!(table = table.name, "table is lost: {why}");
        let ago = Duration::from_nanos(since_ns.map_or(0, |since| now_ns().saturating_sub(since)));
        let now = Instant::now();
        let lost = Lost {
            number: table.version,
            rows: usize::try_from(table.rows).unwrap_or(usize::MAX),
            source: table.source.as_ref().map(PathBuf::from),
            resident: table.resident,
            since: now.checked_sub(ago).unwrap_or(now),
            why,
        };
        catalog.lose(&table.name, lost);
    }
}

/// Its rows. A file that makes its decoder panic must not keep the worker from starting.
fn load(table: &Listing, path: &Path, host: &Host, catalog: &Catalog) -> Result<usize, String> {
    let loaded = catch_unwind(AssertUnwindSafe(|| catalog.load_again(host, &table.name, path, table.resident)));
    let version = loaded.map_err(|_| format!("table \"{}\": {} cannot be decoded", table.name, path.display()))??;
    Ok(version.data.rows)
}
