//! Rows as tables: both formats decode alike.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Map, Value, json};

use super::to_json;
use crate::sql::rows::{RowFormat, decode_inputs};
use crate::sql::seen::Known;
use crate::sql::{InputTable, SqlAnswer};

/// Both formats must decode alike; what they give, as rows again.
fn table(schema: Option<&SchemaRef>, body: &Value) -> Result<(SchemaRef, Value), String> {
    let known = [("t", schema.map_or(Known::Nothing, |schema| Known::Declared(Arc::clone(schema))))];
    let json = decode_inputs(&known, RowFormat::Json, body.to_string().as_bytes());
    let msgpack = decode_inputs(&known, RowFormat::MsgPack, &rmp_serde::to_vec(body).unwrap());
    match (json, msgpack) {
        (Ok(mut json), Ok(msgpack)) => {
            assert_eq!(json.tables[0].batches, msgpack.tables[0].batches);
            assert_eq!(json.params, msgpack.params);
            let InputTable { schema, batches, .. } = json.tables.remove(0);
            let answer = SqlAnswer { schema: Arc::clone(&schema), batches, plans: 0, since: None };
            Ok((schema, serde_json::from_slice(&to_json(&answer).unwrap()).unwrap()))
        }
        (Err(json), Err(msgpack)) => {
            // serde_json adds "at line ..."; what both say begins alike.
            let (json, msgpack) = (json.replace("JSON", "_"), msgpack.replace("MsgPack", "_"));
            assert!(json.starts_with(&msgpack), "{json} / {msgpack}");
            Err(msgpack)
        }
        (json, msgpack) => panic!("{json:?} / {msgpack:?}"),
    }
}

fn types(schema: &SchemaRef) -> Vec<DataType> {
    schema.fields().iter().map(|field| field.data_type().clone()).collect()
}

#[test]
fn types_are_inferred_and_absent_keys_are_null() {
    let body = json!([
        {"id": 1, "price": 2, "name": "a", "paid": true, "note": null},
        {"name": "b\u{1f600}", "id": -9223372036854775808_i64, "late": "x"},
        {"price": 2.5, "id": 9007199254740993_i64, "name": null, "paid": false},
        {},
    ]);
    let (schema, rows) = table(None, &body).unwrap();
    use DataType::{Boolean, Float64, Int64, Null, Utf8};
    assert_eq!(types(&schema), [Int64, Utf8, Null, Boolean, Float64, Utf8]);
    assert_eq!(
        rows,
        json!([
            {"id": 1, "price": 2.0, "name": "a", "paid": true, "note": null, "late": null},
            {"id": -9223372036854775808_i64, "price": null, "name": "b\u{1f600}", "paid": null, "note": null, "late": "x"},
            {"id": 9007199254740993_i64, "price": 2.5, "name": null, "paid": false, "note": null, "late": null},
            {"id": null, "price": null, "name": null, "paid": null, "note": null, "late": null},
        ])
    );
}

#[test]
fn declared_types_hold_and_other_keys_are_skipped() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("day", DataType::Date32, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("price", DataType::Float64, true),
    ]));
    let body = json!([{"price": 3, "day": "1970-01-02", "other": {"deep": [1]}}, {"at": "1970-01-01T00:00:01Z"}]);
    let (given, rows) = table(Some(&schema), &body).unwrap();
    assert_eq!(given, schema);
    assert_eq!(
        rows,
        json!([{"day": "1970-01-02", "at": null, "price": 3.0}, {"day": null, "at": "1970-01-01T00:00:01Z", "price": null}])
    );
    for (body, expected) in [
        (json!([{"day": "1970-13-02"}]), "row 0, column \"day\": expected a date"),
        (json!([{}, {"at": 5}]), "row 1, column \"at\": expected a timestamp"),
        (json!([{"price": "3"}]), "expected a number, got the text \"3\""),
    ] {
        let error = table(Some(&schema), &body).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(table(Some(&schema), &json!([])).unwrap(), (schema, json!([])));
}

#[test]
fn what_is_no_table_of_single_values_names_row_and_column() {
    for (body, expected) in [
        (json!([{"a": 1}, {"a": "x"}]), "table \"t\", row 1, column \"a\": expected an integer, got the text \"x\""),
        (json!([{"a": true}, {"a": 1}]), "row 1, column \"a\": expected a boolean"),
        (json!([{"a": [1, 2]}]), "row 0, column \"a\": expected a single value, got an array"),
        (json!([{"a": 1}, {"a": {"b": 1}}]), "row 1, column \"a\": expected an integer, got an object"),
        (json!([{"a": u64::MAX}]), "beyond int64"),
        (json!([{"a": 9007199254740993_i64}, {"a": 0.5}]), "9007199254740993 would lose digits"),
        (json!([{"a": 0.5}, {"a": i64::MAX}]), "would lose digits"),
        (json!([1]), "expected an object as row 0"),
        (json!({"t": 5}), "expected an array of objects, the rows of \"t\""),
        (json!("x"), "expected an array of objects, or an object"),
    ] {
        let error = table(None, &body).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_key_twice_is_refused() {
    let error = decode_inputs(&[("t", Known::Nothing)], RowFormat::Json, br#"[{"a": 1, "a": 2}]"#).unwrap_err();
    assert!(error.contains("row 0, column \"a\": the key is in the row twice"), "{error}");
    let error = decode_inputs(&[("t", Known::Nothing)], RowFormat::Json, br#"{"t": [], "t": []}"#).unwrap_err();
    assert!(error.contains("given twice"), "{error}");
}

#[test]
fn an_object_holds_tables_and_parameters() {
    let inputs = [("l", Known::Nothing), ("r", Known::Nothing)];
    let rows = decode_inputs(&inputs, RowFormat::Json, br#"{"r": [{"x": 1}], "min": {"a": [1]}, "l": []}"#).unwrap();
    let names: Vec<&str> = rows.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["r", "l"]);
    assert_eq!(Value::Object(rows.params), json!({"min": {"a": [1]}}));
    let error = decode_inputs(&inputs, RowFormat::Json, b"[]").unwrap_err();
    assert!(error.contains("the inputs are \"l\", \"r\""), "{error}");
}

#[test]
fn broken_deep_and_sparse_bodies_are_errors() {
    for body in [&b""[..], b"[", b"[{\"a\":", b"[{\"a\": 1}] x", b"\xff"] {
        decode_inputs(&[("t", Known::Nothing)], RowFormat::Json, body).unwrap_err();
    }
    let good = rmp_serde::to_vec(&json!([{"a": 1}])).unwrap();
    for end in 0..good.len() {
        decode_inputs(&[("t", Known::Nothing)], RowFormat::MsgPack, &good[..end]).unwrap_err();
    }
    let trailing = [&good[..], &[0]].concat();
    assert!(decode_inputs(&[("t", Known::Nothing)], RowFormat::MsgPack, &trailing).unwrap_err().contains("follow"));
    // An array that claims 2^32 items and has none.
    decode_inputs(&[("t", Known::Nothing)], RowFormat::MsgPack, &[0xdd, 0xff, 0xff, 0xff, 0xff]).unwrap_err();

    let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
    let parameter = [&[0x81, 0xa1, b'p'][..], &deep].concat();
    let cell = [&[0x91, 0x81, 0xa1, b'p'][..], &deep].concat();
    for body in [parameter, cell] {
        let error = decode_inputs(&[("t", Known::Nothing)], RowFormat::MsgPack, &body).unwrap_err();
        assert!(error.contains("depth"), "{error}");
    }
    // JSON is read past without recursion in a row, and with serde_json's own bound in a parameter.
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, expected) in [(format!("[{{\"a\": {deep}}}]"), "nested"), (format!("{{\"p\": {deep}}}"), "recursion")] {
        let error = decode_inputs(&[("t", Known::Nothing)], RowFormat::Json, body.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    let wide: Map<String, Value> = (0..1_500).map(|key| (format!("k{key}"), json!(1))).collect();
    let sparse = [Value::Object(wide)].into_iter().chain((0..100_000).map(|_| json!({}))).collect::<Vec<_>>();
    let error = decode_inputs(&[("t", Known::Nothing)], RowFormat::Json, Value::Array(sparse).to_string().as_bytes())
        .unwrap_err();
    assert!(error.contains("too sparse"), "{error}");
    let columns: Map<String, Value> = (0..2_001).map(|key| (format!("k{key}"), json!(1))).collect();
    let error =
        decode_inputs(&[("t", Known::Nothing)], RowFormat::Json, json!([columns]).to_string().as_bytes()).unwrap_err();
    assert!(error.contains("more than 2000 columns"), "{error}");
}
