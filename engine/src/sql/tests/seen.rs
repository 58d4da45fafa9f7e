//! Rows without a declared schema: an entry means the same from one request to the next.

use super::*;

/// The answer to rows in JSON, and how many plans were made for it.
fn ask(entry: &SqlEntry, body: Value) -> Result<(Value, u32), Failure> {
    let decoded = rows::decode(entry, rows::RowFormat::Json, body.to_string().as_bytes())?;
    let answer = entry.run(decoded.tables, &decoded.params, &RunContext::default())?;
    Ok((rows(&answer), answer.plans))
}

#[test]
fn integers_become_numbers_once_and_stay_numbers() {
    let entry = engine().prepare(spec("e", "select qty / 2 as half from t", &["t"], &[])).unwrap();
    assert_eq!(ask(&entry, json!([{"qty": 7}])).unwrap(), (json!([{"half": 3}]), 1));
    assert_eq!(ask(&entry, json!([{"qty": 9}])).unwrap(), (json!([{"half": 4}]), 0));
    assert_eq!(ask(&entry, json!([{"qty": 7.5}])).unwrap(), (json!([{"half": 3.75}]), 1));
    for _ in 0..2 {
        assert_eq!(ask(&entry, json!([{"qty": 7}])).unwrap(), (json!([{"half": 3.5}]), 0));
    }
    let failure = ask(&entry, json!([{"qty": 9007199254740993_i64}])).unwrap_err();
    assert!(failure.message.contains("would lose digits"), "{}", failure.message);
}

#[test]
fn absent_keys_and_keys_that_nobody_asks_for_make_no_new_plans() {
    let sql = "select sum(a) as a, count(b) as b, max(c) as c, bool_or(d) as d, count(*) as n from t";
    let entry = engine().prepare(spec("e", sql, &["t"], &[])).unwrap();
    let full = json!({"a": 1, "b": 2.5, "c": "x", "d": true});
    assert_eq!(ask(&entry, json!([full])).unwrap().1, 1);
    for sparse in 0..16 {
        let mut row = full.as_object().unwrap().clone();
        let keys: Vec<String> = row.keys().cloned().collect();
        for (bit, key) in keys.iter().enumerate().filter(|(bit, _)| sparse >> bit & 1 == 1) {
            match sparse % 3 {
                0 => drop(row.insert(key.clone(), Value::Null)),
                _ => drop(row.remove(key)),
            }
            row.insert(format!("other{bit}{sparse}"), json!([1, {"deep": 2}]));
        }
        let there = |key: &str| row.get(key).filter(|value| !value.is_null()).cloned();
        let expected =
            json!([{"a": there("a"), "b": u8::from(there("b").is_some()), "c": there("c"), "d": there("d"), "n": 1}]);
        assert_eq!(ask(&entry, json!([row])).unwrap(), (expected, 0), "{row:?}");
    }
}

#[test]
fn a_column_of_nulls_takes_the_type_of_its_first_value() {
    let entry = engine().prepare(spec("e", "select a, b, c from t", &["t"], &[])).unwrap();
    let plans: u32 = [
        json!({"a": null, "b": null, "c": null}),
        json!({"a": 1, "b": null, "c": null}),
        json!({"a": 2, "b": "x", "c": null}),
        json!({"a": null, "b": "y", "c": true}),
        json!({"a": null, "b": null, "c": null}),
        json!({"a": 3, "b": "z", "c": false}),
    ]
    .into_iter()
    .map(|row| {
        let (answer, plans) = ask(&entry, json!([row])).unwrap();
        assert_eq!(answer, json!([row]));
        plans
    })
    .sum();
    assert_eq!(plans, 4, "one at first, and one for each type");
}

#[test]
fn a_value_of_another_type_is_the_requests_fault_and_says_what_to_declare() {
    let entry = engine().prepare(spec("e", "select region, n from t", &["t"], &[])).unwrap();
    ask(&entry, json!([{"region": "north", "n": 1}])).unwrap();
    for (row, expected) in [
        (
            json!({"region": 7, "n": 1}),
            "row 0, column \"region\": expected text, as in earlier requests, got the integer 7",
        ),
        (
            json!({"region": "x", "n": "1"}),
            "column \"n\": expected an integer, as in earlier requests, got the text \"1\"",
        ),
        (json!({"region": "x", "n": true}), "declare the column's type in the entry's \"schema\""),
    ] {
        let failure = ask(&entry, json!([row])).unwrap_err();
        assert_eq!(failure.outcome, Outcome::InvalidInput);
        assert!(failure.message.contains(expected), "{}", failure.message);
    }
    assert_eq!(ask(&entry, json!([{"region": "south", "n": 2}])).unwrap(), (json!([{"region": "south", "n": 2}]), 0));
}

#[test]
fn of_a_request_that_fails_nothing_is_kept() {
    let engine = engine();
    let entry = engine.prepare(spec("e", "select sum(10 / n) as x from t where m > 0.5", &["t"], &[])).unwrap();
    for row in [json!({"n": 1}), json!({"n": "x", "m": 1}), json!({"n": 0, "m": 1}), json!({"n": 1, "m": "much"})] {
        ask(&entry, json!([row])).unwrap_err();
    }
    assert_eq!(ask(&entry, json!([{"n": 2.5, "m": 0.75}])).unwrap().0, json!([{"x": 4.0}]));
    // A column that is missing is named with all that the request has.
    let entry = engine.prepare(spec("f", "select region from t", &["t"], &[])).unwrap();
    let failure = ask(&entry, json!([{"Region": 1, "other": 2}])).unwrap_err();
    assert!(failure.message.contains("t has \"Region\", \"other\""), "{}", failure.message);
}

#[test]
fn a_statement_that_asks_for_all_gets_new_keys_and_keeps_old_ones() {
    let entry = engine().prepare(spec("e", "select * from t", &["t"], &[])).unwrap();
    assert_eq!(ask(&entry, json!([{"a": 1}])).unwrap().0, json!([{"a": 1}]));
    assert_eq!(ask(&entry, json!([{"b": "x", "a": 2}])).unwrap().0, json!([{"a": 2, "b": "x"}]));
    assert_eq!(ask(&entry, json!([{"b": "y"}])).unwrap(), (json!([{"a": null, "b": "y"}]), 0));
    // What one request brings beside, without end, is not carried along by all others.
    let wide: Map<String, Value> = (0..1_000).map(|number| (format!("k{number}"), json!(1))).collect();
    assert_eq!(ask(&entry, json!([wide])).unwrap().0[0].as_object().unwrap().len(), 1_002);
    assert_eq!(ask(&entry, json!([{"a": 3}])).unwrap().0[0].as_object().unwrap().len(), 256);
}

#[test]
fn tables_in_arrow_are_what_they_are() {
    let entry = engine().prepare(spec("e", "select qty / 2 as half from t", &["t"], &[])).unwrap();
    let run = |column: ArrayRef| {
        rows(&entry.run(vec![table("t", vec![("qty", column)])], &Map::new(), &RunContext::default()).unwrap())
    };
    assert_eq!(run(floats([7.0])), json!([{"half": 3.5}]));
    assert_eq!(run(ints([7])), json!([{"half": 3}]));
    assert_eq!(ask(&entry, json!([{"qty": 7}])).unwrap().0, json!([{"half": 3}]));
    assert_eq!(run(floats([9.0])), json!([{"half": 4.5}]));
    assert_eq!(ask(&entry, json!([{"qty": 9}])).unwrap().0, json!([{"half": 4}]));
}
