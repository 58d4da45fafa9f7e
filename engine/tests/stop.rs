//! How a worker ends: told to, told twice, killed; and under a supervisor.

mod common;

use std::path::PathBuf;

use common::ask::{Answer, Ask, Line, health, hold_body, marked, queued, timed};
use common::{Folder, SOON, Worker, library, manifest, names_of, run, trial_manifest, unique_shm, until, until_true};
use molt_ipc_shm::client::Client;
use molt_ipc_shm::stats::EntryStats;
use molt_ipc_shm::{Codec, Outcome, Segment};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::json;

/// One request that runs and one that waits for the only thread.
struct Busy {
    client: Client,
    line: Line,
    body: Vec<u8>,
    gate: PathBuf,
    running: u64,
    waiting: u64,
    /// The segment as this test has it: the name may go.
    segment: Segment,
}

impl Busy {
    fn of(worker: &Worker) -> Self {
        let client = worker.client();
        let (mark, gate) = (worker.folder.join("mark"), worker.folder.join("gate"));
        let body = hold_body(&mark, &gate);
        let mut line = Line::open(&client);
        let running = line.send(&Ask::of("trial_hold").body(Codec::Json, &body));
        marked(&mark, "started");
        let waiting = line.send(&Ask::of("trial_hold").body(Codec::Json, &body));
        queued(&client, 1);
        let segment = common::look(&worker.shm).unwrap();
        Self { client, line, body, gate, running, waiting, segment }
    }

    fn is_stopping(&self) {
        until_true("a worker that stops", || self.segment.state_name() == "stopping");
    }

    /// Lets what is held go on.
    fn let_go(&self) {
        std::fs::write(&self.gate, "").unwrap();
    }

    fn answers(&mut self) -> (Answer, Answer) {
        (self.line.answer(self.running), self.line.answer(self.waiting))
    }
}

#[track_caller]
fn nothing_is_left(worker: &Worker) {
    assert_eq!(names_of(&worker.shm), [""; 0], "{}", worker.log());
    assert!(!worker.socket().exists(), "{}", worker.log());
}

fn stops_in_good_order(signal: Signal) {
    let mut worker = Worker::trial(&["--threads", "1"]);
    let mut busy = Busy::of(&worker);
    worker.signal(signal);
    busy.is_stopping();
    // What comes now is refused, and a newcomer is told why.
    let late = busy.line.send(&Ask::of("trial_hold").body(Codec::Json, &busy.body));
    busy.line.answer(late).fails(Outcome::Unavailable, &["stopping", "not started"]);
    let newcomer = common::find(&worker.shm, std::time::Duration::ZERO).unwrap_err();
    assert!(newcomer.message.contains("stopping"), "{}", newcomer.message);
    assert!(worker.ended_by_now().is_none(), "it ended before what ran: {}", worker.log());
    busy.let_go();
    let (running, waiting) = busy.answers();
    assert_eq!(running.ok().value::<String>(), "held", "what ran is finished");
    waiting.fails(Outcome::Unavailable, &["stopping", "not started"]);
    let status = worker.ended();
    assert!(status.success(), "{status}: {}", worker.log());
    nothing_is_left(&worker);
    let after = Ask::of("health").call(&busy.client);
    after.fails(Outcome::Unavailable, &[&worker.shm, "hint:"]);
}

#[test]
fn sigterm_finishes_what_runs_and_refuses_the_rest() {
    stops_in_good_order(Signal::SIGTERM);
}

#[test]
fn ctrl_c_does_the_same() {
    stops_in_good_order(Signal::SIGINT);
}

#[test]
fn an_idle_worker_stops_while_clients_are_attached() {
    let mut worker = Worker::plain(&[]);
    let client = worker.client();
    let (held, _) = (Ask::of("echo").body(Codec::Raw, &[7; 100_000]).call(&client).ok(), health(&client));
    worker.signal(Signal::SIGTERM);
    assert!(worker.ended().success(), "{}", worker.log());
    nothing_is_left(&worker);
    assert_eq!(held.bytes(), [7; 100_000], "what a client holds stays readable");
    Ask::of("health").call(&client).fails(Outcome::Unavailable, &[&worker.shm]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut worker = Worker::trial(&["--threads", "1"]);
    let mut busy = Busy::of(&worker);
    worker.signal(Signal::SIGTERM);
    busy.is_stopping();
    // Told again and again, as an impatient person does: the gate stays shut.
    let status = until("the end", || {
        worker.signal_if_there(Signal::SIGTERM);
        worker.ended_by_now()
    });
    assert!(status.code().is_some(), "{status}");
    nothing_is_left(&worker);
    let (running, _) = busy.answers();
    running.fails(Outcome::WorkerLost, &["may have run", "hint:"]);
}

#[test]
fn after_kill_9_the_cell_tells_what_ran_from_what_never_did() {
    let mut worker = Worker::trial(&["--threads", "1"]);
    let mut busy = Busy::of(&worker);
    worker.signal(Signal::SIGKILL);
    worker.ended();
    let (running, waiting) = busy.answers();
    let pid = format!("pid {}", worker.pid());
    running.fails(Outcome::WorkerLost, &[&worker.shm, &pid, "may have run"]);
    waiting.fails(Outcome::Unavailable, &[&worker.shm, &pid, "never ran"]);
    // A new start takes the name; what is idempotent is sent again by itself.
    let socket = worker.socket().display().to_string();
    let exports = worker.folder.join("exports.json").display().to_string();
    let args = ["--socket", &socket, "--exports", &exports];
    let next = Worker::launch(worker.shm.clone(), worker.folder.clone(), &args).serves();
    assert_eq!(health(&busy.client)["pid"], next.pid());
    assert_eq!(names_of(&worker.shm), [&worker.shm[1..]]);
}

/// Kills a worker while it runs two requests and its successor serves already: one that may be run twice, one that may not.
fn lost_while_running(exports: &str, once: impl Fn(Ask) -> Ask, again: impl Fn(Ask) -> Ask) {
    let mut old = Worker::with(exports, &["--threads", "2"]);
    let client = old.client();
    let gate = old.folder.join("gate");
    let marks = ["once", "again"].map(|name| old.folder.join(name));
    let bodies = marks.each_ref().map(|mark| hold_body(mark, &gate));
    let asks = bodies.each_ref().map(|body| Ask::of("trial_hold").body(Codec::Json, body));
    let (once, again) = (once(asks[0].clone()), again(asks[1].clone()));
    std::thread::scope(|scope| {
        let (once, again) = (scope.spawn(|| once.call(&client)), scope.spawn(|| again.call(&client)));
        marks.iter().for_each(|mark| marked(mark, "started"));
        let next = successor_of(&old);
        old.signal(Signal::SIGKILL);
        old.ended();
        once.join().unwrap().fails(Outcome::WorkerLost, &["may have run"]);
        std::fs::write(&gate, "").unwrap();
        let again = again.join().unwrap();
        assert_eq!((again.value::<String>(), again.resent), ("held".into(), true));
        assert_eq!(health(&client)["pid"], next.pid());
    });
}

/// Starts the next worker of that name, manifest and socket, and waits until it serves. The old one finishes what it runs.
fn successor_of(old: &Worker) -> Worker {
    let (socket, exports) = (old.socket(), old.folder.join("exports.json"));
    let args = ["--replace", "--socket", socket.to_str().unwrap(), "--exports", exports.to_str().unwrap()];
    let next = Worker::launch(old.shm.clone(), old.folder.clone(), &args);
    let serving = || common::look(&old.shm).ok().and_then(|segment| segment.serving().ok());
    let serves = || serving().is_some_and(|new| new.header.worker_pid == next.pid());
    until_true("the next worker", serves);
    next
}

#[test]
fn a_lost_request_is_sent_again_if_its_caller_says_that_does_no_harm() {
    lost_while_running(&trial_manifest(), |ask| ask, |ask| ask.idempotent(true));
}

#[test]
fn a_lost_request_is_sent_again_if_its_entry_says_that_does_no_harm() {
    let entry =
        json!({"name": "trial_hold", "kind": "native", "library": library("trial_entries"), "idempotent": true});
    lost_while_running(&manifest(json!([entry])), |ask| ask.idempotent(false), |ask| ask);
}

/// What a worker's segment tells its clients about sending again.
#[test]
fn queries_and_built_in_entries_may_always_be_sent_again() {
    let library = library("trial_entries");
    let exports = json!([
        {"name": "trial_hold", "kind": "native", "library": library},
        {"name": "trial_wait", "kind": "native", "library": library, "idempotent": true},
        {"name": "ones", "kind": "sql", "sql": "select 1 as one"}]);
    let worker = Worker::with(&manifest(exports), &[]);
    let segment = common::look(&worker.shm).unwrap();
    let entries = (0..).map_while(|index| EntryStats::read(&segment.map, &segment.geometry, index));
    let never: Vec<String> = entries.filter(|entry| !entry.idempotent).map(|entry| entry.name).collect();
    assert_eq!(never, ["trial_hold"]);
}

#[test]
fn a_request_that_never_ends_holds_up_the_end_for_ten_seconds_only() {
    let mut worker = Worker::trial(&["--threads", "1"]);
    let mut busy = Busy::of(&worker);
    worker.signal(Signal::SIGTERM);
    let (status, took) = timed(|| worker.ended());
    assert!((9..15).contains(&took.as_secs()), "{took:?}");
    assert!(status.code().is_some(), "{status}");
    nothing_is_left(&worker);
    let (running, waiting) = busy.answers();
    running.fails(Outcome::WorkerLost, &["may have run"]);
    assert_eq!(waiting.outcome, Outcome::Unavailable, "{}", waiting.message);
}

fn supervised() -> Worker {
    Worker::start(Folder::new(), Some(&trial_manifest()), &["--threads", "1", "--supervise"])
}

/// Waits for a worker with another pid than this one, asked through a client that was there before.
fn successor(client: &Client, before: &serde_json::Value) -> serde_json::Value {
    until("the next worker", || {
        let answer = Ask::of("health").call(client);
        let pid = (answer.outcome == Outcome::Ok).then(|| answer.value::<serde_json::Value>()["pid"].clone())?;
        (pid != *before).then_some(pid)
    })
}

#[test]
fn a_supervised_worker_is_started_again_and_stops_when_its_supervisor_is_told() {
    let mut worker = supervised();
    let client = worker.client();
    let mut pid = health(&client)["pid"].clone();
    assert_ne!(pid, worker.pid(), "the supervisor is not the worker");
    for _ in 0..2 {
        kill(Pid::from_raw(pid.as_i64().unwrap() as i32), Signal::SIGKILL).unwrap();
        pid = successor(&client, &pid);
        assert_eq!(names_of(&worker.shm), [&worker.shm[1..]]);
        assert!(worker.socket().exists());
    }
    let mut busy = Busy::of(&worker);
    worker.signal(Signal::SIGTERM);
    busy.is_stopping();
    busy.let_go();
    busy.answers().0.ok();
    assert!(worker.ended().success(), "{}", worker.log());
    nothing_is_left(&worker);
}

/// A terminal sends Ctrl-C to the whole group of processes, a service manager its signal to the whole service: the worker
/// hears it from both, and must not take that for a second one.
#[test]
fn a_signal_to_supervisor_and_worker_both_is_one_signal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut worker = supervised();
        let mut busy = Busy::of(&worker);
        let own = worker.report().worker.pid as i32;
        match signal {
            Signal::SIGINT => killpg(Pid::from_raw(worker.pid() as i32), signal).unwrap(),
            _ => [own, worker.pid() as i32].into_iter().for_each(|pid| kill(Pid::from_raw(pid), signal).unwrap()),
        }
        busy.is_stopping();
        // The supervisor has heard it too once it has handed it on, which it says or does; then the gate opens.
        until_true("both have heard it", || worker.log().contains("stopping: what runs is finished"));
        let late = busy.line.send(&Ask::of("trial_hold").body(Codec::Json, &busy.body));
        busy.line.answer(late).fails(Outcome::Unavailable, &["stopping"]);
        busy.let_go();
        let (running, _) = busy.answers();
        assert_eq!(running.outcome, Outcome::Ok, "{}; log: {}", running.message, worker.log());
        assert!(worker.ended().success(), "{}", worker.log());
        nothing_is_left(&worker);
    }
}

#[test]
fn a_supervised_worker_that_is_replaced_is_not_started_again() {
    let mut old = supervised();
    let client = old.client();
    let next = successor_of(&old);
    assert!(old.ended().success(), "{}", old.log());
    assert_eq!(old.log().matches("the worker is started").count(), 1, "{}", old.log());
    assert_eq!(health(&client)["pid"], next.pid());
}

#[test]
fn a_killed_supervisor_takes_its_worker_with_it() {
    let mut worker = supervised();
    let client = worker.client();
    let own = health(&client)["pid"].as_i64().unwrap() as i32;
    worker.signal(Signal::SIGKILL);
    worker.ended();
    until_true("the worker's end", || kill(Pid::from_raw(own), None).is_err());
    nothing_is_left(&worker);
}

#[test]
fn a_supervisor_does_not_start_what_cannot_start_again_and_again() {
    let folder = Folder::new();
    let file = folder.write("exports.json", r#"{"abi_version": 1, "exports": [{"name": "f", "kind": "wasm"}]}"#);
    let (shm, file) = (unique_shm(), file.display().to_string());
    let args = ["--shm", &shm, "--exports", &file, "--arena", "1MiB", "--supervise"];
    let (code, _, message) = run(common::WORKER, folder.path(), &args);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("entry \"f\"") && message.contains("\"kind\""), "{message}");
    assert_eq!(message.matches("the worker is started").count(), 1, "{message}");
    assert_eq!(names_of(&shm), [""; 0]);
}

#[test]
fn a_client_waits_for_a_worker_that_is_about_to_start() {
    let folder = std::sync::Arc::new(Folder::new());
    let (shm, start) = match common::nameless() {
        true => (folder.join("w.sock").display().to_string(), "molt_worker --memfd --socket"),
        false => (unique_shm(), "molt_worker --shm"),
    };
    let absent = common::find(&shm, std::time::Duration::ZERO).unwrap_err();
    assert_eq!(absent.outcome, Outcome::Unavailable);
    for part in [&shm, "hint:", start] {
        assert!(absent.message.contains(part), "{}", absent.message);
    }
    let worker = std::thread::scope(|scope| {
        let client = scope.spawn(|| common::find(&shm, SOON).map(|client| health(&client)["status"].clone()));
        let worker = Worker::launch(shm.clone(), folder, &[]);
        assert_eq!(client.join().unwrap().unwrap(), "ok");
        worker
    });
    drop(worker);
}
