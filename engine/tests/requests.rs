//! Requests to the built-in entries: bodies of every codec and size, answers with their metrics, and input that is wrong.

mod common;

use common::ask::{Ask, health, msgpack};
use common::{Worker, tables};
use molt_ipc_shm::client::Payload;
use molt_ipc_shm::{Codec, Outcome};
use serde_json::{Value, json};

const CODECS: [Codec; 4] = [Codec::MsgPack, Codec::Json, Codec::Raw, Codec::Arrow];
/// Levels of nesting that overflow a stack where nobody counts them.
const BOMB: usize = 200_000;

fn compute(body: &[u8]) -> Ask<'_> {
    Ask::of("compute").body(Codec::Json, body)
}

#[test]
fn echo_answers_its_body_in_every_codec_and_size() {
    let worker = Worker::plain(&["--arena", "64MiB"]);
    let client = worker.client();
    let source: Vec<u8> = (0..(8 << 20) + 1).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // Around the border between ring and arena (4 KiB) and that of a shared extent (64 KiB), and up to 8 MiB.
    let sizes = [0, 1, 63, 64, 3_900, 3_968, 4_032, 4_096, 4_097, 65_536, 65_537, 1 << 20, 8 << 20, (8 << 20) + 1];
    for codec in CODECS {
        for size in sizes {
            let answer = Ask::of("echo").body(codec, &source[..size]).call(&client).ok();
            assert_eq!(answer.head.codec, codec as u8);
            assert!(answer.bytes() == source[..size], "{codec:?}, {size} bytes");
        }
        let block = tables::block(&client, &source[..100_000]);
        let answer = Ask::of("echo").payload(codec as u8, Payload::Block(&block)).call(&client);
        assert!(answer.bytes() == source[..100_000], "{codec:?}, a block");
    }
    let named = [("t", tables::placed(&client, &tables::numbers(3)))];
    let answer = Ask::of("echo").payload(Codec::Arrow as u8, Payload::Tables(&named)).call(&client);
    answer.fails(Outcome::InvalidInput, &["echo", "one body"]);
    worker.counts("ok", CODECS.len() as u64 * (sizes.len() as u64 + 1));
}

#[test]
fn compute_counts_sums_and_scales_in_both_codecs() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let body = json!({"values": [1, 2.5, -3], "scale": 2, "offset": 0.5});
    let expected = json!({"count": 3, "sum": 0.5, "scaled": [2.5, 5.5, -5.5]});
    let (as_json, as_msgpack) = (body.to_string(), msgpack(&body));
    for (codec, body) in [(Codec::Json, as_json.as_bytes()), (Codec::MsgPack, as_msgpack.as_slice())] {
        for accept in [Codec::Json, Codec::MsgPack] {
            let answer = Ask::of("compute").body(codec, body).accept(accept).call(&client);
            assert_eq!((answer.head.codec, answer.value::<Value>()), (accept as u8, expected.clone()));
        }
        let answer = Ask::of("compute").body(codec, body).call(&client);
        assert_eq!(answer.head.codec, codec as u8, "without a wish, the answer is in the request's codec");
    }
    let value = |body: &str| compute(body.as_bytes()).value::<Value>(&client);
    assert_eq!(value(r#"{"values": []}"#), json!({"count": 0, "sum": 0.0, "scaled": []}));
    assert_eq!(value(r#"{"values": [4], "more": [{}]}"#), json!({"count": 1, "sum": 4.0, "scaled": [4.0]}));
    let long: Vec<u32> = (0..200_000).collect();
    assert_eq!(value(&json!({"values": long}).to_string())["sum"], json!(19_999_900_000.0));
}

#[test]
fn params_win_over_what_the_body_says() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let ask = compute(br#"{"values": [1, 2], "scale": 2, "offset": 5}"#);
    let scaled = |ask: Ask<'_>| ask.value::<Value>(&client)["scaled"].clone();
    assert_eq!(scaled(ask.clone().params(json!({"scale": 10}))), json!([15.0, 25.0]));
    assert_eq!(scaled(ask.clone().params(json!({"scale": 10, "offset": 0, "tenant": 7}))), json!([10.0, 20.0]));
    // Long ones travel in the arena.
    let long = "n".repeat(100_000);
    assert_eq!(scaled(ask.clone().params(json!({"note": long, "scale": 3}))), json!([8.0, 11.0]));
    ask.clone().params(json!({"scale": "10"})).call(&client).fails(Outcome::InvalidInput, &["params", "number"]);
    ask.clone().raw_params(vec![0xc1; 9]).call(&client).fails(Outcome::InvalidInput, &["compute", "params"]);
    ask.clone().raw_params(vec![0x91; BOMB]).call(&client).fails(Outcome::InvalidInput, &["params"]);
}

#[test]
fn numbers_are_exact_or_refused() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let sum = |body: &str| compute(body.as_bytes()).call(&client);
    assert_eq!(sum(r#"{"values": [9007199254740992]}"#).value::<Value>()["sum"], json!(9007199254740992.0));
    for beyond in ["9007199254740993", "-9007199254740993", "18446744073709551615", "-9223372036854775808"] {
        let body = format!(r#"{{"values": [1, {beyond}]}}"#);
        sum(&body).fails(Outcome::InvalidInput, &["compute", beyond, "2^53"]);
    }
    // JSON has no NaN and no infinity, neither in nor out; MsgPack has both.
    sum(r#"{"values": [NaN]}"#).fails(Outcome::InvalidInput, &["compute"]);
    sum(r#"{"values": [1e400]}"#).fails(Outcome::InvalidInput, &["compute", "out of range"]);
    sum(r#"{"values": [1e308, 1e308]}"#).fails(Outcome::InvalidInput, &["not finite", "hint:", "msgpack"]);
    let body = rmp_serde::to_vec(&std::collections::BTreeMap::from([("values", [f64::NAN, f64::INFINITY])])).unwrap();
    let ask = Ask::of("compute").body(Codec::MsgPack, &body);
    #[derive(serde::Deserialize)]
    struct Computed {
        sum: f64,
        scaled: Vec<f64>,
    }
    let computed: Computed = ask.value(&client);
    assert!(computed.sum.is_nan() && computed.scaled[0].is_nan());
    assert_eq!(computed.scaled[1], f64::INFINITY);
    ask.accept(Codec::Json).call(&client).fails(Outcome::InvalidInput, &["not finite"]);
}

/// Fault 44.
#[test]
fn a_body_that_is_no_request_is_invalid_input_and_the_worker_goes_on() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let good = msgpack(&json!({"values": [1, 2, 3.5], "scale": 2}));
    let mut wrong: Vec<(Codec, Vec<u8>)> = (0..good.len()).map(|end| (Codec::MsgPack, good[..end].to_vec())).collect();
    wrong.push((Codec::MsgPack, [&good[..], &[0xc0]].concat()));
    wrong.push((Codec::MsgPack, vec![0x91; BOMB])); // arrays in arrays
    wrong.push((Codec::MsgPack, [b"\x81\xa6values".as_slice(), &vec![0x91; BOMB]].concat()));
    wrong.push((Codec::MsgPack, b"\x81\xa6values\xdd\xff\xff\xff\xff\x01".to_vec())); // says 4 billion values
    wrong.push((Codec::MsgPack, b"\x81\xa6values\x91\xc7\xff\x05".to_vec())); // an extension
    let good = br#"{"values": [1, 2, 3.5], "scale": 2}"#;
    wrong.extend((0..good.len()).map(|end| (Codec::Json, good[..end].to_vec())));
    let bomb = |open: &str| (Codec::Json, open.repeat(BOMB).into_bytes());
    wrong.extend([bomb("["), bomb(r#"{"values":"#), (Codec::Json, b"\xff\xfe\x00garbage".to_vec())]);
    for text in [
        r#"{"values": [1]} {"#,
        r#"{"values": 1}"#,
        r#"{"values": ["1"]}"#,
        r#"{"values": [true]}"#,
        r#"{"values": [null]}"#,
        r#"{"values": [[1]]}"#,
        r#"{"values": {}, "scale": 1}"#,
        r#"{"values": [1], "scale": "2"}"#,
        r#"{"values": [1], "values": [2]}"#,
        r#"{"scale": 2}"#,
        r#""values""#,
        "null",
    ] {
        wrong.push((Codec::Json, text.as_bytes().to_vec()));
    }
    let count = wrong.len() as u64;
    for (codec, body) in wrong {
        let answer = Ask::of("compute").body(codec, &body).call(&client);
        assert_eq!(answer.outcome, Outcome::InvalidInput, "{codec:?} {body:?}: {}", answer.message);
        assert!(answer.message.starts_with("entry \"compute\": ") && answer.message.len() < 500, "{}", answer.message);
    }
    worker.counts("invalid_input", count);
    assert_eq!(compute(br#"{"values": [1]}"#).value::<Value>(&client)["count"], 1);
}

#[test]
fn a_codec_that_an_entry_does_not_take_is_named_beside_those_it_takes() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let ask = Ask::of("compute");
    let takes = ["compute", "json, msgpack", "not raw"];
    ask.clone().body(Codec::Raw, b"1,2").call(&client).fails(Outcome::InvalidInput, &takes);
    let table = tables::placed(&client, &tables::numbers(3));
    let as_table = ask.clone().payload(Codec::Arrow as u8, Payload::Block(&table));
    as_table.call(&client).fails(Outcome::InvalidInput, &["compute", "json, msgpack", "not arrow"]);
    let into = |codec| compute(br#"{"values": [1]}"#).accept(codec).call(&client);
    into(Codec::Raw).fails(Outcome::InvalidInput, &takes);
    into(Codec::Arrow).fails(Outcome::InvalidInput, &["not arrow"]);
    // Numbers that no codec has.
    for entry in ["echo", "compute", "health"] {
        let unknown = Ask::of(entry).payload(77, Payload::Bytes(b"x")).call(&client);
        unknown.fails(Outcome::InvalidInput, &["77", "msgpack, json, raw, arrow"]);
    }
}

#[test]
fn garbage_as_arrow_is_invalid_input() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let batch = tables::orders(&[("north", 1.0), ("south", 2.0)]);
    let good = tables::placed(&client, &batch).to_vec();
    let mut wrong = vec![Vec::new(), b"no table".to_vec(), vec![0xff; 64], vec![0xff; 100_000], vec![0; 100_000]];
    wrong.extend((8..good.len() - 8).step_by(56).map(|end| good[..end].to_vec()));
    let mut huge = good.clone();
    huge[4..8].copy_from_slice(&i32::MAX.to_le_bytes()); // metadata that would not fit
    wrong.push(huge);
    let count = wrong.len();
    let mut refused = 0;
    for body in wrong {
        for sql in ["select count(*) as n from t"] {
            let named = [("t", tables::block(&client, &body))];
            let ask = Ask::of("molt.query").params(json!({"sql": sql}));
            let answer = ask.payload(Codec::Arrow as u8, Payload::Tables(&named)).call(&client);
            if answer.outcome == Outcome::Ok {
                // Cut between two messages, the stream is a shorter one: fine as long as nothing is invented.
                assert!([0, 2].contains(&tables::count(&answer)), "{} bytes", body.len());
                continue;
            }
            refused += 1;
            answer.fails(Outcome::InvalidInput, &["\"t\"", "Arrow"]);
        }
    }
    assert!(refused > count - 3, "{refused} of {count}");
    assert_eq!(health(&client)["status"], "ok");
}

#[test]
fn an_unknown_entry_is_answered_with_those_there_are() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let there = ["\"order_sumary\"", "echo, health, compute", "hint:", "manifest"];
    Ask::of("order_sumary").call(&client).fails(Outcome::UnknownEntry, &there);
    Ask::of("").call(&client).fails(Outcome::UnknownEntry, &["echo"]);
    Ask::of("Echo").call(&client).fails(Outcome::UnknownEntry, &["\"Echo\""]);
    let long = "e".repeat(201);
    Ask::of(&long).call(&client).fails(Outcome::UnknownEntry, &["200", "201"]);
    worker.counts("unknown_entry", 3);
}

#[test]
fn a_body_beyond_the_limit_is_too_large_before_anything_is_allocated() {
    let worker = Worker::plain(&["--arena", "32MiB"]);
    let client = worker.client();
    let most = client.session().unwrap().segment.header.max_body;
    assert_eq!(most, 16 << 20, "half of the arena");
    for len in [most + 1, 1 << 40, usize::MAX as u64] {
        let failure = client.session().unwrap().block(len as usize).unwrap_err();
        assert_eq!(failure.outcome, Outcome::TooLarge);
        let numbers = [len.to_string(), most.to_string()];
        assert!(numbers.iter().all(|number| failure.message.contains(number)), "{}", failure.message);
    }
    let body = vec![7; most as usize + 1];
    Ask::of("echo").body(Codec::Raw, &body).call(&client).fails(Outcome::TooLarge, &["16777217", "16777216"]);
    assert_eq!(worker.report().arena.used_bytes, 0);
    // Tables that are each within the limit are not, together: that is for the worker to see.
    let half = tables::block(&client, &body[..9 << 20]);
    let both = [("a", half.clone()), ("b", half)];
    let ask = Ask::of("molt.query").params(json!({"sql": "select 1 as n"}));
    let answer = ask.payload(Codec::Arrow as u8, Payload::Tables(&both)).call(&client);
    answer.fails(Outcome::TooLarge, &["18874368", "16777216"]);
    worker.counts("too_large", 1);
    drop(both);
    let seen = Ask::of("echo").body(Codec::Raw, &body[1..]).call(&client).ok();
    assert_eq!(seen.bytes().len() as u64, most);
}

#[test]
fn an_arena_that_is_full_is_said_with_the_numbers_and_empties_again() {
    let worker = Worker::plain(&["--arena", "16MiB"]);
    let client = worker.client();
    let body = vec![1; 4 << 20];
    let blocks: Vec<_> = (0..3).map(|_| tables::block(&client, &body)).collect();
    // 12 of 16 MiB are this session's quota.
    let more = client.session().unwrap().block(1 << 20).unwrap_err();
    assert_eq!(more.outcome, Outcome::Busy);
    for part in ["quota", "1048576", "12582912 of 12582912"] {
        assert!(more.message.contains(part), "{}", more.message);
    }
    // The answer to one of them still has room; a second one, while the first is held, has none.
    let first = Ask::of("echo").payload(Codec::Raw as u8, Payload::Block(&blocks[0])).call(&client).ok();
    let full = Ask::of("echo").payload(Codec::Raw as u8, Payload::Block(&blocks[1])).call(&client);
    full.fails(Outcome::Internal, &["echo", "room", "4194304"]);
    drop(first);
    Ask::of("echo").payload(Codec::Raw as u8, Payload::Block(&blocks[1])).call(&client).ok();
}

#[test]
fn health_tells_who_it_is() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    for (accept, codec) in [(Codec::Json, Codec::Json), (Codec::MsgPack, Codec::MsgPack), (Codec::Raw, Codec::Json)] {
        let answer = Ask::of("health").accept(accept).call(&client);
        assert_eq!(answer.head.codec, codec as u8);
        let state: Value = answer.value();
        assert_eq!(
            (&state["status"], &state["pid"], &state["queued"]),
            (&json!("ok"), &json!(worker.pid()), &json!(0))
        );
        assert_eq!(state["version"], env!("CARGO_PKG_VERSION"));
        assert!((0.0..60.0).contains(&state["uptime_s"].as_f64().unwrap()));
    }
}

#[test]
fn every_answer_says_what_it_cost() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let values: Vec<u32> = (0..100_000).collect();
    let body = json!({"values": values}).to_string();
    let (answer, wall) = common::ask::timed(|| compute(body.as_bytes()).call(&client).ok());
    let head = answer.head;
    assert!(head.exec_us > 0 && u128::from(head.queue_us + head.exec_us) <= wall.as_micros(), "{head:?} in {wall:?}");
    assert!(head.allocs > 0 && head.alloc_bytes > 100_000 * 8, "{head:?}");
    assert_eq!((head.queue_depth, head.copied_bytes), (0, 0));
    let entry = worker.report().entries.into_iter().find(|entry| entry.name == "compute").unwrap();
    assert_eq!(entry.calls, 1);
    let exec_us = f64::from(head.exec_us);
    assert!((0.5 * exec_us..=1.125 * exec_us + 2.0).contains(&entry.p50_us), "{} in {exec_us}", entry.p50_us);
    // An unknown entry and a short one say theirs too.
    assert!(compute(b"{}").call(&client).head.allocs > 0);
}
