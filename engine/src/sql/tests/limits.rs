//! What an entry may use, what it may answer, and where an error says that it is.

use super::*;

fn limited(sql: &str, limits: EntryLimits) -> SqlSpec {
    SqlSpec { limits, ..spec("e", sql, &["t"], &[]) }
}

#[test]
fn an_entrys_own_limits_are_errors_with_numbers_and_leave_the_others_alone() {
    let engine = engine();
    let run = |entry: &SqlEntry| entry.run(vec![many()], &Map::new(), &RunContext::default());
    let rows_limit =
        engine.prepare(limited("select a from t", EntryLimits { rows: Some(199_999), memory: None })).unwrap();
    let failure = run(&rows_limit).unwrap_err();
    assert_eq!(failure.outcome, Outcome::Internal);
    assert_eq!(failure.details, Some(json!({"limit": "rows", "most": 199_999})));
    assert!(failure.message.starts_with("entry \"e\": the answer has more than 199999 rows"), "{}", failure.message);

    let grouped = "select a, count(*) as n, sum(b) as s from t group by a order by s desc limit 3";
    let memory = |most| limited(grouped, EntryLimits { rows: None, memory: Some(most) });
    let tight = engine.prepare(memory(1 << 20)).unwrap();
    for _ in 0..3 {
        let failure = run(&tight).unwrap_err();
        assert_eq!(failure.outcome, Outcome::Internal);
        let details = failure.details.unwrap();
        assert_eq!((&details["limit"], &details["most"]), (&json!("memory"), &json!(1 << 20)));
        assert!(details["asked"].as_u64().unwrap() > 0, "{details}");
        for part in ["entry \"e\": ", "1048576 bytes", "max_memory", "hint:"] {
            assert!(failure.message.contains(part), "{part:?} is not in {:?}", failure.message);
        }
    }
    let roomy = engine.prepare(memory(64 << 20)).unwrap();
    let free = engine.prepare(limited(grouped, EntryLimits::default())).unwrap();
    let expected = json!([{"a": 199_999, "n": 1, "s": 199_999}, {"a": 199_998, "n": 1, "s": 199_998}, {"a": 199_997, "n": 1, "s": 199_997}]);
    for entry in [&roomy, &free, &roomy] {
        assert_eq!(rows(&run(entry).unwrap()), expected);
    }
    assert_eq!(engine.reserved(), 0, "what runs had taken they have given back, the refused ones too");
}

#[test]
fn every_error_of_a_statement_names_entry_place_and_what_there_was() {
    let engine = engine();
    let tables = || vec![table("orders", vec![("region", words(["north"])), ("amount", floats([1.5]))])];
    let mut wrong = Vec::new();
    for (sql, parts) in [
        (
            "select region,\n  amuont from orders",
            &["no column \"amuont\" at line 2, column 3", "\"region\", \"amount\""][..],
        ),
        ("select orders.amuont from orders", &["at line 1, column 8", "\"amount\""]),
        (
            "select a.region from orders a join orders b on true where region = 'x'",
            &["\"region\"", "line 1, column 59"],
        ),
        (
            "select a.region\nfrom orders a join orders b using (amount) order by\nb.nothing",
            &["\"nothing\" at line 3, column 3"],
        ),
        ("select sum(amount) from orders group by regin", &["\"regin\" at line 1, column 41", "\"region\""]),
        ("select frobnicate(amount) from orders", &["frobnicate", "line 1, column 8"]),
        ("select region, sum(amount) from orders", &["line 1, column 8", "region"]),
        ("select sum(region) from orders", &["line 1, column 8"]),
        ("select region + amount from orders where region > 1 and amount", &["line 1, column"]),
        ("select region from orders\nwhere region = 1 +", &["found: EOF, the end of the statement"]),
    ] {
        let text = match engine.prepare(spec("e", sql, &["orders"], &[])) {
            Ok(entry) => entry.run(tables(), &Map::new(), &RunContext::default()).unwrap_err().message,
            Err(text) => format!("entry \"e\": {text}"), // the manifest's reader says the name
        };
        wrong.extend(
            parts
                .iter()
                .chain(&["entry \"e\": "])
                .filter(|part| !text.contains(**part))
                .map(|part| format!("{sql}\n{part:?} is not in\n{text}\n")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
    let error =
        engine.prepare(spec("e", "select 1\nfrom orders join rates using (region)", &["orders"], &[])).unwrap_err();
    assert!(error.starts_with("no table \"rates\" at line 2, column 18"), "{error}");
}

#[test]
fn nothing_is_a_body_for_a_statement_that_needs_none() {
    let engine = engine();
    let zones = table("zones", vec![("name", words(["north", "east"]))]);
    engine.put_table("zones", zones.schema, zones.batches).unwrap();
    let entry = engine.prepare(spec("e", "select count(*) as n from zones", &[], &[])).unwrap();
    for (format, body) in [(rows::RowFormat::Json, &b"null"[..]), (rows::RowFormat::MsgPack, &[0xc0])] {
        let decoded = rows::decode(&entry, format, body).unwrap();
        let answer = entry.run(decoded.tables, &decoded.params, &RunContext::default()).unwrap();
        assert_eq!(rows(&answer), json!([{"n": 2}]));
    }
    let needs = engine.prepare(spec("e", "select count(*) as n from t", &["t"], &[])).unwrap();
    let decoded = rows::decode(&needs, rows::RowFormat::Json, b"null").unwrap();
    let failure = needs.run(decoded.tables, &decoded.params, &RunContext::default()).unwrap_err();
    assert!(failure.message.contains("input \"t\" is missing"), "{}", failure.message);
}
