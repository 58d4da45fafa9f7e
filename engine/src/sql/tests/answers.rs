//! Answers as rows and as columns: every type, both codecs.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, PrimitiveRunBuilder, StringBuilder, StringRunBuilder};
use arrow_array::types::{Int16Type, Int32Type as Key, Int64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int64Array, LargeListViewArray, ListViewArray, NullArray, RecordBatch, StringArray, StringViewArray,
    StructArray, TimestampMicrosecondArray, UInt64Array, UnionArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Schema, UnionFields};
use serde_json::{Value, json};

use super::{to_json, to_msgpack};
use crate::sql::answer::encode;
use crate::sql::rows::RowFormat;
use crate::sql::{Shape, SqlAnswer};

fn answer(columns: Vec<(&str, ArrayRef)>) -> SqlAnswer {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays: Vec<ArrayRef> = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    // Two slices of it: rows must not depend on where a batch begins.
    let batches = vec![batch.slice(0, 1), batch.slice(1, batch.num_rows() - 1)];
    SqlAnswer { schema, batches, plans: 0, since: None }
}

fn every_type() -> SqlAnswer {
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("a"), None]);
    tags.append_null();
    let decimals = Decimal128Array::from(vec![Some(1234), Some(-5)]).with_precision_and_scale(10, 2).unwrap();
    let moments = TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("+00:00");
    let point: ArrayRef = Arc::new(StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef,
    )]));
    let words: DictionaryArray<Key> = vec![Some("north"), None].into_iter().collect();
    answer(vec![
        ("int", Arc::new(Int64Array::from(vec![Some(9_007_199_254_740_993), None]))),
        ("uint", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("float", Arc::new(Float64Array::from(vec![Some(0.1), None]))),
        ("single", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("text", Arc::new(StringArray::from(vec![Some("a\"b\u{1f600}"), None]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("longer than twelve bytes"), None]))),
        ("word", Arc::new(words)),
        ("money", Arc::new(decimals)),
        ("day", Arc::new(Date32Array::from(vec![Some(1), None]))),
        ("moment", Arc::new(moments)),
        ("tags", Arc::new(tags.finish())),
        ("point", point),
        ("nothing", Arc::new(NullArray::new(2))),
    ])
}

#[test]
fn every_type_has_its_form_and_both_codecs_agree() {
    let expected = json!([
        {"int": 9007199254740993_i64, "uint": u64::MAX, "float": 0.1, "single": 0.1, "flag": true,
         "text": "a\"b\u{1f600}", "view": "longer than twelve bytes", "word": "north", "money": "12.34",
         "day": "1970-01-02", "moment": "1970-01-01T00:00:01.500Z", "tags": ["a", null], "point": {"x": 1}, "nothing": null},
        {"int": null, "uint": null, "float": null, "single": null, "flag": null, "text": null, "view": null, "word": null,
         "money": "-0.05", "day": null, "moment": null, "tags": null, "point": {"x": null}, "nothing": null},
    ]);
    let answer = every_type();
    let json: Value = serde_json::from_slice(&to_json(&answer).unwrap()).unwrap();
    assert_eq!(json, expected);
    let mut msgpack: Value = rmp_serde::from_slice(&to_msgpack(&answer).unwrap()).unwrap();
    assert!((msgpack[0]["single"].as_f64().unwrap() - 0.1).abs() < 1e-8);
    msgpack[0]["single"] = json!(0.1); // four bytes in MsgPack, the nearest double when read as one
    assert_eq!(msgpack, expected);
    assert!(to_json(&answer).unwrap().starts_with(br#"[{"int":9007199254740993,"uint":18446744073709551615,"#));
}

#[test]
fn no_rows_are_an_empty_array() {
    let mut answer = every_type();
    answer.batches.clear();
    assert_eq!(to_json(&answer).unwrap(), b"[]");
    assert_eq!(to_msgpack(&answer).unwrap(), [0x90]);
}

#[test]
fn what_json_cannot_say_is_an_error_naming_row_and_column() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let answer = answer(vec![("share", Arc::new(Float64Array::from(vec![1.0, value])))]);
        let failure = to_json(&answer).unwrap_err();
        assert!(failure.message.contains("row 1, column \"share\""), "{}", failure.message);
        let back: Vec<std::collections::BTreeMap<String, f64>> =
            rmp_serde::from_slice(&to_msgpack(&answer).unwrap()).unwrap();
        assert_eq!(back[1]["share"].to_bits(), value.to_bits());
    }
}

#[test]
fn binary_is_binary_or_hexadecimal() {
    let answer = answer(vec![("key", Arc::new(BinaryArray::from(vec![Some(&[0xab, 0x01][..]), None])))]);
    assert_eq!(to_json(&answer).unwrap(), br#"[{"key":"ab01"},{"key":null}]"#);
    assert!(to_msgpack(&answer).unwrap().windows(4).any(|bytes| bytes == [0xc4, 2, 0xab, 0x01]));
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let ids = || Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
    let failure = to_json(&answer(vec![("id", ids()), ("id", ids())])).unwrap_err();
    assert!(failure.message.contains("\"id\""), "{}", failure.message);
}

#[test]
fn columns_are_the_rows_turned_over() {
    let answer = every_type();
    for format in [RowFormat::Json, RowFormat::MsgPack] {
        let read = |shape| -> Value {
            let bytes = encode(&answer, format, shape).unwrap();
            match format {
                RowFormat::Json => serde_json::from_slice(&bytes).unwrap(),
                RowFormat::MsgPack => rmp_serde::from_slice(&bytes).unwrap(),
            }
        };
        let (rows, columns) = (read(Shape::Rows), read(Shape::Columns));
        let columns = columns.as_object().unwrap();
        assert_eq!(columns.len(), answer.schema.fields().len());
        for (name, values) in columns {
            let down: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row[name]).collect();
            assert_eq!(values.as_array().unwrap().iter().collect::<Vec<_>>(), down, "{name}");
        }
    }
}

#[test]
fn columns_go_through_all_batches_and_name_the_row_that_has_no_form() {
    let values = |values: Vec<f64>| {
        RecordBatch::try_from_iter([("x", Arc::new(Float64Array::from(values)) as ArrayRef)]).unwrap()
    };
    let (one, two) = (values(vec![1.0, 2.0]), values(vec![3.0]));
    let schema = one.schema();
    let answer = |batches| SqlAnswer { schema: Arc::clone(&schema), batches, plans: 0, since: None };
    let json = |batches| encode(&answer(batches), RowFormat::Json, Shape::Columns);
    assert_eq!(json(vec![one.clone(), two]).unwrap(), br#"{"x":[1.0,2.0,3.0]}"#);
    assert_eq!(json(vec![]).unwrap(), br#"{"x":[]}"#);
    let failure = json(vec![one, values(vec![f64::NAN])]).unwrap_err();
    assert!(failure.message.contains("row 2, column \"x\""), "{}", failure.message);
}

#[test]
fn runs_list_views_and_unions_are_the_values_that_they_stand_for() {
    let mut runs = PrimitiveRunBuilder::<Key, Int64Type>::new();
    [Some(1), Some(1), None, Some(7)].into_iter().for_each(|value| runs.append_option(value));
    let runs: ArrayRef = Arc::new(runs.finish());
    let mut words = StringRunBuilder::<Int16Type>::new();
    [None, Some("a"), Some("a"), Some("b")].into_iter().for_each(|value| words.append_option(value));
    let item = Arc::new(Field::new_list_field(DataType::Int64, true));
    let items: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let valid = NullBuffer::from(vec![true, false, true, true]);
    let view: ArrayRef = Arc::new(ListViewArray::new(
        Arc::clone(&item),
        vec![1, 0, 0, 3].into(),
        vec![2, 0, 3, 0].into(),
        Arc::clone(&items),
        Some(valid),
    ));
    let long: ArrayRef =
        Arc::new(LargeListViewArray::new(item, vec![0_i64, 0, 2, 1].into(), vec![1_i64, 3, 1, 0].into(), items, None));
    let kinds =
        [(5, Arc::new(Field::new("n", DataType::Int64, true))), (2, Arc::new(Field::new("s", DataType::Utf8, true)))];
    let fields: UnionFields = kinds.into_iter().collect();
    let (numbers, texts): (ArrayRef, ArrayRef) =
        (Arc::new(Int64Array::from(vec![Some(4), None])), Arc::new(StringArray::from(vec![Some("x"), Some("y")])));
    let dense: ArrayRef = Arc::new(
        UnionArray::try_new(
            fields.clone(),
            vec![2_i8, 5, 5, 2].into(),
            Some(vec![1, 0, 1, 0].into()),
            vec![numbers, texts],
        )
        .unwrap(),
    );
    let (numbers, texts): (ArrayRef, ArrayRef) = (
        Arc::new(Int64Array::from(vec![Some(4), None, Some(6), None])),
        Arc::new(StringArray::from(vec![Some("x"), Some("y"), None, None])),
    );
    let sparse: ArrayRef =
        Arc::new(UnionArray::try_new(fields, vec![5_i8, 2, 5, 2].into(), None, vec![numbers, texts]).unwrap());
    let nested: ArrayRef = Arc::new(StructArray::from(vec![(
        Arc::new(Field::new("r", runs.data_type().clone(), true)),
        Arc::clone(&runs),
    )]));
    let answer = answer(vec![
        ("runs", runs),
        ("words", Arc::new(words.finish())),
        ("view", view),
        ("long", long),
        ("dense", dense),
        ("sparse", sparse),
        ("nested", nested),
    ]);
    let expected = json!([
        {"runs": 1, "words": null, "view": [null, 3], "long": [1], "dense": "y", "sparse": 4, "nested": {"r": 1}},
        {"runs": 1, "words": "a", "view": null, "long": [1, null, 3], "dense": 4, "sparse": "y", "nested": {"r": 1}},
        {"runs": null, "words": "a", "view": [1, null, 3], "long": [3], "dense": null, "sparse": 6, "nested": {"r": null}},
        {"runs": 7, "words": "b", "view": [], "long": [], "dense": "x", "sparse": null, "nested": {"r": 7}},
    ]);
    assert_eq!(serde_json::from_slice::<Value>(&to_json(&answer).unwrap()).unwrap(), expected);
    assert_eq!(rmp_serde::from_slice::<Value>(&to_msgpack(&answer).unwrap()).unwrap(), expected);
}
