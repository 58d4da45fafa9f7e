//! Entries: what is wrong is said, at start or to the request.

use super::*;

#[test]
fn what_is_wrong_with_an_entry_is_said_at_start() {
    let engine = engine();
    let float = [("min", ParamType::Float64)];
    for (sql, types, expected) in [
        ("select a from t wehre a = 1", &[][..], "Line: 1, Column: 23"),
        ("delete from t", &[], "only a query"),
        ("select a from t where a > $min", &[], "$min is not declared"),
        ("select a from t", &float, "declared but not used"),
        ("select a from missing", &[], "no table \"missing\" at line 1, column 15; the tables are \"t\""),
    ] {
        let error = engine.prepare(spec("e", sql, &["t"], types)).unwrap_err();
        assert!(error.contains(expected), "{sql}: {error}");
    }
    let mut declared = spec("e", "select regoin from t", &["t"], &[]);
    declared.schemas.insert("t".into(), vec![("region".into(), ParamType::Utf8)]);
    let error = engine.prepare(declared).unwrap_err();
    assert_eq!(error, "no column \"regoin\" at line 1, column 8; t has \"region\"");
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let engine = engine();
    let entry = summary(&engine);
    let good = params(json!({"min": 1, "factor": 1}));
    let orders = || orders(3, 1, 0.0, 1).0;
    let without = || table("orders", vec![("region", words(["north"])), ("Amount", floats([1.0])), ("qty", ints([1]))]);
    for (inputs, given, expected) in [
        (vec![without()], &good, "no column \"amount\""),
        (vec![without()], &good, "orders has \"region\", \"Amount\", \"qty\""),
        (vec![without()], &good, "hint: names are folded to lower case"),
        (vec![], &good, "input \"orders\" is missing"),
        (vec![orders(), orders()], &good, "given twice"),
        (vec![table("other", vec![("a", ints([1]))])], &good, "\"other\" is no input"),
        (vec![orders()], &params(json!({"min": 1})), "parameter \"factor\" (int64) is missing"),
        (vec![orders()], &params(json!({"min": "x", "factor": 1})), "parameter \"min\" must be float64"),
    ] {
        let failure = entry.run(inputs, given, &RunContext::default()).unwrap_err();
        assert_eq!(failure.outcome, Outcome::InvalidInput);
        assert!(
            failure.message.starts_with("entry \"order_totals\": ") && failure.message.contains(expected),
            "{}",
            failure.message
        );
    }
    // The next good request is answered.
    assert!(entry.run(vec![orders()], &good, &RunContext::default()).is_ok());
}

#[test]
fn rows_that_a_statement_cannot_take_are_the_requests_fault() {
    let engine = engine();
    let entry = engine.prepare(spec("e", "select 10 / a as x from t", &["t"], &[])).unwrap();
    let run = |values: &[i64]| {
        entry.run(vec![table("t", vec![("a", ints(values.iter().copied()))])], &Map::new(), &RunContext::default())
    };
    assert_eq!(run(&[1, 0]).unwrap_err().outcome, Outcome::InvalidInput);
    assert_eq!(rows(&run(&[5]).unwrap()), json!([{"x": 2}]));
}

#[test]
fn rows_in_json_and_msgpack_run_like_a_table() {
    let engine = engine();
    let entry = engine
        .prepare(spec(
            "e",
            "select region, sum(amount) as total from orders where amount > $min group by region order by region",
            &["orders"],
            &[("min", ParamType::Float64)],
        ))
        .unwrap();
    let body = json!({"min": 5, "orders": [
        {"region": "north", "amount": 10}, {"region": "south", "amount": 2.5}, {"amount": 7.25, "region": "north"}, {"region": "east"}]});
    let encoded = rmp_serde::to_vec(&body).unwrap();
    for (format, bytes) in [(rows::RowFormat::Json, body.to_string().into_bytes()), (rows::RowFormat::MsgPack, encoded)]
    {
        let decoded = rows::decode(&entry, format, &bytes).unwrap();
        let answer = entry.run(decoded.tables, &decoded.params, &RunContext::default()).unwrap();
        assert_eq!(answer.batches[0].column(1).as_primitive::<Float64Type>().values(), &[17.25]);
        assert_eq!(rows(&answer), json!([{"region": "north", "total": 17.25}]));
    }
}
