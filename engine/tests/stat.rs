//! `molt-shm-stat` on workers that live, and on those that do not.

mod common;

use common::ask::{Ask, Line, hold_body, marked};
use common::{Folder, Worker, look, nameless, names_of, run, stat_program, tables, until, until_true};
use molt_ipc_shm::Codec;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn stat(args: &[&str]) -> (Option<i32>, String, String) {
    run(stat_program(), Folder::new().path(), args)
}

/// The arguments that name a worker's segment, before others.
fn of<'a>(shm: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let place = if nameless() { vec!["--socket", shm] } else { vec![shm] };
    [&place[..], more].concat()
}

fn json_of(shm: &str) -> Value {
    let (code, out, message) = stat(&of(shm, &["--json"]));
    assert_eq!(code, Some(0), "{message}");
    serde_json::from_str(&out).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

const TOTALS: [&str; 10] = [
    "requests",
    "ok",
    "invalid_input",
    "unknown_entry",
    "too_large",
    "cancelled",
    "busy",
    "timeout",
    "lost",
    "internal",
];

fn has_the_shape(report: &Value) {
    assert_eq!(keys(report), ["arena", "entries", "segment", "sessions", "tables", "totals", "worker"]);
    assert_eq!(keys(&report["segment"]), ["epoch", "layout_version", "name", "total_bytes"]);
    assert_eq!(keys(&report["worker"]), ["overdue", "pid", "state", "supervisor", "uptime_s"]);
    assert_eq!(keys(&report["arena"]), ["blocks", "total_bytes", "used_bytes"]);
    for session in report["sessions"].as_array().unwrap() {
        let figures = ["arena_bytes", "channels", "in_flight", "leased_bytes", "leases", "oldest_lease_s"];
        assert_eq!(keys(session), [&figures[..], &["pid", "slot", "state"]].concat());
    }
    for entry in report["entries"].as_array().unwrap() {
        assert_eq!(keys(entry), ["calls", "name", "p50_us", "p999_us", "p99_us"]);
    }
    for table in report["tables"].as_array().unwrap() {
        assert_eq!(keys(table), ["age_s", "bytes", "lost", "name", "resident", "rows", "source", "version"]);
    }
    for total in TOTALS {
        assert!(report["totals"][total].is_u64(), "{total}: {}", report["totals"]);
    }
}

#[test]
fn a_live_worker_is_shown_with_what_it_does_now() {
    let worker = Worker::trial(&["--threads", "1"]);
    let client = worker.client();
    for _ in 0..5 {
        Ask::of("compute").body(Codec::Json, br#"{"values": [1]}"#).call(&client).ok();
    }
    Ask::of("compute").body(Codec::Json, b"{").call(&client);
    Ask::of("nobody").call(&client);
    let lease = Ask::of("echo").body(Codec::Raw, &[7; 300_000]).call(&client).ok();
    let block = tables::block(&client, &[7; 600_000]);
    let (mark, gate) = (worker.folder.join("mark"), worker.folder.join("gate"));
    let body = hold_body(&mark, &gate);
    let mut line = Line::open(&client);
    let held = line.send(&Ask::of("trial_hold").body(Codec::Json, &body));
    marked(&mark, "started");

    let report = until("the request and the result that are held", || {
        let report = json_of(&worker.shm);
        let session = &report["sessions"][0];
        let held = session["in_flight"] == 1 && session["leases"] == 1;
        (held && report["totals"]["ok"] == 6).then_some(report)
    });
    has_the_shape(&report);
    let size = look(&worker.shm).unwrap().header.total_bytes;
    assert_eq!((&report["segment"]["name"], &report["segment"]["total_bytes"]), (&json!(worker.shm), &json!(size)));
    assert_eq!((&report["worker"]["state"], &report["worker"]["pid"]), (&json!("serving"), &json!(worker.pid())));
    assert!((0.0..60.0).contains(&report["worker"]["uptime_s"].as_f64().unwrap()));
    assert_eq!(report["arena"]["total_bytes"], 32 << 20);
    // 300 KB of result and 600 KB of block, in extents of 256 KiB.
    assert_eq!((&report["arena"]["used_bytes"], &report["arena"]["blocks"]), (&json!(5 << 18), &json!(2)));
    let session = &report["sessions"][0];
    assert_eq!(report["sessions"].as_array().unwrap().len(), 1);
    assert_eq!((&session["pid"], &session["state"]), (&json!(std::process::id()), &json!("active")));
    assert_eq!((&session["channels"], &session["arena_bytes"]), (&json!(1), &json!(3 << 18)));
    assert_eq!(session["leased_bytes"], 300_000);
    assert!((0.0..60.0).contains(&session["oldest_lease_s"].as_f64().unwrap()), "{session}");
    let entry = |name: &str| report["entries"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap();
    let compute = entry("compute");
    assert_eq!(compute["calls"], 6);
    let us = |field: &str| compute[field].as_f64().unwrap();
    assert!(0.0 < us("p50_us") && us("p50_us") <= us("p99_us") && us("p99_us") <= us("p999_us"), "{compute}");
    assert_eq!((&entry("trial_hold")["calls"], &entry("trial_big")["calls"]), (&json!(0), &json!(0)));
    let totals = &report["totals"];
    assert_eq!((&totals["requests"], &totals["ok"]), (&json!(9), &json!(6)));
    assert_eq!((&totals["invalid_input"], &totals["unknown_entry"]), (&json!(1), &json!(1)));

    std::fs::write(&gate, "").unwrap();
    line.answer(held).ok();
    drop((line, lease, block, client));
    let empty = until("an empty segment", || {
        let report = json_of(&worker.shm);
        report["sessions"].as_array().unwrap().is_empty().then_some(report)
    });
    assert_eq!((&empty["arena"]["used_bytes"], &empty["arena"]["blocks"]), (&json!(0), &json!(0)));
}

#[test]
fn a_dead_worker_is_shown_as_it_was_and_swept_away_alone() {
    let live = Worker::plain(&[]);
    let mut dead = Worker::plain(&[]);
    let client = dead.client();
    let lease = Ask::of("echo").body(Codec::Raw, &[7; 300_000]).call(&client).ok();
    dead.counts("ok", 1);
    dead.signal(Signal::SIGKILL);
    dead.ended();
    let report = json_of(&dead.shm);
    has_the_shape(&report);
    assert_eq!((&report["worker"]["state"], &report["worker"]["pid"]), (&json!("dead"), &json!(dead.pid())));
    assert_eq!(report["totals"]["ok"], 1);
    assert_eq!(report["arena"]["used_bytes"], 2 << 18, "what its client holds");

    let (_, list, _) = stat(&[]);
    let line = |shm: &str| list.lines().find(|line| line.starts_with(&format!("{shm} "))).unwrap();
    for (worker, state) in [(&live, "serving"), (&dead, "dead")] {
        let line = line(&worker.shm);
        assert!(line.contains(state) && line.contains(&format!("pid {}", worker.pid())), "{line}");
    }
    let (code, said, _) = stat(&["doctor"]);
    assert_eq!(code, Some(1), "something is wrong: {said}");
    let line = |shm: &str| said.lines().find(|line| line.starts_with(&format!("{shm}:"))).unwrap();
    assert!(line(&dead.shm).contains("dead") && line(&dead.shm).contains("hint:"), "{said}");
    assert!(line(&live.shm).contains("serving"), "{said}");

    // Of a segment without a name there is nothing to remove but its socket, which lies where it was told to.
    let clean = if nameless() { vec!["clean", "--socket", &dead.shm] } else { vec!["clean"] };
    let (code, said, _) = stat(&clean);
    assert_eq!(code, Some(0));
    let removed = |shm: &str| said.lines().any(|line| line == format!("removed {shm}"));
    assert!(removed(&dead.shm) && !removed(&live.shm), "{said}");
    assert_eq!((names_of(&dead.shm).len(), names_of(&live.shm).len()), (0, 1));
    assert_eq!(lease.bytes(), [7; 300_000], "what is still mapped stays");
    assert_eq!(common::ask::health(&live.client())["status"], "ok");
}

#[test]
fn text_and_prometheus_say_the_same_and_an_absent_name_is_an_error() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    for _ in 0..3 {
        Ask::of("echo").body(Codec::Raw, b"x").call(&client).ok();
    }
    let (_, text, _) = stat(&of(&worker.shm, &[]));
    for part in [&worker.shm, "serving", &format!("pid {}", worker.pid()), "requests 3", "32.0 MiB", "molt.query"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    // What Python would hold: who, how much, for how long.
    tables::put(&client, "held", &tables::numbers(200_000)).ok();
    let held = tables::table(&client, "held");
    let bytes = held.bytes().len() as u64;
    until_true("the view of the table", || worker.report().sessions[0].leased_bytes == bytes);
    let (_, text, _) = stat(&of(&worker.shm, &[]));
    let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {text}"));
    let session = line("active");
    assert!(session.contains(&std::process::id().to_string()) && session.contains("1.5 MiB"), "{session}");
    assert!(session.ends_with(" s"), "its age: {session}");
    let table = line("held");
    assert!(table.contains("200000") && table.ends_with(" s  a client"), "rows, and its age: {table}");
    let (_, metrics, _) = stat(&of(&worker.shm, &["--prometheus"]));
    let label = format!("segment=\"{}\"", worker.shm);
    for line in [
        format!("molt_up{{{label}}} 1"),
        format!("molt_total{{{label},what=\"ok\"}} 5"),
        format!("molt_entry_calls_total{{{label},entry=\"echo\"}} 3"),
        format!("molt_leased_bytes{{{label}}} {bytes}"),
        format!("molt_tables_lost{{{label}}} 0"),
        format!("molt_table_rows{{{label},table=\"held\"}} 200000"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    let age = format!("molt_table_age_seconds{{{label},table=\"held\"}} ");
    let age: f64 = metrics.lines().find_map(|line| line.strip_prefix(&age)).unwrap().parse().unwrap();
    assert!((0.0..60.0).contains(&age), "{age}");
    let (_, all, _) = stat(&["--json"]);
    let all: Vec<Value> = serde_json::from_str(&all).unwrap();
    assert!(all.iter().any(|report| report["segment"]["name"] == worker.shm));

    let (code, out, message) = stat(&["/molt-it-nobody", "--json"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(message.contains("/molt-it-nobody") && message.contains("hint:"), "{message}");
}

/// A worker that hangs cannot answer; the tool does not ask it.
#[test]
fn a_worker_that_is_stopped_is_shown_too() {
    let worker = Worker::plain(&[]);
    let _client = worker.client();
    until_true("a session", || worker.report().sessions.len() == 1);
    worker.stop();
    let report = json_of(&worker.shm);
    worker.signal(Signal::SIGCONT);
    has_the_shape(&report);
    assert_eq!(report["sessions"][0]["pid"], std::process::id());
}
