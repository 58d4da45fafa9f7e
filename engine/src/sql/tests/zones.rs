//! Resident tables large enough for zone maps: answers are those of the whole table, whichever version of it is asked.

use super::*;

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
