//! The module as its callers see it: entries and ad-hoc queries on real tables. What the files share is here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use molt_ipc_shm::Outcome;
use serde_json::{Map, Value, json};

mod ad_hoc;
mod answers;
mod bodies;
mod decimals;
mod disk;
mod entries;
mod kept;
mod limits;
mod moments;
mod seen;
mod shapes;
mod spill;
mod stop;
mod zones;

use super::*;
use crate::failure::Failure;

fn engine() -> SqlEngine {
    SqlEngine::new(SqlLimits { threads: 2, ..SqlLimits::default() }).unwrap()
}

fn params(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn table(name: &str, columns: Vec<(&str, ArrayRef)>) -> InputTable {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    InputTable { name: name.into(), schema: batch.schema(), batches: vec![batch], inferred: false }
}

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn floats(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

fn words<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn spec(name: &str, sql: &str, input: &[&str], types: &[(&str, ParamType)]) -> SqlSpec {
    SqlSpec {
        name: name.into(),
        sql: sql.into(),
        input: input.iter().map(|name| name.to_string()).collect(),
        params: types.iter().map(|(name, kind)| (name.to_string(), *kind)).collect(),
        ..SqlSpec::default()
    }
}

fn rows(answer: &SqlAnswer) -> Value {
    serde_json::from_slice(&to_json(answer).unwrap()).unwrap()
}

fn to_json(answer: &SqlAnswer) -> Result<Vec<u8>, Failure> {
    answer::encode(answer, rows::RowFormat::Json, Shape::Rows)
}

fn to_msgpack(answer: &SqlAnswer) -> Result<Vec<u8>, Failure> {
    answer::encode(answer, rows::RowFormat::MsgPack, Shape::Rows)
}

const REGIONS: [&str; 4] = ["north", "east", "south", "west"];

/// `rows` orders that differ by `seed`, and what the entry below should answer for them.
fn orders(rows: usize, seed: u64, min: f64, factor: i64) -> (InputTable, Value) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut region, mut amount, mut qty) = (Vec::new(), Vec::new(), Vec::new());
    let mut expected = BTreeMap::<&str, (f64, i64)>::new();
    for _ in 0..rows {
        let (name, value, count) = (REGIONS[(next() % 4) as usize], (next() % 1000) as f64, (next() % 9) as i64);
        region.push(name);
        amount.push(value);
        qty.push(count);
        if value > min && name != "west" {
            let total = expected.entry(name).or_default();
            *total = (total.0 + value, total.1 + count * factor);
        }
    }
    let expected = expected
        .iter()
        .map(|(name, (total, pieces))| json!({"zone": name.to_uppercase(), "total": total, "pieces": pieces}));
    (
        table("orders", vec![("region", words(region)), ("amount", floats(amount)), ("qty", ints(qty))]),
        expected.collect(),
    )
}

/// Filter, join with a table of the worker, group, sort; a parameter in the condition and one in an aggregate.
fn summary(engine: &SqlEngine) -> SqlEntry {
    let zones =
        table("zones", vec![("name", words(["north", "east", "south"])), ("zone", words(["NORTH", "EAST", "SOUTH"]))]);
    engine.put_table("zones", zones.schema, zones.batches).unwrap();
    let sql = "select zone, sum(amount) as total, sum(qty * $factor) as pieces from orders join zones on region = name \
               where amount > $min group by zone order by lower(zone)";
    engine
        .prepare(spec("order_totals", sql, &["orders"], &[("min", ParamType::Float64), ("factor", ParamType::Int64)]))
        .unwrap()
}

/// A table whose pairs take minutes to go through.
fn many() -> InputTable {
    table("t", vec![("a", ints(0..200_000)), ("b", ints(0..200_000))])
}
