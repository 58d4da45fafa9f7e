//! Resident tables large enough for zone maps: answers are those of the whole table, whichever version of it is asked.

use std::fs::File;

use arrow_array::TimestampMicrosecondArray;
use datafusion::common::DFSchema;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::SessionContext;

use super::*;
use crate::sql::scan::TableData;

/// `n` from `start` on in three batches, and a column of it that is in no order.
fn numbers(engine: &SqlEngine, start: i64) {
    let rows = 100_000;
    let part = |from: i64, to: i64| {
        let odd = (from..to).map(|n| if n % 1_000 == 7 { f64::NAN } else { (n * 7_919 % 100_003) as f64 });
        RecordBatch::try_from_iter([("n", ints(from..to)), ("odd", floats(odd))]).unwrap()
    };
    let batches =
        vec![part(start, start + 30_000), part(start + 30_000, start + 30_001), part(start + 30_001, start + rows)];
    engine.put_table("numbers", batches[0].schema(), batches).unwrap();
}

#[test]
fn a_kept_plan_reads_what_it_must_of_each_version() {
    let engine = engine();
    numbers(&engine, 0);
    assert!(engine.catalog().get("numbers").unwrap().zones.is_some());
    let sql = "select count(*) as rows, min(n) as low, max(n) as high from numbers where n between $from and $to";
    let types = [("from", ParamType::Int64), ("to", ParamType::Int64)];
    let entry = engine.prepare(spec("span", sql, &[], &types)).unwrap();
    let ask = |from: i64, to: i64| {
        let answer = entry.run(Vec::new(), &params(json!({"from": from, "to": to})), &RunContext::default()).unwrap();
        rows(&answer)[0].clone()
    };
    for start in [0, 50_000, 1_000_000, 40] {
        numbers(&engine, start);
        for (from, to) in
            [(0, 99_999), (16_383, 16_384), (29_999, 30_001), (99_990, 100_050), (7, 3), (1_050_000, 1_050_010)]
        {
            let (low, high) = (from.max(start), to.min(start + 99_999));
            let expected = match high - low + 1 {
                ..1 => json!({"rows": 0, "low": null, "high": null}),
                rows => json!({"rows": rows, "low": low, "high": high}),
            };
            assert_eq!(ask(from, to), expected, "{from} to {to} of {start} on");
        }
    }
    let runs = engine.planner_runs();
    ask(1, 2);
    assert_eq!(engine.planner_runs(), runs, "the plan serves every version");
}

#[test]
fn a_condition_keeps_the_rows_that_it_keeps_without_zones() {
    let engine = engine();
    numbers(&engine, 0);
    let ask = |condition: &str| {
        let sql = format!("select count(*) as rows, sum(n) as n from numbers where {condition}");
        rows(&engine.query(&sql, Vec::new(), &Map::new(), &RunContext::default()).unwrap())
    };
    // What a function hides from the zone maps is filtered row by row.
    for (condition, hidden) in [
        ("n >= 99000", "abs(n) >= 99000"),
        ("n < 20 or n > 99990", "abs(n) < 20 or abs(n) > 99990"),
        ("n in (5, 50000, 500000)", "abs(n) in (5, 50000, 500000)"),
        ("odd > 100002", "abs(odd) > 100002"), // NaN is above every number
        ("isnan(odd) and n > 50000", "isnan(abs(odd)) and abs(n) > 50000"),
        ("n is null", "abs(n) is null"),
        ("not (n < 99998)", "not (abs(n) < 99998)"),
        ("n > (select avg(n) from numbers)", "abs(n) > (select avg(n) from numbers)"),
    ] {
        let (seen, expected) = (ask(condition), ask(hidden));
        assert_eq!(seen, expected, "{condition}");
    }
    assert_eq!(ask("odd > 100002")[0]["rows"], json!(100), "one in a thousand is NaN");
}

#[test]
fn the_least_and_the_greatest_stay_what_they_are_once_they_are_known() {
    let engine = engine();
    numbers(&engine, -5);
    let ask = |sql: &str| rows(&engine.query(sql, Vec::new(), &Map::new(), &RunContext::default()).unwrap())[0].clone();
    let sql = "select min(n) as low, max(n) as high, count(*) as rows, min(odd) as least from numbers";
    let scanned = ask(sql);
    assert_eq!(scanned, json!({"low": -5, "high": 99_994, "rows": 100_000, "least": -39_595.0}));
    ask("select n from numbers where n = 70000 and odd > 5"); // looks at both columns
    let facts = engine.catalog().get("numbers").unwrap();
    assert!(facts.zones.as_ref().unwrap().extremes(0).is_some());
    assert_eq!(ask(sql), scanned);
    assert_eq!(ask(&format!("{sql} where n > 99990"))["rows"], json!(4));
    numbers(&engine, 1_000);
    assert_eq!(ask(sql)["low"], json!(1_000), "the next version has bounds of its own");
}

/// A minute to a row from 2026-01-01 on, in UTC and as the clocks of Berlin have it; and numbers of which one is 0.
fn moments() -> RecordBatch {
    let start = 1_767_225_600_000_000;
    let minutes = || TimestampMicrosecondArray::from_iter_values((0..150_000).map(|row| start + row * 60_000_000));
    RecordBatch::try_from_iter([
        ("moment", Arc::new(minutes()) as ArrayRef),
        ("here", Arc::new(minutes().with_timezone("Europe/Berlin"))),
        ("n", ints(-50_000..100_000)),
    ])
    .unwrap()
}

#[test]
fn a_cast_that_keeps_no_order_judges_nothing() {
    let engine = engine();
    let batch = moments();
    engine.put_table("moments", batch.schema(), vec![batch.clone()]).unwrap();
    let folder = std::env::temp_dir().join(format!("molt-order-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("moments.parquet");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_000)).build();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    engine.attach_table("files", &path).unwrap();
    for (condition, hidden) in [
        ("moment::time >= time '18:00'", "date_part('hour', moment) >= 18"),
        ("moment::time < time '00:01'", "date_part('hour', moment) * 60 + date_part('minute', moment) = 0"),
        ("here::time >= time '23:00'", "date_part('hour', here) = 23"),
        ("cast(n as boolean) = false", "abs(n) = 0"),
        ("not cast(n as boolean)", "abs(n) = 0"),
        ("cast(n as boolean) <> true", "abs(n) = 0"),
        ("cast(n as boolean) = false and n >= 0", "abs(n) = 0"),
        ("moment::date = date '2026-02-01'", "date_trunc('day', moment) = '2026-02-01'"),
        ("n::double >= 99990.5", "abs(n) >= 99990.5"),
    ] {
        let ask = |table: &str, condition: &str| {
            let sql = format!("select count(*) as rows, sum(n) as n from {table} where {condition}");
            rows(&engine.query(&sql, Vec::new(), &Map::new(), &RunContext::default()).unwrap())[0].clone()
        };
        let expected = ask("moments", hidden);
        assert_ne!(expected["rows"], json!(0), "{hidden}");
        assert_eq!(ask("moments", condition), expected, "{condition}");
        assert_eq!(ask("files", condition), expected, "{condition} on disk");
    }
    let flag = [("flag", ParamType::Bool)];
    let sql = "select count(*) as rows from moments where cast(n as boolean) = $flag";
    let entry = engine.prepare(spec("flags", sql, &[], &flag)).unwrap();
    for (value, count) in [(false, 1), (true, 149_999)] {
        let answer = entry.run(Vec::new(), &params(json!({"flag": value})), &RunContext::default()).unwrap();
        assert_eq!(rows(&answer), json!([{"rows": count}]));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_condition_that_rises_with_its_column_still_passes_over_stretches() {
    let batch = moments();
    let data = TableData::new(batch.schema(), vec![batch]).unwrap().with_zones();
    let zones = data.zones.unwrap();
    let columns = DFSchema::try_from(Arc::clone(&data.schema)).unwrap();
    let context = SessionContext::new();
    for (condition, passes) in [
        ("n > 90000", true),
        ("cast(n as double) > 90000.5", true),
        ("moment::date = date '2026-02-01'", true),
        ("moment > timestamp '2026-04-01T00:00:00Z'", true),
        ("here > timestamp '2026-04-01T00:00:00+02:00'", true),
        ("moment::time >= time '18:00' and n > 90000", true),
        ("moment::time >= time '18:00'", false),
        ("cast(n as boolean) = false", false),
    ] {
        let plan = context.parse_sql_expr(condition, &columns).unwrap();
        let plan = context.create_physical_expr(plan, &columns).unwrap();
        let kept = zones.kept(&plan, &|| Ok(())).unwrap();
        let kept = kept.map_or(150_000, |kept| kept.iter().map(|stretch| stretch.rows).sum());
        assert_eq!(kept < 150_000, passes, "{condition}: {kept} rows are read");
    }
}
