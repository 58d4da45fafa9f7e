//! SQL through the worker: entries of the manifest and ad-hoc queries, on tables read where they lie and on rows.

mod common;

use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, RecordBatch};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use common::ask::{Answer, Ask, health, msgpack};
use common::tables::{batches, block, count, numbers, orders, pairs, placed};
use common::{Worker, manifest, until_true};
use molt_ipc_shm::client::{Client, Payload};
use molt_ipc_shm::{Codec, Outcome};
use serde_json::{Value, json};

const TOTALS: &str =
    "select region, sum(amount) as total from orders where amount > $min group by region order by region";

fn totals_manifest() -> String {
    manifest(json!([{"name": "order_totals", "kind": "sql", "sql": TOTALS, "input": "orders",
        "params": {"min": "float64"}, "timeout_ms": 10_000}]))
}

fn sample() -> RecordBatch {
    orders(&[("south", 5.0), ("north", 20.0), ("south", 30.5), ("north", 11.0), ("east", 1.0)])
}

/// The sample's totals above 10.
fn expected() -> [(String, f64); 2] {
    [("north".into(), 31.0), ("south".into(), 30.5)]
}

fn expected_rows() -> Value {
    json!([{"region": "north", "total": 31.0}, {"region": "south", "total": 30.5}])
}

fn query(client: &Client, sql: &str, tables: &[(&str, RecordBatch)], params: Value) -> Answer {
    let blocks: Vec<_> = tables.iter().map(|(name, batch)| (*name, placed(client, batch))).collect();
    let payload = if blocks.is_empty() { Payload::Bytes(&[]) } else { Payload::Tables(&blocks) };
    let ask = Ask::of("molt.query").params(json!({"sql": sql, "params": params}));
    ask.payload(Codec::Arrow as u8, payload).accept(Codec::Arrow).call(client)
}

#[test]
fn a_table_that_lies_in_the_arena_is_read_there_and_answered_in_every_codec() {
    let worker = Worker::with(&totals_manifest(), &[]);
    let client = worker.client();
    let table = placed(&client, &sample());
    let ask = Ask::of("order_totals").params(json!({"min": 10})).payload(Codec::Arrow as u8, Payload::Block(&table));
    for run in 0..3 {
        let answer = ask.clone().accept(Codec::Arrow).call(&client).ok();
        assert_eq!(pairs(&answer), expected());
        let head = answer.head;
        assert_eq!(head.copied_bytes, 0, "read in place");
        assert_eq!(head.plans, u8::from(run == 0), "the planner runs for the first request alone");
        assert!(head.exec_us > 0 && head.allocs > 0 && head.alloc_bytes > 0, "{head:?}");
    }
    for codec in [Codec::Json, Codec::MsgPack] {
        let answer = ask.clone().accept(codec).call(&client);
        assert_eq!((answer.head.codec, answer.value::<Value>()), (codec as u8, expected_rows()));
    }
    ask.clone().accept(Codec::Raw).call(&client).fails(Outcome::InvalidInput, &["order_totals", "not raw"]);
    // The same with the name that the statement has for it, and with another.
    for (name, outcome) in [("orders", Outcome::Ok), ("order", Outcome::InvalidInput)] {
        let named = [(name, table.clone())];
        let answer = ask.clone().payload(Codec::Arrow as u8, Payload::Tables(&named)).call(&client);
        assert_eq!(answer.outcome, outcome, "{}", answer.message);
    }
    worker.counts("copied_bytes", 0);
    drop(table);
    until_true("an empty arena", || worker.report().arena.used_bytes == 0);
}

#[test]
fn rows_in_json_and_msgpack_become_the_table() {
    let worker = Worker::with(&totals_manifest(), &[]);
    let client = worker.client();
    let rows = json!([{"region": "south", "amount": 5}, {"region": "north", "amount": 20},
        {"region": "south", "amount": 30.5}, {"amount": 11, "region": "north"}, {"region": null}]);
    let alone = rows.clone();
    let beside = json!({"orders": rows, "min": 10, "note": "unused"});
    for codec in [Codec::Json, Codec::MsgPack] {
        let encode = |value: &Value| if codec == Codec::Json { value.to_string().into_bytes() } else { msgpack(value) };
        let (alone, beside) = (encode(&alone), encode(&beside));
        let ask = Ask::of("order_totals");
        let vouched = ask.clone().params(json!({"min": 10})).body(codec, &alone).call(&client);
        assert_eq!((vouched.head.codec, vouched.value::<Value>()), (codec as u8, expected_rows()));
        assert_eq!(ask.clone().body(codec, &beside).value::<Value>(&client), expected_rows());
        // What the server vouches for wins over the body.
        let won = ask.clone().body(codec, &beside).params(json!({"min": 25}));
        assert_eq!(won.value::<Value>(&client), json!([{"region": "south", "total": 30.5}]));
        assert_eq!(pairs(&ask.clone().body(codec, &beside).accept(Codec::Arrow).call(&client).ok()), expected());
        ask.body(codec, &alone).call(&client).fails(Outcome::InvalidInput, &["\"min\"", "float64", "missing"]);
    }
}

#[test]
fn rows_that_are_none_are_invalid_input() {
    let worker = Worker::with(&totals_manifest(), &[]);
    let client = worker.client();
    let bomb = "[".repeat(200_000);
    let inner_bomb = format!(r#"[{{"region": {bomb}"#);
    for (body, part) in [
        ("", "input \"orders\" is missing"),
        ("[{]", "rows"),
        (r#"[{"region": "n", "amount": 1}"#, "rows"),
        (r#"{"region": "n"}"#, "orders"),
        ("7", "array of objects"),
        (r#"[["n", 1]]"#, "row 0"),
        (r#"[{"region": "n", "amount": 1}, {"region": 7, "amount": 1}]"#, "\"region\""),
        (r#"[{"region": "n", "amount": [1]}]"#, "\"amount\""),
        (&bomb, "rows"),
        (&inner_bomb, "rows"),
    ] {
        let ask = Ask::of("order_totals").params(json!({"min": 1})).body(Codec::Json, body.as_bytes());
        ask.call(&client).fails(Outcome::InvalidInput, &["order_totals", part]);
    }
    for body in [vec![0x91; 200_000], vec![0xc1], vec![0xdd, 0xff, 0xff, 0xff, 0xff]] {
        let ask = Ask::of("order_totals").params(json!({"min": 1})).body(Codec::MsgPack, &body);
        ask.call(&client).fails(Outcome::InvalidInput, &["order_totals", "MsgPack"]);
    }
    let raw = Ask::of("order_totals").params(json!({"min": 1})).body(Codec::Raw, b"1");
    raw.call(&client).fails(Outcome::InvalidInput, &["arrow, json, msgpack", "not raw"]);
    assert_eq!(health(&client)["status"], "ok");
}

#[test]
fn a_missing_column_is_named_with_those_that_are_there() {
    let worker = Worker::with(&totals_manifest(), &[]);
    let client = worker.client();
    let table = placed(&client, &numbers(3));
    let ask = Ask::of("order_totals").params(json!({"min": 1}));
    let arrow = ask.clone().payload(Codec::Arrow as u8, Payload::Block(&table)).call(&client);
    arrow.fails(Outcome::InvalidInput, &["order_totals", "no column", "orders has", "x"]);
    let rows = ask.body(Codec::Json, br#"[{"region": "n", "sum": 1, "when": 2}]"#).call(&client);
    rows.fails(Outcome::InvalidInput, &["no column \"amount\"", "region", "sum", "when"]);
}

/// A foreign writer pads to 8 bytes only. Where that leaves 16-byte decimals beside their alignment they are copied, once,
/// and counted; the answer is the same.
#[test]
fn a_foreign_body_that_lies_askew_is_copied_and_counted() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let mut copied = Vec::new();
    // Names that differ by 8 bytes move the data by 8 bytes.
    for name in ["amounts8", "amounts8amounts8"] {
        let cents = Decimal128Array::from_iter_values(1..=100).with_precision_and_scale(20, 2).unwrap();
        let batch = RecordBatch::try_from_iter([(name, Arc::new(cents) as ArrayRef)]).unwrap();
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).unwrap();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        let body = writer.into_inner().unwrap();
        let named = [("t", block(&client, &body))];
        let sql = format!("select cast(sum({name}) * 100 as bigint) as n from t");
        let ask = Ask::of("molt.query").params(json!({"sql": sql}));
        let answer = ask.payload(Codec::Arrow as u8, Payload::Tables(&named)).call(&client).ok();
        assert_eq!(count(&answer), 5050);
        copied.push(answer.head.copied_bytes);
    }
    copied.sort_unstable();
    assert_eq!(copied, [0, 1600], "one of the two lies askew");
    worker.counts("copied_bytes", 1600);
}

#[test]
fn a_query_joins_the_tables_it_brings_with_values_that_are_never_text() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let sql = "select region, sum(amount) as total from t join keep on t.amount = keep.x where region <> $no group by region \
               order by region";
    let tables =
        [("t", orders(&[("a", 1.0), ("b", 2.0), ("b", 1.0), ("c", 9.0), ("x' or '1'='1", 0.0)])), ("keep", numbers(3))];
    let answer = query(&client, sql, &tables, json!({"no": "x' or '1'='1"})).ok();
    assert_eq!(pairs(&answer), [("a".into(), 1.0), ("b".into(), 3.0)]);
    assert_eq!(answer.head.copied_bytes, 0);
    assert_eq!(count(&query(&client, "select 1 + $n as n", &[], json!({"n": 41})).ok()), 42);
    let empty = query(&client, "select x from t where x < 0", &[("t", numbers(3))], Value::Null).ok();
    assert_eq!(common::tables::batches(&empty).iter().map(RecordBatch::num_rows).sum::<usize>(), 0);

    let invalid = |sql: &str, params: Value, words: &[&str]| {
        query(&client, sql, &[("t", numbers(3))], params).fails(Outcome::InvalidInput, words);
    };
    invalid("select y from t", json!({}), &["no column \"y\"", "t has", "x"]);
    invalid("select x from u", json!({}), &["\"u\""]);
    invalid("select x from t where x > $min", json!({}), &["\"min\"", "missing"]);
    invalid("select x from t", json!({"min": 1}), &["\"min\"", "not used"]);
    invalid("select x / 0 as q from t", json!({}), &["Divide by zero"]);
    let nothing = Ask::of("molt.query").call(&client);
    nothing.fails(Outcome::InvalidInput, &["\"sql\""]);
    let rows = Ask::of("molt.query").params(json!({"sql": "select 1 as n"})).body(Codec::Json, b"[{}]").call(&client);
    rows.fails(Outcome::InvalidInput, &["Arrow", "json"]);
    let twice = [("t", placed(&client, &numbers(1))), ("t", placed(&client, &numbers(2)))];
    let ask = Ask::of("molt.query").params(json!({"sql": "select x from t"}));
    let answer = ask.payload(Codec::Arrow as u8, Payload::Tables(&twice)).call(&client);
    answer.fails(Outcome::InvalidInput, &["\"t\"", "twice"]);
}

/// Fault 42.
#[test]
fn a_query_only_reads_and_is_bounded() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let secret = worker.folder.write("secret.csv", "x\n1\n");
    let (secret, out) = (secret.display().to_string(), worker.folder.join("out.csv").display().to_string());
    let copy = format!("copy (select 1 as x) to '{out}'");
    let copy_table = format!("copy t to '{out}' stored as csv");
    let external = format!("create external table e stored as csv location '{secret}'");
    let file = format!("select * from '{secret}'");
    let quoted = format!("select * from \"{secret}\"");
    let function = format!("select * from read_csv('{secret}')");
    let chain = format!("select x{} as y from t", "+1".repeat(2_000));
    let or_chain = format!("select x from t where x = 0{}", " or x = 1".repeat(2_000));
    let nested = format!("select {}x{} as y from t", "(".repeat(500), ")".repeat(500));
    let selects = format!("select x from {}t{}", "(select x from ".repeat(200), ")".repeat(200));
    let long = format!("select x from t -- {}", "c".repeat(70_000));
    let commas = format!("select {} from t", vec!["x"; 20_000].join(","));
    let letters = "a".repeat(8_000);
    let bomb = format!("select length(replace(replace('{letters}', 'a', '{letters}'), 'a', '{letters}')) as n");
    let steps: String = (1..40).map(|step| format!(", s{step} as (select s || s as s from s{})", step - 1)).collect();
    let growth = format!("with s0 as (select x::varchar as s from t){steps} select max(length(s)) as n from s39");
    let mut doubling = "with a0 as (select x from t)".to_owned();
    for step in 1..40 {
        doubling += &format!(", a{step} as (select l.x from a{0} l, a{0} r)", step - 1);
    }
    doubling += " select count(*) from a39";
    for sql in [
        &copy,
        &copy_table,
        &external,
        &file,
        &quoted,
        &function,
        &chain,
        &or_chain,
        &nested,
        &selects,
        &long,
        &commas,
        &doubling,
        &bomb,
        &growth,
    ]
    .map(String::as_str)
    .into_iter()
    .chain([
        "create table u as select * from t",
        "create view v as select * from t",
        "insert into t values (1)",
        "delete from t",
        "update t set x = 1",
        "drop table t",
        "truncate table t",
        "alter table t add column y int",
        "set datafusion.execution.target_partitions = 1000",
        "reset datafusion.execution.target_partitions",
        "show tables",
        "show all",
        "describe t",
        "explain select x from t",
        "explain analyze select x from t",
        "begin",
        "prepare p as select 1",
        "execute p",
        "select x into u from t",
        "select 1 as x; drop table t",
        "select * from information_schema.tables",
        "select * from generate_series(1, 1000000000)",
        "select repeat('x', 1000000000) as x",
        "select array_repeat(1, 1000000000) as x",
        "with recursive r as (select 1 as x union all select x + 1 from r) select * from r",
        "",
        "no sql at all",
        "\u{0}",
    ]) {
        let shown = &sql[..sql.len().min(60)];
        let answer = query(&client, sql, &[("t", numbers(3))], Value::Null);
        assert_eq!(answer.outcome, Outcome::InvalidInput, "{shown}: {}", answer.message);
        assert!(answer.message.starts_with("query: "), "{shown}: {}", answer.message);
    }
    assert!(!std::path::Path::new(&out).exists(), "something was written");
    // The table is as it was, and the worker the same.
    assert_eq!(count(&query(&client, "select sum(x) as n from t", &[("t", numbers(3))], Value::Null).ok()), 3);
    assert_eq!(health(&client)["pid"], worker.pid());
}

#[test]
fn no_adhoc_sql_leaves_the_manifests_entries() {
    let worker = Worker::with(&totals_manifest(), &["--no-adhoc-sql"]);
    let client = worker.client();
    query(&client, "select 1 as x", &[], Value::Null).fails(Outcome::UnknownEntry, &["--no-adhoc-sql", "hint:"]);
    let rows = br#"{"orders": [{"region": "n", "amount": 2}], "min": 1}"#;
    let answer = Ask::of("order_totals").body(Codec::Json, rows).value::<Value>(&client);
    assert_eq!(answer, json!([{"region": "n", "total": 2}]));
    assert!(!worker.log().contains("molt.query"));
}

#[test]
fn an_entrys_limits_its_form_of_answer_and_no_body_at_all() {
    let three = "select column1 as n from (values (1), (2), (3))";
    let worker = Worker::with(
        &manifest(json!([
            {"name": "rows", "kind": "sql", "sql": three},
            {"name": "columns", "kind": "sql", "sql": three, "output": "columns"},
            {"name": "two", "kind": "sql", "sql": three, "max_rows": 2},
            {"name": "sorted", "kind": "sql", "sql": "select x from t order by x desc", "input": "t", "max_memory": "64KiB"},
        ])),
        &[],
    );
    let client = worker.client();
    let rows = json!([{"n": 1}, {"n": 2}, {"n": 3}]);
    for codec in [Codec::Json, Codec::MsgPack] {
        for (body, what) in [(&b""[..], "nothing"), (if codec == Codec::Json { b"null" } else { b"\xc0" }, "null")] {
            assert_eq!(Ask::of("rows").body(codec, body).value::<Value>(&client), rows, "{codec:?}, {what}");
            assert_eq!(Ask::of("columns").body(codec, body).value::<Value>(&client), json!({"n": [1, 2, 3]}));
        }
    }
    let answer = Ask::of("columns").body(Codec::Arrow, b"").call(&client).ok();
    assert_eq!(batches(&answer)[0].num_rows(), 3, "a table is a table");
    let failed = Ask::of("two").call(&client).fails(Outcome::Internal, &["entry \"two\"", "more than 2 rows"]);
    assert_eq!(failed.details, Some(json!({"limit": "rows", "most": 2})));
    let big = placed(&client, &numbers(100_000));
    let sorted = Ask::of("sorted").payload(Codec::Arrow as u8, Payload::Block(&big)).accept(Codec::Arrow);
    let failed = sorted.call(&client).fails(Outcome::Internal, &["entry \"sorted\"", "65536 bytes", "max_memory"]);
    assert_eq!(failed.details.unwrap()["most"], 65_536);
    let small = placed(&client, &numbers(100));
    let sorted = Ask::of("sorted").payload(Codec::Arrow as u8, Payload::Block(&small)).accept(Codec::Arrow);
    assert_eq!(count_rows(&sorted.call(&client).ok()), 100, "the entry serves on");
    // An entry that needs a table says so.
    Ask::of("sorted").call(&client).fails(Outcome::InvalidInput, &["input \"t\" is missing"]);
}

#[test]
fn an_entry_joins_two_inputs_in_every_codec_and_means_the_same_each_time() {
    let sql =
        "select region, sum(qty / 2) as halves from lines join goods using (good) group by region order by region";
    let entry = json!([{"name": "halves", "kind": "sql", "sql": sql, "input": ["lines", "goods"]}]);
    let worker = Worker::with(&manifest(entry), &[]);
    let client = worker.client();
    let body =
        |qty: Value| json!({"goods": [{"good": 1, "region": "n", "note": null}], "lines": [{"good": 1, "qty": qty}]});
    for codec in [Codec::Json, Codec::MsgPack] {
        let ask = |qty: Value| {
            let body = body(qty);
            let bytes = if codec == Codec::Json { body.to_string().into_bytes() } else { msgpack(&body) };
            let answer = Ask::of("halves").body(codec, &bytes).call(&client).ok();
            (answer.value::<Value>()[0]["halves"].clone(), answer.head.plans)
        };
        // Integers until the first fraction comes, numbers from then on, whoever asks.
        let is_first = codec == Codec::Json;
        assert_eq!(ask(json!(7)), (if is_first { json!(3) } else { json!(3.5) }, u8::from(is_first)));
        assert_eq!(ask(json!(7.5)), (json!(3.75), u8::from(is_first)));
        assert_eq!(ask(json!(7)), (json!(3.5), 0));
    }
    let wrong = body(json!("seven")).to_string();
    let failed = Ask::of("halves").body(Codec::Json, wrong.as_bytes()).call(&client);
    failed.fails(Outcome::InvalidInput, &["halves", "row 0", "\"qty\"", "as in earlier requests", "\"schema\""]);
    Ask::of("halves").body(Codec::Json, b"[]").call(&client).fails(Outcome::InvalidInput, &["\"lines\", \"goods\""]);
}

fn count_rows(answer: &Answer) -> usize {
    batches(answer).iter().map(RecordBatch::num_rows).sum()
}
