//! A client process that floods the worker keeps nobody else waiting: fair shares of the queue, turns for its threads.

mod common;

use std::time::{Duration, Instant};

use common::ask::{Ask, Line, hold_body, marked, queued};
use common::load::{self, FLOOD_DEPTH, Kind, Load};
use common::{Worker, until_true};
use molt_ipc_shm::Codec;
use molt_ipc_shm::client::Client;
use nix::sys::signal::Signal;

const TURN: &[u8] = br#"{"ms": 0}"#;

#[test]
fn load_role() {
    load::play();
}

/// A worker whose only thread is held until the gate is written, and a client of this process.
fn held(args: &[&str]) -> (Worker, Client, Line, std::path::PathBuf) {
    let worker = Worker::trial(&[&["--threads", "1"], args].concat());
    let client = worker.client();
    let (mark, gate) = (worker.folder.join("mark"), worker.folder.join("gate"));
    let body = hold_body(&mark, &gate);
    let mut line = Line::open(&client);
    line.send(&Ask::of("trial_hold").body(Codec::Json, &body));
    marked(&mark, "started");
    (worker, client, line, gate)
}

/// Waits until that many requests of this process have been taken from its ring.
fn taken(worker: &Worker, count: u32) {
    let own = || {
        let report = worker.report();
        let mine = report.sessions.iter().filter(|session| session.pid == std::process::id());
        mine.map(|session| session.in_flight).sum::<u32>()
    };
    until_true("the requests of this process in the worker", || own() == count);
}

/// First come, first served would serve the fifty of the flood before, and refuse whoever comes to a full queue.
#[test]
fn whoever_comes_to_a_queue_that_another_process_has_filled_finds_room_and_is_next_but_one() {
    let (worker, client, mut line, gate) = held(&["--queue", "50"]);
    let mut flood = Load::start(&worker, Kind::Flood { run_ms: 0, timeout_ms: 60_000 }, 2);
    queued(&client, 50);
    flood.goes_on(200); // each of them Busy: nothing runs
    let ids = [0; 3].map(|_| line.send(&Ask::of("trial_turn").body(Codec::Json, TURN)));
    taken(&worker, 4);
    queued(&client, 50);
    std::fs::write(&gate, "").unwrap();
    for (id, place) in ids.into_iter().zip(1..) {
        let number: u64 = line.answer(id).value();
        assert!(number <= 2 * place, "request {place} of this process was the {number}th to begin");
    }
    let tally = flood.end();
    assert!(tally.wrong.is_empty() && tally.busy >= 200, "{tally:?}");
}

/// The flood has 200 requests in flight, 20 ms each, on two threads: first come, first served is 2 s for everybody.
#[test]
fn a_polite_clients_time_is_bounded_by_what_runs_not_by_what_another_process_has_sent() {
    let worker = Worker::trial(&["--threads", "2", "--queue", "256"]);
    let client = worker.client();
    let mut flood = Load::start(&worker, Kind::Flood { run_ms: 20, timeout_ms: 60_000 }, 2);
    flood.goes_on(FLOOD_DEPTH as u64);
    let mut times: Vec<Duration> = (0..15)
        .map(|_| {
            let began = Instant::now();
            Ask::of("trial_turn").body(Codec::Json, TURN).call(&client).ok();
            began.elapsed()
        })
        .collect();
    times.sort();
    let tally = flood.end();
    println!(
        "median {:?}, longest {:?}, beside {} requests",
        times[times.len() / 2],
        times[times.len() - 1],
        tally.right
    );
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
}

/// The worker keeps deadlines by itself: the process that sent these is stopped, and takes nothing back.
#[test]
fn what_expires_in_the_queue_leaves_it_while_every_thread_is_taken() {
    let (worker, client, mut line, gate) = held(&["--queue", "50"]);
    let flood = Load::start(&worker, Kind::Flood { run_ms: 0, timeout_ms: 4_000 }, 1);
    queued(&client, 50);
    flood.signal(Signal::SIGSTOP);
    queued(&client, 0);
    assert!(worker.report().totals["timeout"].as_u64() > Some(0), "{:?}", worker.report().totals);
    std::fs::write(&gate, "").unwrap();
    let id = line.send(&Ask::of("trial_turn").body(Codec::Json, TURN));
    assert_eq!(line.answer(id).value::<u64>(), 1, "none of them was started");
}

#[test]
fn what_a_killed_process_has_sent_leaves_the_queue_while_every_thread_is_taken() {
    let (worker, client, mut line, gate) = held(&["--queue", "50"]);
    let flood = Load::start(&worker, Kind::Flood { run_ms: 0, timeout_ms: 60_000 }, 1);
    queued(&client, 50);
    drop(flood); // kill -9
    queued(&client, 0);
    std::fs::write(&gate, "").unwrap();
    let id = line.send(&Ask::of("trial_turn").body(Codec::Json, TURN));
    assert_eq!(line.answer(id).value::<u64>(), 1, "none of them was started");
}
