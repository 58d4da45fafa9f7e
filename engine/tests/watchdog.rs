//! An entry that never ends and never asks: its caller is told in time, and the worker is replaced, or says what is wrong.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::ask::{Ask, Line, health, hold_body, marked, timed};
use common::load::{self, Kind, Load, all_go_on, nothing_was_lost};
use common::{Folder, Worker, address, look, manifest, names_of, trial_manifest, until, until_true};
use molt_ipc_shm::client::Client;
use molt_ipc_shm::doctor::{self, Ill};
use molt_ipc_shm::{Codec, Outcome};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::json;

/// The time that a request has whose entry never ends.
const SHORT: Duration = Duration::from_millis(300);
/// What a request takes at most beyond its deadline, on a machine that does much else.
const LEEWAY: Duration = Duration::from_secs(8);
const GRACE: [&str; 2] = ["--grace", "0.5"];
const TURN: &[u8] = br#"{"ms": 0}"#;

#[test]
fn load_role() {
    load::play();
}

fn supervised(threads: &str) -> Worker {
    let args = [&["--threads", threads, "--supervise"][..], &GRACE].concat();
    Worker::start(Folder::new(), Some(&trial_manifest()), &args)
}

fn serving_pid(worker: &Worker) -> Option<u32> {
    let segment = address(&worker.shm).look(Duration::from_millis(200)).ok()?;
    segment.serving().ok().map(|segment| segment.header.worker_pid)
}

/// Waits until another worker serves and the one before it has gone.
fn replaced(worker: &Worker, before: u32) -> u32 {
    let now = until("another worker", || serving_pid(worker).filter(|pid| *pid != before));
    until_true("the end of the former one", || kill(Pid::from_raw(before as i32), None).is_err());
    now
}

/// Calls an entry that does not end, and expects its caller to be told in time. Returns the file that would let it go.
fn never_ends(worker: &Worker, client: &Client, which: &str) -> PathBuf {
    let (mark, gate) = (worker.folder.join(&format!("mark{which}")), worker.folder.join(&format!("gate{which}")));
    let body = hold_body(&mark, &gate);
    let (mut limit, mut started) = (SHORT, false);
    // On a machine that does much else the limit may pass before the entry is started.
    while !started {
        let (answer, took) = timed(|| Ask::of("trial_hold").body(Codec::Json, &body).timeout(limit).call(client));
        answer.fails(Outcome::Timeout, &[]);
        assert!((limit..limit + LEEWAY).contains(&took), "{took:?} with a limit of {limit:?}");
        started = mark.exists();
        limit *= 2;
    }
    gate
}

/// What `molt-shm-stat doctor` says of requests that do not end.
fn overdue(worker: &Worker) -> Option<String> {
    let findings = doctor::examine(&look(&worker.shm).unwrap());
    findings.into_iter().find(|finding| finding.ill == Ill::Overdue).map(|finding| finding.text)
}

/// A request must not run twice in half of the load: whoever is cut off while it runs has lost it.
#[test]
fn a_supervised_worker_is_replaced_under_load_and_nobody_else_loses_a_request() {
    let worker = supervised("2");
    let client = worker.client();
    let before = serving_pid(&worker).unwrap();
    let mut loads = Load::of(&worker, &[Kind::Once, Kind::Idempotent], 3);
    all_go_on(&mut loads, 20);
    never_ends(&worker, &client, "");
    let now = replaced(&worker, before);
    all_go_on(&mut loads, 20);
    nothing_was_lost(loads);
    assert_eq!(serving_pid(&worker), Some(now));
    let log = worker.log();
    let line = log.lines().find(|line| line.contains("runs on though its time is up"));
    let origin = format!("entry=\"trial_hold\" pid={}", std::process::id());
    assert!(line.is_some_and(|line| line.contains(&origin)), "{log}");
    assert_eq!(names_of(&worker.shm).len(), 1);
    assert_eq!(health(&client)["status"], "ok");
}

#[test]
fn what_waits_behind_entries_that_do_not_end_is_answered_by_the_next_worker() {
    let worker = supervised("1");
    let client = worker.client();
    let before = serving_pid(&worker).unwrap();
    never_ends(&worker, &client, "");
    // The only thread is taken: these wait, and have not run when the worker goes.
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Ask::of("trial_turn").body(Codec::Json, TURN).idempotent(false).call(&client)))
            .collect();
        calls.into_iter().for_each(|call| drop(call.join().unwrap().ok()));
    });
    assert_ne!(replaced(&worker, before), before);
}

#[test]
fn what_runs_beside_it_is_finished_before_the_worker_goes() {
    let worker = supervised("2");
    let client = worker.client();
    let before = serving_pid(&worker).unwrap();
    let (mark, gate) = (worker.folder.join("mark-other"), worker.folder.join("gate-other"));
    let body = hold_body(&mark, &gate);
    let mut line = Line::open(&client);
    let other = line.send(&Ask::of("trial_hold").body(Codec::Json, &body));
    marked(&mark, "started");
    never_ends(&worker, &client, "");
    until_true("another worker", || serving_pid(&worker).is_some_and(|pid| pid != before));
    kill(Pid::from_raw(before as i32), None).expect("the former worker still runs a request in time");
    std::fs::write(&gate, "").unwrap();
    line.answer(other).ok();
    replaced(&worker, before);
}

#[test]
fn without_a_supervisor_the_log_and_the_doctor_say_so_until_it_ends() {
    let worker = Worker::trial(&[&["--threads", "2"][..], &GRACE].concat());
    let client = worker.client();
    assert_eq!(overdue(&worker), None);
    let gate = never_ends(&worker, &client, "");
    let said = until("a finding", || overdue(&worker));
    assert!(
        said.contains("trial_hold") && said.contains("1 of the worker's threads") && said.contains("--replace"),
        "{said}"
    );
    assert_eq!(health(&client)["status"], "degraded");
    assert_eq!(worker.report().worker.overdue, 1);
    let log = worker.log();
    assert!(log.contains("trial_hold") && log.contains("runs on") && log.contains("--supervise"), "{log}");
    std::fs::write(gate, "").unwrap();
    until_true("a sound worker", || overdue(&worker).is_none());
    assert_eq!((health(&client)["status"].as_str(), worker.report().worker.overdue), (Some("ok"), 0));
    assert_eq!(worker.log().matches("runs on though").count(), 1, "told once: {}", worker.log());
}

/// It learns that nobody waits, and ends: that is no matter for the watchdog.
#[test]
fn an_entry_that_asks_is_left_alone() {
    let worker = supervised("1");
    let client = worker.client();
    let before = serving_pid(&worker).unwrap();
    let mark = worker.folder.join("mark");
    let body = json!({"mark": mark}).to_string();
    for _ in 0..4 {
        let ask = Ask::of("trial_wait").body(Codec::Json, body.as_bytes()).timeout(SHORT);
        ask.call(&client).fails(Outcome::Timeout, &[]);
    }
    Ask::of("trial_turn").body(Codec::Json, TURN).call(&client).ok();
    assert_eq!((serving_pid(&worker), worker.log().contains("runs on though")), (Some(before), false));
}

/// The manifest is broken meanwhile: no successor can start, and the old worker has no thread left. Mended, the next one
/// serves, and what has waited all the time is answered.
#[test]
fn a_blocked_worker_that_nobody_can_succeed_is_killed_and_started_again() {
    let worker = supervised("1");
    let client = worker.client();
    let before = serving_pid(&worker).unwrap();
    let exports = worker.folder.join("exports.json");
    std::fs::write(&exports, manifest(json!([{"name": "x", "kind": "nothing"}]))).unwrap();
    never_ends(&worker, &client, "");
    until_true("a successor that cannot start", || worker.log().contains("the new worker could not start"));
    std::thread::scope(|scope| {
        let ask = || Ask::of("trial_turn").body(Codec::Json, TURN).timeout(Duration::from_secs(60)).call(&client);
        let waits = scope.spawn(ask);
        until_true("the end of the blocked one", || kill(Pid::from_raw(before as i32), None).is_err());
        std::fs::write(&exports, trial_manifest()).unwrap();
        waits.join().unwrap().ok();
    });
    assert!(worker.log().contains("it is killed"), "{}", worker.log());
}
