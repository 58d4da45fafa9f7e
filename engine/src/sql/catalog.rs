//! Tables that the worker itself holds: loaded from files or put by clients, usable by name in every statement.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard, Weak};
use std::time::{Duration, Instant};

use arrow_schema::Field;
use molt_ipc_shm::Segment;
use molt_ipc_shm::catalogue::{Catalogue, Listing};
use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::worker::{Host, Resident};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::disk::DiskTable;
use super::files::{LoadError, read_file};
use super::loading::{Loading, Loads};
use super::lost::{Lost, LostTables};
use super::scan::TableData;
use super::stop::RunContext;

/// One version of a table: immutable, and there for as long as anybody reads it.
#[derive(Debug, Clone)]
pub struct Version {
    /// Counts up with every table that is put or loaded, whatever its name.
    pub number: u64,
    pub data: Arc<TableData>,
    /// Where it lies in the arena; `None` until the worker has one, and for a table that stays on disk.
    pub resident: Option<Arc<Resident>>,
    /// The file that it was loaded from, and is again when this worker dies; `None`: a client put it, and is lost then.
    pub source: Option<PathBuf>,
    /// When its rows were published, by this worker or the one that it was taken over from.
    pub since: Instant,
}

/// A version that was replaced or dropped while somebody still read it.
#[derive(Debug)]
struct Retired {
    name: String,
    number: u64,
    rows: usize,
    since: Instant,
    resident: Weak<Resident>,
}

/// A table as `molt.tables` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    pub version: u64,
    pub rows: usize,
    /// Bytes in the arena; of a table that stays on disk, of its files.
    pub bytes: u64,
    /// Column names with their Arrow types; none for a version that is on its way out.
    pub schema: Vec<(String, String)>,
    /// Processes that have it open: pid, and the number of their views.
    pub readers: Vec<(u32, u32)>,
    pub source: Option<PathBuf>,
    /// Replaced or dropped: it goes when its last reader does.
    pub retired: bool,
    /// Why it is not here any more: a former worker had it.
    #[serde(default)]
    pub lost: Option<String>,
    /// Seconds since its rows were published; of a lost one, since it was lost. (Of a former worker that does not say: since
    /// it is here.)
    #[serde(default)]
    pub age_s: f64,
    /// It lies in the arena. Not: its files are read by each statement that names it.
    #[serde(default = "resident")]
    pub resident: bool,
}

/// A worker that does not say so knows no others.
fn resident() -> bool {
    true
}

/// Named tables. Each is immutable: replacing one leaves the old rows to the runs that began with them.
#[derive(Debug, Default)]
pub struct Catalog {
    tables: RwLock<BTreeMap<String, Version>>,
    retired: Mutex<Vec<Retired>>,
    /// Tables that a former worker had.
    lost: LostTables,
    /// Where all of this is told to tools, and to the next worker.
    told: OnceLock<Segment>,
    /// Held while it is told: whether there was once no room to tell of all tables.
    telling: Mutex<bool>,
    /// Names that the manifest declares without a file: a client puts them.
    expected: RwLock<BTreeSet<String>>,
    last: AtomicU64,
    /// Files that are on their way into tables.
    pub loads: Loads,
    /// A successor has the tables, or is about to copy the last of them: no change begins any more.
    handed_over: AtomicBool,
    /// Changes that are under way.
    changing: AtomicUsize,
}

impl Catalog {
    fn tables(&self) -> RwLockReadGuard<'_, BTreeMap<String, Version>> {
        self.tables.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The rows of the table of that name, and since when they are published.
    pub fn read(&self, name: &str) -> Option<(Arc<TableData>, Instant)> {
        self.tables().get(name).map(|version| (Arc::clone(&version.data), version.since))
    }

    /// Its rows alone.
    #[cfg(test)]
    pub fn get(&self, name: &str) -> Option<Arc<TableData>> {
        self.read(name).map(|(data, _)| data)
    }

    /// The same with what belongs to it.
    pub fn version(&self, name: &str) -> Option<Version> {
        self.tables().get(name).cloned()
    }

    /// The names of all tables, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tables().keys().cloned().collect()
    }

    /// Says that a client will put a table of that name.
    pub fn expect(&self, name: &str) {
        self.expected.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(name.to_owned());
    }

    /// Whether there is a table of that name, or a client is expected to put one.
    pub fn is_known(&self, name: &str) -> bool {
        self.tables().contains_key(name)
            || self.expected.read().unwrap_or_else(|poisoned| poisoned.into_inner()).contains(name)
    }

    /// Held while a table is put, loaded or dropped; `None`: a successor has the tables, and is the one to change them.
    pub fn changing(&self) -> Option<Changing<'_>> {
        self.changing.fetch_add(1, Ordering::SeqCst);
        let changing = Changing(self);
        // In one order with `hand_over`: it counts this change, or this change sees it.
        (!self.handed_over.load(Ordering::SeqCst)).then_some(changing)
    }

    /// Lets no more change begin. What there is then is what a successor begins with, unless changes are under way: then
    /// how many. Waits for nothing.
    pub fn hand_over(&self) -> Result<Vec<Listed>, usize> {
        self.handed_over.store(true, Ordering::SeqCst);
        match self.changing.load(Ordering::SeqCst) {
            0 => Ok(self.list()),
            under_way => Err(under_way),
        }
    }

    /// Adds a table of the former worker, with the version that it had there. Later ones get higher numbers.
    pub fn adopt(&self, listed: &Listed, data: TableData, resident: Option<Arc<Resident>>) {
        let mut tables = self.tables.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.last.fetch_max(listed.version, Ordering::Relaxed);
        let (number, source) = (listed.version, listed.source.clone());
        let now = Instant::now();
        let age = Duration::try_from_secs_f64(listed.age_s).unwrap_or_default();
        let since = now.checked_sub(age).unwrap_or(now);
        let version = Version { number, data: Arc::new(data.with_zones()), resident, source, since };
        let former = tables.insert(listed.name.clone(), version);
        drop(tables);
        former.into_iter().for_each(|version| self.retire(&listed.name, version));
        self.lost.remove(&listed.name);
        self.tell();
    }

    /// Adds or replaces a table, in one step for all who look it up. Returns its version.
    pub fn put(
        &self,
        name: &str,
        data: TableData,
        resident: Option<Arc<Resident>>,
        source: Option<PathBuf>,
    ) -> Version {
        // Numbered under the lock: who sees a higher number sees a later table.
        let mut tables = self.tables.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let data = Arc::new(data.with_zones());
        let version = Version { number, data, resident, source, since: Instant::now() };
        let former = tables.insert(name.to_owned(), version.clone());
        drop(tables);
        former.into_iter().for_each(|version| self.retire(name, version));
        self.lost.remove(name);
        self.tell();
        version
    }

    /// Numbers every version after that one: what a former worker has published came before. For a start, while nobody
    /// knows a number yet.
    pub fn number_after(&self, last: u64) {
        let mut tables = self.tables.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        tables.values_mut().for_each(|version| version.number += last);
        self.last.fetch_add(last, Ordering::Relaxed);
    }

    /// Says that a former worker had that table, and why it is not here.
    pub fn lose(&self, name: &str, lost: Lost) {
        self.lost.add(name, lost);
        self.tell();
    }

    /// Why a table of that name is not here, if a former worker had one.
    pub fn why_lost(&self, name: &str) -> Option<String> {
        self.lost.why(name)
    }

    /// From now on tells in a segment what there is.
    pub fn tell_in(&self, segment: &Segment) {
        let _ = self.told.set(segment.clone());
        self.tell();
    }

    /// Before anybody is answered: who knows that a table is there must find it after a death too.
    fn tell(&self) {
        let Some(segment) = self.told.get() else { return };
        let mut said = self.telling.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = now_ns();
        let listing = |table: Listed| Listing {
            name: table.name,
            version: table.version,
            rows: table.rows as u64,
            bytes: table.bytes,
            source: table.source.map(|path| path.to_string_lossy().into_owned()),
            resident: table.resident,
            since_ns: now.saturating_sub((table.age_s * 1e9) as u64),
            lost: table.lost,
        };
        let tables = self.list().into_iter().filter(|table| !table.retired).map(listing).collect();
        let catalogue = Catalogue { last: self.last.load(Ordering::Relaxed), tables, unlisted: 0 };
        let unlisted = catalogue.write(&segment.map, &segment.geometry);
        if unlisted > 0 && !std::mem::replace(&mut *said, true) {
            warn!(unlisted, "the segment has no room to list all tables: should the worker die, the rest is forgotten");
        }
    }

    /// Bytes of memory of all tables in use.
    pub fn bytes(&self) -> u64 {
        self.tables()
            .values()
            .filter(|version| version.data.disk.is_none())
            .map(|version| version.data.bytes() as u64)
            .sum()
    }

    /// Moves the tables that were loaded before there was an arena into it. The message of a failure names the table.
    pub fn move_into(&self, host: &Host) -> Result<(), String> {
        let loaded: Vec<(String, Version)> =
            self.tables().iter().map(|(name, version)| (name.clone(), version.clone())).collect();
        loaded.into_iter().try_for_each(|(name, version)| self.move_one(host, &name, version).map(drop))
    }

    fn move_one(&self, host: &Host, name: &str, version: Version) -> Result<Version, String> {
        if version.resident.is_some() || version.data.disk.is_some() {
            return Ok(version);
        }
        let said = |what: String| format!("table \"{name}\": {what}");
        let batches = version.data.batches.iter().cloned().map(Ok);
        let resident = host.make_resident(&version.data.schema, batches).map_err(|error| said(error.to_string()))?;
        let read = resident.read().map_err(|fault| said(fault.to_string()))?;
        let data = TableData::new(read.schema, read.batches).map_err(said)?;
        Ok(self.put(name, data, Some(resident), version.source))
    }

    /// Loads a file that a former worker had loaded: into the arena, or, `resident: false`, to be left on disk.
    pub fn load_again(&self, host: &Host, name: &str, path: &Path, resident: bool) -> Result<Version, String> {
        if !resident {
            return self.attach(name, path);
        }
        let loaded = self.load(name, path)?;
        self.move_one(host, name, loaded).inspect_err(|_| _ = self.drop_table(name))
    }

    /// Takes a table away; `false`: there was none. Who reads it reads on.
    pub fn drop_table(&self, name: &str) -> bool {
        let former = self.tables.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(name);
        let dropped = former.map(|version| self.retire(name, version)).is_some();
        self.lost.remove(name);
        self.tell();
        dropped
    }

    fn retire(&self, name: &str, version: Version) {
        let mut retired = self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        retired.retain(|old| old.resident.strong_count() > 0);
        if let Some(resident) = &version.resident {
            let resident = Arc::downgrade(resident);
            let (number, rows, since) = (version.number, version.data.rows, version.since);
            retired.push(Retired { name: name.to_owned(), number, rows, since, resident });
        }
    }

    /// Every table, by name, the version in use before those that are on their way out.
    pub fn list(&self) -> Vec<Listed> {
        let mut listed: Vec<Listed> = self.tables().iter().map(|(name, version)| version.listed(name)).collect();
        let retired = self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        listed.extend(retired.iter().filter_map(|old| {
            let resident = old.resident.upgrade()?;
            Some(Listed {
                name: old.name.clone(),
                version: old.number,
                rows: old.rows,
                bytes: resident.bytes(),
                schema: Vec::new(),
                readers: resident.readers(),
                source: None,
                retired: true,
                lost: None,
                age_s: old.since.elapsed().as_secs_f64(),
                resident: true,
            })
        }));
        drop(retired);
        listed.extend(self.lost.list());
        listed.sort_by(|one, other| {
            (&one.name, one.retired, other.version).cmp(&(&other.name, other.retired, one.version))
        });
        listed
    }

    /// Reads a file whole into a table. Its extension says what it is.
    pub fn load(&self, name: &str, path: &Path) -> Result<Version, String> {
        let loading = Loading::new(name, path, "", RunContext::default());
        self.loads.add(&loading);
        let (schema, batches) = read_file(name, path, &loading).map_err(|error| match error {
            LoadError::Unreadable(reason) => reason,
            LoadError::Stopped(stopped) => format!("table \"{name}\": {stopped}"),
        })?;
        let data = TableData::new(schema, batches).map_err(|reason| format!("table \"{name}\": {reason}"))?;
        Ok(self.put(name, data, None, Some(path.to_owned())))
    }

    /// Names Parquet files, which stay where they are.
    pub fn attach(&self, name: &str, path: &Path) -> Result<Version, String> {
        let disk = DiskTable::open(path)
            .map_err(|reason| format!("table \"{name}\": cannot use {}: {reason}", path.display()))?;
        Ok(self.put(name, TableData::on_disk(disk), None, Some(path.to_owned())))
    }
}

/// A change of the tables that is under way.
#[derive(Debug)]
pub struct Changing<'a>(&'a Catalog);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.changing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Version {
    /// The table as a list shows it.
    pub fn listed(&self, name: &str) -> Listed {
        let column = |field: &Arc<Field>| (field.name().clone(), field.data_type().to_string());
        Listed {
            name: name.to_owned(),
            version: self.number,
            rows: self.data.rows,
            bytes: match (&self.resident, &self.data.disk) {
                (Some(resident), _) => resident.bytes(),
                (None, Some(disk)) => disk.bytes,
                (None, None) => self.data.bytes() as u64,
            },
            schema: self.data.schema.fields().iter().map(column).collect(),
            readers: self.resident.as_ref().map(|resident| resident.readers()).unwrap_or_default(),
            source: self.source.clone(),
            retired: false,
            lost: None,
            age_s: self.since.elapsed().as_secs_f64(),
            resident: self.data.disk.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::path::PathBuf;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    use super::*;

    fn sample() -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let names: ArrayRef = Arc::new(StringArray::from(vec!["ann", "bob", "cyd"]));
        RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap()
    }

    /// A folder of its own per test, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("molt-catalog-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            File::create(&path).unwrap().write_all(bytes).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn every_format_gives_the_same_rows() {
        let folder = Folder::new("formats");
        let (mut arrow, mut stream, mut parquet) = (Vec::new(), Vec::new(), Vec::new());
        let batch = sample();
        let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut arrow, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut stream, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut writer = datafusion::parquet::arrow::ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let lines = b"{\"id\":1,\"name\":\"ann\"}\n{\"id\":2,\"name\":\"bob\"}\n{\"id\":3,\"name\":\"cyd\"}\n";
        let catalog = Catalog::default();
        for (file, bytes) in [
            ("t.arrow", &arrow[..]),
            ("s.feather", &stream[..]),
            ("t.parquet", &parquet[..]),
            ("t.csv", b"id,name\n1,ann\n2,bob\n3,cyd\n"),
            ("t.JSONL", lines),
        ] {
            catalog.load("t", &folder.file(file, bytes)).unwrap();
            let listed = catalog.list();
            assert!(listed.len() == 1 && listed[0].rows == 3 && listed[0].bytes > 0, "{file}");
            let data = catalog.get("t").unwrap();
            assert_eq!(data.batches.len(), 1, "{file}");
            assert_eq!(data.batches[0].columns(), batch.columns(), "{file}");
        }
        assert_eq!(catalog.names(), ["t"]);
        // A folder is its Parquet files, one after the other; hidden ones are no part of it.
        std::fs::create_dir_all(folder.0.join("parts/more")).unwrap();
        for part in ["parts/b.parquet", "parts/more/a.parquet", "parts/_notes.parquet", "parts/.c.parquet"] {
            folder.file(part, &parquet);
        }
        let loaded = catalog.load("parts", &folder.0.join("parts")).unwrap();
        assert_eq!((loaded.data.rows, loaded.data.batches.len()), (6, 2));
        let attached = catalog.attach("parts", &folder.0.join("parts")).unwrap();
        assert_eq!((attached.data.rows, attached.data.batches.len()), (6, 0));
        let listed = catalog.list();
        assert!(listed[0].name == "parts" && !listed[0].resident && listed[0].bytes == 2 * parquet.len() as u64);
        assert!(listed[1].resident);
    }

    #[test]
    fn tables_are_handed_over_once_no_change_is_under_way() {
        let catalog = Catalog::default();
        let change = catalog.changing();
        assert!(change.is_some());
        assert_eq!(catalog.hand_over().unwrap_err(), 1);
        assert!(catalog.changing().is_none(), "no change begins any more");
        catalog.put("t", TableData::new(sample().schema(), vec![sample()]).unwrap(), None, None);
        drop(change);
        assert_eq!(catalog.hand_over().unwrap()[0].name, "t", "what was under way is there");
        assert!(catalog.changing().is_none());
    }

    #[test]
    fn an_error_names_table_and_file() {
        let folder = Folder::new("errors");
        std::fs::create_dir(folder.0.join("empty")).unwrap();
        let catalog = Catalog::default();
        for (path, expected) in [
            (folder.0.join("missing.csv"), "No such file"),
            (folder.0.join("empty"), "no .parquet file"),
            (folder.file("t.xlsx", b""), "unknown extension \"xlsx\""),
            (folder.file("t.parquet", b"not parquet"), ""),
            (folder.file("t.arrow", b"not arrow at all"), ""),
            (folder.file("t.csv", b"id,name\n1\n"), ""),
        ] {
            let error = catalog.load("orders", &path).unwrap_err();
            assert!(error.starts_with("table \"orders\": cannot load "), "{error}");
            assert!(error.contains(path.to_str().unwrap()) && error.contains(expected), "{error}");
        }
        assert!(catalog.names().is_empty());
    }
}
