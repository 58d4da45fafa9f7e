//! Native entries: what they are given, how they fail, and that a panic is one request's.

mod common;

use common::Worker;
use common::ask::{Ask, health, msgpack};
use common::tables;
use molt_ipc_shm::client::Payload;
use molt_ipc_shm::{Codec, Outcome};
use serde_json::{Value, json};

fn ask<'a>(entry: &'a str, body: &'a str) -> Ask<'a> {
    Ask::of(entry).body(Codec::Json, body.as_bytes())
}

#[test]
fn a_failure_keeps_its_status_text_and_details() {
    let worker = Worker::trial(&[]);
    let client = worker.client();
    for status in [404, 409, 422] {
        let body = json!({"status": status, "message": "line 3 \u{2260} 4", "index": 3}).to_string();
        for accept in [Codec::Json, Codec::MsgPack] {
            let answer = ask("trial_fail", &body).accept(accept).call(&client);
            assert_eq!((answer.outcome, answer.head.status), (Outcome::InvalidInput, status));
            assert_eq!(answer.message, "line 3 \u{2260} 4");
            assert_eq!(answer.details, Some(json!({"index": 3, "field": "qty"})));
        }
    }
    for status in [0, 200, 700] {
        let body = json!({"status": status, "message": "wrong"}).to_string();
        let answer = ask("trial_fail", &body).call(&client);
        assert_eq!((answer.outcome, answer.head.status, answer.details), (Outcome::InvalidInput, 0, None));
    }
    // Longer than what a reserved frame holds, and than what travels inline.
    for len in [300, 5_000, 100_000] {
        let body = json!({"status": 422, "message": "e".repeat(len), "index": 1}).to_string();
        let answer = ask("trial_fail", &body).call(&client);
        assert_eq!((answer.message.len(), answer.head.status), (len, 422));
        assert_eq!(answer.details.unwrap()["field"], "qty");
    }
    worker.counts("invalid_input", 12);
}

/// Fault 58: a panic.
#[test]
fn a_panic_is_one_requests_internal_error() {
    let worker = Worker::trial(&["--threads", "1"]);
    let client = worker.client();
    for _ in 0..3 {
        let answer = ask("trial_panic", r#"{"text": "secret of line 7"}"#).call(&client);
        let answer = answer.fails(Outcome::Internal, &["trial_panic", "panicked"]);
        assert!(!answer.message.contains("secret"), "a panic's text is for the log: {}", answer.message);
    }
    assert!(worker.log().contains("secret of line 7"), "{}", worker.log());
    assert!(!worker.log().contains("stack backtrace"), "{}", worker.log());
    // The only thread runs on.
    assert_eq!(ask("trial_params", "null").value::<Value>(&client), json!({"tenant": null, "note": null}));
    worker.counts("internal", 3);
}

/// Whoever has a trace's id finds what the worker said of its request.
#[test]
fn the_log_names_entry_process_and_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let worker = Worker::trial(&[]);
    let client = worker.client();
    let traced = format!("00-{TRACE}-00f067aa0ba902b7-01");
    ask("trial_panic", r#"{"text": "of the trace"}"#).trace(&traced).call(&client).fails(Outcome::Internal, &[]);
    ask("trial_panic", r#"{"text": "of no trace"}"#).call(&client).fails(Outcome::Internal, &[]);
    ask("trial_panic", r#"{"text": "of a wrong one"}"#)
        .trace("00-12-34-56")
        .call(&client)
        .fails(Outcome::Internal, &[]);
    let log = worker.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("request failed")).collect();
    let origin = format!("entry=\"trial_panic\" pid={}", std::process::id());
    assert!(
        lines.len() == 3 && lines[0].ends_with(&format!("{origin} trace_id={TRACE} traceparent={traced}")),
        "{log}"
    );
    assert!(lines[1].ends_with(&origin) && lines[2].ends_with(&origin), "{log}");
    // Bodies that lie in the arena and those that travel inline: the context ends either frame.
    for bytes in [0, 100, 4_000, 100_000] {
        let body = vec![7; bytes];
        let answer = Ask::of("echo").body(Codec::Raw, &body).trace(&traced).call(&client);
        assert_eq!(answer.bytes(), body);
    }
}

/// Fault 58: a stack that overflows. The worker dies of it, which costs what was in flight, and the next one serves.
#[test]
fn an_overflowed_stack_is_a_lost_worker_and_the_next_one_serves() {
    let mut worker = Worker::trial(&["--threads", "1"]);
    let client = worker.client();
    ask("trial_overflow", "0").call(&client).fails(Outcome::WorkerLost, &["may have run"]);
    let signal = std::os::unix::process::ExitStatusExt::signal(&worker.ended());
    assert!(signal == Some(nix::libc::SIGABRT) || signal == Some(nix::libc::SIGSEGV), "{signal:?}");
    assert!(worker.log().contains("overflowed its stack"), "{}", worker.log());
    let next = Worker::launch(worker.shm.clone(), worker.folder.clone(), &[]).serves();
    assert_eq!(health(&client)["pid"], next.pid());
}

#[test]
fn answers_of_every_size_arrive_and_one_beyond_the_arena_says_so() {
    let worker = Worker::trial(&["--arena", "32MiB"]);
    let client = worker.client();
    for bytes in [0, 1, 192, 193, 4_000, 4_033, 70_000, 8 << 20] {
        let body = json!({"bytes": bytes}).to_string();
        let answer = ask("trial_big", &body).accept(Codec::Raw).call(&client).ok();
        assert_eq!(answer.bytes(), vec![b'x'; bytes], "{bytes}");
        assert!(answer.head.alloc_bytes >= bytes as u64, "the library's own allocations count: {:?}", answer.head);
        assert!(answer.head.allocs > 0);
    }
    let beyond = json!({"bytes": 40 << 20}).to_string();
    let answer = ask("trial_big", &beyond).accept(Codec::Raw).call(&client);
    assert!(matches!(answer.outcome, Outcome::Internal | Outcome::Busy), "{answer:?}");
    assert!(answer.message.contains("41943040"), "{}", answer.message);
    ask("trial_big", r#"{"bytes": 1000000}"#).accept(Codec::Raw).call(&client).ok();
}

#[test]
fn params_come_beside_the_body() {
    let worker = Worker::trial(&[]);
    let client = worker.client();
    let note = "n".repeat(10_000);
    let body = r#"{"tenant": 1, "note": "mine"}"#;
    let vouched = json!({"tenant": 42, "note": note});
    assert_eq!(ask("trial_params", body).params(vouched.clone()).value::<Value>(&client), vouched);
    let wrong = ask("trial_params", body).params(json!({"tenant": "x"})).call(&client);
    wrong.fails(Outcome::Internal, &["trial_params", "params"]);
    ask("trial_params", body).raw_params(vec![0xc1]).call(&client).fails(Outcome::Internal, &["params"]);
}

#[test]
fn an_entry_that_takes_bytes_gets_every_codec_where_others_name_theirs() {
    let worker = Worker::trial(&[]);
    let client = worker.client();
    let table = tables::placed(&client, &tables::numbers(1_000)).to_vec();
    for (codec, name) in
        [(Codec::MsgPack, "msgpack"), (Codec::Json, "json"), (Codec::Raw, "raw"), (Codec::Arrow, "arrow")]
    {
        for size in [0, 100, table.len()] {
            let ask = Ask::of("trial_payload").body(codec, &table[..size]).accept(Codec::Json);
            assert_eq!(ask.value::<Value>(&client), json!({"codec": name, "bytes": size}));
        }
    }
    let named = [("t", tables::block(&client, &table))];
    let several = Ask::of("trial_payload").payload(Codec::Arrow as u8, Payload::Tables(&named));
    several.accept(Codec::Json).call(&client).fails(Outcome::InvalidInput, &["trial_payload", "one body"]);
    let raw = Ask::of("trial_big").body(Codec::Raw, b"7").call(&client);
    raw.fails(Outcome::InvalidInput, &["trial_big", "msgpack, json", "not raw"]);
    let arrow = ask("trial_params", "null").accept(Codec::Arrow).call(&client);
    arrow.fails(Outcome::InvalidInput, &["Arrow"]);
}

#[test]
fn a_body_that_does_not_fit_the_entrys_type_is_invalid_input() {
    let worker = Worker::trial(&[]);
    let client = worker.client();
    let bomb = "[".repeat(200_000);
    for body in ["", "{", r#"{"bytes": -1}"#, r#"{"bytes": "7"}"#, r#"{"bytes": 1e3}"#, "{} {}", "\u{0}", &bomb] {
        let answer = ask("trial_big", body).call(&client).fails(Outcome::InvalidInput, &["body"]);
        let place = answer.details.unwrap();
        assert!(place["line"].is_u64() && place["column"].is_u64(), "{place}");
    }
    for body in [vec![], vec![0x91; 200_000], vec![0xc1], msgpack(&json!({"bytes": -1}))] {
        let answer = Ask::of("trial_big").body(Codec::MsgPack, &body).call(&client);
        answer.fails(Outcome::InvalidInput, &["body", "MsgPack"]);
    }
    // What no field takes is skipped without recursion, however deep it is; MsgPack is bounded there too.
    let hidden = format!(r#"{{"bytes": 1, "more": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(ask("trial_big", &hidden).call(&client).bytes(), b"x");
    let hidden = [b"\x82\xa5bytes\x01\xa4more".as_slice(), &vec![0x91; 100_000], &[0xc0]].concat();
    let answer = Ask::of("trial_big").body(Codec::MsgPack, &hidden).call(&client);
    answer.fails(Outcome::InvalidInput, &["body", "MsgPack"]);
    assert_eq!(health(&client)["status"], "ok");
}
