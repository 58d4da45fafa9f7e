//! Tables that stay on disk: the same answers as from memory, no more read than is asked for.

use std::fs::File;
use std::path::PathBuf;

use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;

use super::*;

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("molt-disk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A Parquet file of orders with ids from `first`, in row groups of 1,000.
    fn orders(&self, name: &str, first: i64, rows: i64) -> RecordBatch {
        let ids = first..first + rows;
        let batch = RecordBatch::try_from_iter([
            ("id", ints(ids.clone())),
            ("region", words(ids.clone().map(|id| REGIONS[(id % 4) as usize]))),
            ("amount", floats(ids.map(|id| (id % 1_000) as f64))),
        ])
        .unwrap();
        self.write(name, &batch);
        batch
    }

    fn write(&self, name: &str, batch: &RecordBatch) {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_000)).build();
        let file = File::create(self.0.join(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_folder_on_disk_answers_like_the_same_table_in_memory() {
    let folder = Folder::new("same");
    let engine = engine();
    let batches = vec![
        folder.orders("a.parquet", 0, 70_000),
        folder.orders("b.parquet", 70_000, 33_000),
        folder.orders("c.parquet", 103_000, 0),
    ];
    engine.put_table("memory", batches[0].schema(), batches).unwrap();
    let attached = engine.attach_table("disk", &folder.0).unwrap();
    assert_eq!((attached.data.rows, attached.data.batches.len()), (103_000, 0));
    let small = || table("zones", vec![("name", words(["north", "east"])), ("zone", words(["N", "E"]))]);
    for sql in [
        "select count(*) as n, sum(amount) as s, min(id) as lo, max(id) as hi from T",
        "select count(*) as n from T where id >= 99990 and region = 'north'",
        "select region, count(*) as n, sum(amount) as s from T where amount > 500 group by region order by region",
        "select amount, id from T where id in (5, 70000, 102999) order by id desc",
        "select zone, sum(amount) as s from T join zones on region = name group by zone order by zone",
        "select id, sum(amount) over (order by id) as s from T where id < 20 order by id",
        "select a.id from T a join T b on a.id = b.id + 1 where b.id between 102995 and 102999 order by 1",
        "select count(*) as n from T where amount > (select avg(amount) from T)",
        "select id from T where id > 102000 order by id desc limit 3",
        "select region from T where false",
        "select m.id from memory m join T on m.id = T.id where m.id % 10007 = 0 order by 1",
        "select region, region as again, amount, id, region || 'x' as r from T where id = 70001",
    ] {
        let ask = |name: &str| {
            let tables = if sql.contains("zones") { vec![small()] } else { vec![] };
            rows(&engine.query(&sql.replace('T', name), tables, &Map::new(), &RunContext::default()).unwrap())
        };
        assert_eq!(ask("disk"), ask("memory"), "{sql}");
    }
}

#[test]
fn an_entry_with_parameters_reads_the_row_groups_that_may_have_rows() {
    let folder = Folder::new("pruned");
    let engine = engine();
    folder.orders("a.parquet", 0, 10_000);
    folder.orders("b.parquet", 10_000, 10_000);
    engine.attach_table("orders", &folder.0).unwrap();
    let entry = engine
        .prepare(spec(
            "e",
            "select count(*) as n, sum(id) as s from orders where id >= $min",
            &[],
            &[("min", ParamType::Int64)],
        ))
        .unwrap();
    let run = |min: i64| entry.run(vec![], &params(json!({"min": min})), &RunContext::default());
    for min in [0, 19_999, 5_000, 20_000] {
        let (n, sum) = (20_000 - min, (min..20_000).sum::<i64>());
        let sum = if n == 0 { Value::Null } else { json!(sum) };
        assert_eq!(rows(&run(min).unwrap()), json!([{"n": n, "s": sum}]), "{min}");
    }
    // The proof that it reads no more: the first file is not even there.
    std::fs::remove_file(folder.0.join("a.parquet")).unwrap();
    assert_eq!(rows(&run(15_000).unwrap())[0]["n"], json!(5_000));
    let failure = run(9_000).unwrap_err();
    assert_eq!(failure.outcome, Outcome::Internal);
    assert!(failure.message.contains("a.parquet") && failure.message.contains("entry \"e\""), "{}", failure.message);
    assert_eq!(rows(&run(15_000).unwrap())[0]["n"], json!(5_000), "the next one works");
}

#[test]
fn files_that_changed_or_do_not_fit_are_named() {
    let folder = Folder::new("changed");
    let engine = engine();
    folder.orders("a.parquet", 0, 3_000);
    engine.attach_table("orders", &folder.0.join("a.parquet")).unwrap();
    let ask = || engine.query("select max(id) as m from orders", vec![], &Map::new(), &RunContext::default());
    assert_eq!(rows(&ask().unwrap()), json!([{"m": 2_999}]));
    folder.orders("a.parquet", 5, 4_000);
    let failure = ask().unwrap_err();
    assert!(failure.message.contains("a.parquet: it is another file"), "{}", failure.message);
    engine.attach_table("orders", &folder.0.join("a.parquet")).unwrap();
    assert_eq!(rows(&ask().unwrap()), json!([{"m": 4_004}]));

    let other =
        RecordBatch::try_from_iter([("id", ints([1])), ("area", words(["x"])), ("amount", floats([1.0]))]).unwrap();
    folder.write("z.parquet", &other);
    let error = engine.attach_table("orders", &folder.0).unwrap_err();
    for part in ["table \"orders\"", "z.parquet", "\"area\"", "\"region\""] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    std::fs::write(folder.0.join("t.csv"), "a\n1\n").unwrap();
    assert!(engine.attach_table("t", &folder.0.join("t.csv")).unwrap_err().contains(".parquet file"));
    assert_eq!(rows(&ask().unwrap()), json!([{"m": 4_004}]), "what was there stays");
}

#[test]
fn a_scan_of_files_stops_when_it_is_told_to() {
    let folder = Folder::new("stopped");
    let engine = engine();
    folder.orders("a.parquet", 0, 200_000);
    engine.attach_table("t", &folder.0).unwrap();
    let context = RunContext { deadline: Some(Instant::now() + Duration::from_millis(200)), ..RunContext::default() };
    let sql = "select count(*) from t a, t b where a.id * b.id % 7 = 8";
    assert_eq!(engine.query(sql, vec![], &Map::new(), &context).unwrap_err().outcome, Outcome::Timeout);
}

#[test]
fn rows_without_a_number_are_found_on_disk_too() {
    let folder = Folder::new("nan");
    let engine = engine();
    // Row groups of 1,000: in the second NaN is one of the values, in the third a NaN with a sign.
    let odd = (0..4_000).map(|n| match n {
        1_007 => f64::NAN,
        2_007 => -f64::NAN,
        n => f64::from(n % 50),
    });
    let batch = RecordBatch::try_from_iter([("n", ints(0..4_000)), ("odd", floats(odd))]).unwrap();
    folder.write("odd.parquet", &batch);
    engine.put_table("memory", batch.schema(), vec![batch]).unwrap();
    engine.attach_table("disk", &folder.0).unwrap();
    for (condition, wanted) in [
        ("odd > 100", vec![1_007]),
        ("not (odd <= 100)", vec![1_007]),
        ("odd < -1", vec![2_007]),
        ("odd = 'NaN'::double", vec![1_007]),
        ("odd > 100 and n > 2000", vec![]),
        ("cast(odd as real) > 100", vec![1_007]),
    ] {
        let ask = |table: &str| {
            let sql = format!("select n from {table} where {condition} order by n");
            rows(&engine.query(&sql, Vec::new(), &Map::new(), &RunContext::default()).unwrap())
        };
        let wanted: Vec<Value> = wanted.into_iter().map(|n| json!({"n": n})).collect();
        assert_eq!(ask("memory"), json!(wanted), "{condition}");
        assert_eq!(ask("disk"), json!(wanted), "{condition} on disk");
    }
    // A row group in which all numbers are one, but for NaN.
    let same = (0..1_000).map(|n| if n == 3 { f64::NAN } else { 5.0 });
    let batch = RecordBatch::try_from_iter([("odd", floats(same))]).unwrap();
    let folder = Folder::new("same-nan");
    folder.write("same.parquet", &batch);
    engine.attach_table("same", &folder.0).unwrap();
    let answer =
        engine.query("select count(*) as n from same where odd <> 5", Vec::new(), &Map::new(), &RunContext::default());
    assert_eq!(rows(&answer.unwrap()), json!([{"n": 1}]));
}
