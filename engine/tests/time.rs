//! Time and room: deadlines, cancelled requests, a full queue. Workers here have one thread, so that one request that does
//! not let go of it would be noticed by the next.

mod common;

use std::path::Path;
use std::time::Duration;

use common::ask::{Answer, Ask, Line, hold_body, marked, queued, timed};
use common::tables::{count, numbers, placed};
use common::{SOON, Worker, library, manifest, until, until_true};
use molt_ipc_shm::client::{Client, ClientBlock, Payload};
use molt_ipc_shm::{Codec, Outcome};
use serde_json::json;

const ONE: [&str; 2] = ["--threads", "1"];
/// A time that passes while a test looks on.
const SHORT: Duration = Duration::from_millis(150);
/// What a request takes at most beyond its deadline, on a machine that does much else.
const LEEWAY: Duration = Duration::from_secs(8);

/// Compares each pair of 100,000 rows by a condition that no pair meets: hours of work without a row of output.
const ENDLESS: &str =
    "select count(*) as n from t a join t b on a.x * 3 + b.x * 7 < -1 join t c on c.x + a.x * b.x < -1";

fn endless(client: &Client) -> std::sync::Arc<ClientBlock> {
    placed(client, &numbers(100_000))
}

fn query<'a>(sql: &str, tables: &'a [(&'a str, std::sync::Arc<ClientBlock>)]) -> Ask<'a> {
    Ask::of("molt.query").params(json!({"sql": sql})).payload(Codec::Arrow as u8, Payload::Tables(tables))
}

/// The only thread is free: a request that needs it is answered.
fn thread_is_free(client: &Client) {
    assert_eq!(count(&query("select 7 as n", &[]).payload(4, Payload::Bytes(&[])).call(client).ok()), 7);
}

/// Calls with a short limit, and doubles it while that passes before the entry has been started, as it may on a machine that
/// does much else: the answer of a request that ran into its deadline.
fn overrun(mut call: impl FnMut(Duration) -> Answer) -> Answer {
    let mut limit = SHORT;
    loop {
        let (answer, took) = timed(|| call(limit));
        let answer = answer.fails(Outcome::Timeout, &[]);
        assert!((limit..limit + LEEWAY).contains(&took), "{took:?} with a limit of {limit:?}");
        // Told by the worker or, when that is late, by the client.
        if !answer.message.contains("queued") && !answer.message.contains("never") {
            return answer;
        }
        assert!(limit < SOON, "never started: {}", answer.message);
        limit *= 2;
    }
}

/// Waits until the entry has learned that its time is up: by itself, or, when it looks late, from the caller who left.
fn learned(mark: &Path) {
    let ended = |found: &String| found == "timeout" || found == "cancelled";
    until("the end of the entry", || std::fs::read_to_string(mark).ok().filter(ended));
}

#[test]
fn a_request_whose_deadline_passes_in_the_queue_is_never_started() {
    let worker = Worker::trial(&ONE);
    let client = worker.client();
    let (mark, gate, late) = (worker.folder.join("mark"), worker.folder.join("gate"), worker.folder.join("late"));
    let (hold, late_body) = (hold_body(&mark, &gate), hold_body(&late, &gate));
    let mut line = Line::open(&client);
    let first = line.send(&Ask::of("trial_hold").body(Codec::Json, &hold));
    marked(&mark, "started");
    let ask = Ask::of("trial_hold").body(Codec::Json, &late_body).timeout(SHORT);
    let ((), took) = timed(|| {
        let second = line.send(&ask);
        line.answer(second).fails(Outcome::Timeout, &["deadline", "queued"]);
    });
    assert!((SHORT..SHORT + LEEWAY).contains(&took), "{took:?}");
    std::fs::write(&gate, "").unwrap();
    line.answer(first).ok();
    thread_is_free(&client);
    assert!(!late.exists(), "it was started after its deadline");
    assert_eq!(worker.report().entries.iter().find(|entry| entry.name == "trial_hold").unwrap().calls, 1);
}

#[test]
fn a_request_without_time_is_never_started() {
    let worker = Worker::trial(&ONE);
    let client = worker.client();
    thread_is_free(&client); // a channel is there
    let (late, gate) = (worker.folder.join("late"), worker.folder.join("gate"));
    let body = hold_body(&late, &gate);
    let ask = Ask::of("trial_hold").body(Codec::Json, &body).timeout(Duration::ZERO);
    let (answer, took) = timed(|| ask.call(&client));
    answer.fails(Outcome::Timeout, &["deadline"]);
    assert!(took < LEEWAY, "{took:?}");
    thread_is_free(&client);
    assert!(!late.exists(), "it was started without time");
}

#[test]
fn a_join_that_runs_for_hours_ends_at_its_deadline() {
    let worker = Worker::plain(&ONE);
    let client = worker.client();
    let tables = [("t", endless(&client))];
    overrun(|limit| query(ENDLESS, &tables).timeout(limit).call(&client));
    thread_is_free(&client);
    // Nothing of it runs on: its table is let go of.
    drop(tables);
    until_true("an empty arena", || worker.report().arena.used_bytes == 0);
}

#[test]
fn an_entrys_own_limit_caps_what_the_caller_asks_for() {
    let limit = SHORT.as_millis() as u64;
    let exports = json!([
        {"name": "slow", "kind": "sql", "sql": ENDLESS, "input": "t", "timeout_ms": limit},
        {"name": "trial_wait", "kind": "native", "library": library("trial_entries"), "timeout_ms": limit}]);
    let worker = Worker::with(&manifest(exports), &ONE);
    let client = worker.client();
    let table = endless(&client);
    let slow = Ask::of("slow").payload(Codec::Arrow as u8, Payload::Block(&table));
    let mark = worker.folder.join("mark");
    let body = json!({"mark": mark}).to_string();
    let overruns = |ask: &Ask| {
        let (answer, took) = timed(|| ask.call(&client));
        answer.fails(Outcome::Timeout, &[]);
        assert!((SHORT..SHORT + LEEWAY).contains(&took), "{took:?}");
        thread_is_free(&client);
    };
    overruns(&slow);
    // Where the machine is busy the limit may pass before the entry is started, and it never is.
    until_true("it is started in time", || {
        overruns(&Ask::of("trial_wait").body(Codec::Json, body.as_bytes()));
        mark.exists()
    });
    learned(&mark);
}

#[test]
fn a_native_entry_learns_of_its_deadline_and_one_that_does_not_ask_is_not_waited_for() {
    let worker = Worker::trial(&ONE);
    let client = worker.client();
    let mark = worker.folder.join("mark");
    let body = json!({"mark": mark}).to_string();
    overrun(|limit| Ask::of("trial_wait").body(Codec::Json, body.as_bytes()).timeout(limit).call(&client));
    learned(&mark);
    thread_is_free(&client);

    let (mark, gate) = (worker.folder.join("held"), worker.folder.join("gate"));
    let body = hold_body(&mark, &gate);
    overrun(|limit| Ask::of("trial_hold").body(Codec::Json, &body).timeout(limit).call(&client))
        .fails(Outcome::Timeout, &["running"]);
    // Its late answer is dropped; the channel that it came on serves on.
    std::fs::write(&gate, "").unwrap();
    thread_is_free(&client);
}

#[test]
fn taking_a_request_back_reaches_a_native_entry_that_runs() {
    let worker = Worker::trial(&ONE);
    let client = worker.client();
    let mark = worker.folder.join("mark");
    let body = json!({"mark": mark}).to_string();
    let mut line = Line::open(&client);
    let id = line.send(&Ask::of("trial_wait").body(Codec::Json, body.as_bytes()));
    marked(&mark, "started");
    line.cancel(id);
    marked(&mark, "cancelled");
    thread_is_free(&client);
    assert!(line.look(id).is_none(), "an answer to nobody");
    worker.counts("cancelled", 1);
}

#[test]
fn taking_a_request_back_reaches_a_join_that_runs() {
    let worker = Worker::plain(&ONE);
    let client = worker.client();
    let tables = [("t", endless(&client))];
    let mut line = Line::open(&client);
    let id = line.send(&query(ENDLESS, &tables));
    // Taken out of the ring, and not waiting in the queue: it runs.
    until_true("a running query", || worker.report().sessions[0].in_flight == 1);
    queued(&client, 0);
    line.cancel(id);
    thread_is_free(&client);
    drop(tables);
    // The channel keeps the table until it has seen that the worker is done with it.
    until_true("an empty arena", || line.look(id).is_none() && worker.report().arena.used_bytes == 0);
    worker.counts("cancelled", 1);
}

#[test]
fn a_client_that_leaves_takes_its_requests_with_it() {
    let worker = Worker::trial(&ONE);
    let (client, other) = (worker.client(), worker.client());
    let mark = worker.folder.join("mark");
    let body = json!({"mark": mark}).to_string();
    let mut line = Line::open(&client);
    line.send(&Ask::of("trial_wait").body(Codec::Json, body.as_bytes()));
    marked(&mark, "started");
    drop((line, client));
    marked(&mark, "cancelled");
    thread_is_free(&other);
}

#[test]
fn a_request_taken_back_in_the_queue_is_never_started() {
    let worker = Worker::trial(&ONE);
    let client = worker.client();
    let (mark, gate, late) = (worker.folder.join("mark"), worker.folder.join("gate"), worker.folder.join("late"));
    let (hold, late_body) = (hold_body(&mark, &gate), hold_body(&late, &gate));
    let mut line = Line::open(&client);
    let first = line.send(&Ask::of("trial_hold").body(Codec::Json, &hold));
    marked(&mark, "started");
    let second = line.send(&Ask::of("trial_hold").body(Codec::Json, &late_body));
    queued(&client, 1);
    line.cancel(second);
    queued(&client, 0); // it leaves its place at once, though no thread is free
    std::fs::write(&gate, "").unwrap();
    line.answer(first).ok();
    thread_is_free(&client);
    assert!(!late.exists(), "it was started after it was taken back");
    worker.counts("cancelled", 1);
}

#[test]
fn a_full_queue_is_busy_at_once_and_empties_again() {
    let worker = Worker::trial(&["--threads", "1", "--queue", "2"]);
    let client = worker.client();
    let (mark, gate) = (worker.folder.join("mark"), worker.folder.join("gate"));
    let body = hold_body(&mark, &gate);
    let hold = Ask::of("trial_hold").body(Codec::Json, &body);
    let mut line = Line::open(&client);
    let first = line.send(&hold);
    marked(&mark, "started");
    let waiting = [line.send(&hold), line.send(&hold)];
    queued(&client, 2);
    let waited = std::time::Instant::now();
    for _ in 0..3 {
        let (answer, took) = timed(|| hold.call(&client));
        answer.fails(Outcome::Busy, &["queue is full", "2 requests", "--queue", "hint:"]);
        assert!(took < LEEWAY, "{took:?}");
    }
    let queued_for = waited.elapsed();
    std::fs::write(&gate, "").unwrap();
    let first = line.answer(first).ok();
    assert_eq!(first.head.queue_depth, 0);
    for (id, depth) in waiting.into_iter().zip(0..) {
        let head = line.answer(id).ok().head;
        assert_eq!(head.queue_depth, depth, "how many waited when it came");
        assert!(u128::from(head.queue_us) >= queued_for.as_micros(), "{head:?}, {queued_for:?}");
    }
    hold.call(&client).ok();
    worker.counts("busy", 3);
}

#[test]
fn busy_says_when_to_come_back_by_how_long_requests_run() {
    let worker = Worker::trial(&["--threads", "1", "--queue", "2"]);
    let client = worker.client();
    Ask::of("trial_turn").body(Codec::Json, br#"{"ms": 400}"#).call(&client).ok();
    let (mark, gate) = (worker.folder.join("mark"), worker.folder.join("gate"));
    let body = hold_body(&mark, &gate);
    let hold = Ask::of("trial_hold").body(Codec::Json, &body);
    let mut line = Line::open(&client);
    let first = line.send(&hold);
    marked(&mark, "started");
    let ids = [first, line.send(&hold), line.send(&hold)];
    queued(&client, 2);
    let answer = hold.call(&client).fails(Outcome::Busy, &["queue is full"]);
    let after = answer.details.as_ref().and_then(|details| details["retry_after"].as_f64());
    // Two wait, and the one request that was measured ran for 0.4 s at least.
    assert!(after.is_some_and(|after| (0.8..=30.0).contains(&after)), "{answer:?}");
    std::fs::write(&gate, "").unwrap();
    ids.into_iter().for_each(|id| drop(line.answer(id).ok()));
}

#[test]
fn short_entries_are_answered_while_every_thread_is_taken() {
    let worker = Worker::trial(&["--threads", "1", "--queue", "1"]);
    let client = worker.client();
    let (mark, gate) = (worker.folder.join("mark"), worker.folder.join("gate"));
    let body = hold_body(&mark, &gate);
    let hold = Ask::of("trial_hold").body(Codec::Json, &body);
    let mut line = Line::open(&client);
    let first = line.send(&hold);
    marked(&mark, "started");
    let ids = [first, line.send(&hold)];
    queued(&client, 1);
    for _ in 0..100 {
        let answer = Ask::of("echo").body(Codec::Raw, b"here").call(&client);
        assert_eq!((answer.bytes(), answer.head.queue_depth), (b"here".to_vec(), 1));
    }
    std::fs::write(&gate, "").unwrap();
    ids.into_iter().for_each(|id| drop(line.answer(id).ok()));
}
