//! More than memory: what can spill does and is right, what cannot is an error with numbers, and no file stays.

use std::path::PathBuf;

use crate::sql::run::AnswerLimits;

use super::*;

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("molt-spilled-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Files in it and below.
    fn files(&self) -> usize {
        let (mut count, mut folders) = (0, vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { count += 1 }
            }
        }
        count
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One thread: what is refused and what spills is the same each time.
fn small(spill: Option<Spill>) -> SqlEngine {
    let answer = AnswerLimits { rows: 10_000_000, bytes: 256 << 20 };
    SqlEngine::new(SqlLimits { threads: 1, memory_bytes: 16 << 20, answer, spill }).unwrap()
}

/// A million rows in no order: 24 MB, half as much again as the memory.
fn million() -> InputTable {
    let shuffled = || (0..1_000_000_i64).map(|n| (n * 7_919) % 1_000_003);
    table("t", vec![("a", ints(shuffled())), ("b", ints(shuffled().map(|n| n % 1_000))), ("c", ints(0..1_000_000))])
}

#[test]
fn sorts_and_groups_larger_than_memory_spill_and_are_right() {
    let folder = Folder::new("right");
    let spill = Spill { folder: folder.0.clone(), bytes: 1 << 30 };
    let (spilling, without) = (small(Some(spill)), small(None));
    let table = million();
    for sql in ["select a, b, c from t order by a", "select a, count(*) as n, sum(c) as s from t group by a order by a"]
    {
        let ask = |engine: &SqlEngine| engine.query(sql, vec![table.clone()], &Map::new(), &RunContext::default());
        let failure = ask(&without).unwrap_err();
        assert!(
            failure.message.contains("memory for SQL is used up"),
            "it needs more than there is: {}",
            failure.message
        );
        let answer = ask(&spilling).unwrap();
        assert_eq!(answer.rows(), 1_000_000);
        let mut last = -1;
        for batch in &answer.batches {
            for value in batch.column(0).as_primitive::<Int64Type>().values() {
                assert!(*value > last, "{value} after {last}");
                last = *value;
            }
        }
        assert_eq!(folder.files(), 0, "nothing stays");
        assert_eq!(spilling.reserved(), 0);
    }
}

#[test]
fn where_spilling_cannot_help_the_error_has_the_numbers_and_the_next_run_works() {
    let folder = Folder::new("error");
    let ask = |engine: &SqlEngine, sql: &str| engine.query(sql, vec![million()], &Map::new(), &RunContext::default());
    // Little disk space.
    let tight = small(Some(Spill { folder: folder.0.clone(), bytes: 1 << 20 }));
    let failure = ask(&tight, "select a, b, c from t order by a").unwrap_err();
    assert_eq!(failure.outcome, Outcome::Internal);
    assert_eq!(failure.details, Some(json!({"limit": "spill"})));
    for part in ["limit of 1024.0 KB", "--spill", "hint:"] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
    // A hash table of a join does not spill.
    let roomy = small(Some(Spill { folder: folder.0.clone(), bytes: 1 << 30 }));
    let failure = ask(&roomy, "select count(*) from t x join t y on x.a = y.a and x.c = y.c").unwrap_err();
    assert_eq!(failure.details, Some(json!({"limit": "memory", "most": (16 << 20) / 10 * 9})));
    for part in ["memory for SQL is used up", "bytes and asks for", "--sql-memory"] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
    for engine in [&tight, &roomy] {
        assert_eq!(rows(&ask(engine, "select count(*) as n from t").unwrap()), json!([{"n": 1_000_000}]));
        assert_eq!(engine.reserved(), 0);
    }
    assert_eq!(folder.files(), 0);
}

#[test]
fn an_entrys_own_memory_spills_too() {
    let folder = Folder::new("entry");
    let spill = Spill { folder: folder.0.clone(), bytes: 1 << 30 };
    let engine = SqlEngine::new(SqlLimits { threads: 1, spill: Some(spill), ..SqlLimits::default() }).unwrap();
    let limits = EntryLimits { rows: None, memory: Some(10 << 20) };
    let sorted = SqlSpec { limits, ..spec("e", "select a from t where a >= 100000 order by a", &["t"], &[]) };
    let answer = engine.prepare(sorted).unwrap().run(vec![million()], &Map::new(), &RunContext::default()).unwrap();
    assert_eq!(answer.rows(), (0..1_000_000_i64).filter(|n| (n * 7_919) % 1_000_003 >= 100_000).count());
    assert_eq!((folder.files(), engine.reserved()), (0, 0));
}
