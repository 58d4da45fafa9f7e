//! Processes that die, stop and start anew: what their partners see, and what comes back.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::child::{self, Child};
use common::worker::{ThreadWorker, attach, report, spawn};
use common::{Names, PATIENCE, call, descriptors, descriptors_at_rest, pattern, request, until};
use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::{Body, Called, LoopChannel, Request, Submitted};
use molt_ipc_shm::layout::HEARTBEAT_AT;
use nix::sys::signal::Signal;

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role), ("client", client_role)]);
}

/// `client NAME`: holds results, blocks and requests in flight, says so, and goes on calling until it is killed.
fn client_role(words: &[String]) {
    let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
    let session = client.session().expect("a session");
    let held: Vec<_> =
        (0..3).map(|_| call(&client, &request("big", &600_000_u64.to_le_bytes())).expect("an answer")).collect();
    assert!(held.iter().all(|reply| matches!(reply.body, Body::Leased(_))));
    let block = session.block(2 << 20).expect("room");
    let mut channel = LoopChannel::open(&session).expect("a channel");
    for entry in ["hold", "queue", "hold"] {
        assert!(matches!(channel.submit(&request(entry, &[1; 50_000])), Submitted::Id(_)));
    }
    child::say("loaded");
    for round in 0_u64.. {
        call(&client, &request("echo", &pattern(round, (round * 777 % 40_000) as usize))).expect("an answer");
    }
    drop((held, block));
}

/// Faults 1-6: whatever a killed client was doing, its slot, channels, extents, leases and descriptors come back.
#[test]
fn all_that_a_killed_client_had_comes_back() {
    let worker = ThreadWorker::start();
    let witness = worker.client();
    call(&witness, &request("echo", b"here")).expect("an answer");
    until("a baseline", || worker.report().sessions.len() == 1 && worker.report().arena.used_bytes == 0);
    let scans = || worker.host.segment.map.u64(HEARTBEAT_AT).load(Ordering::Acquire);
    let (mut times, mut without_a_scan) = (Vec::new(), 0);
    for _ in 0..12 {
        let mut client = Child::start(&["client", &worker.names.shm]);
        assert_eq!(client.line(), "loaded");
        until("its load is seen", || {
            let seen = worker.report();
            let session = seen.sessions.iter().find(|session| session.pid == client.pid()).expect("its session");
            session.arena_bytes >= 2 << 20 && session.channels >= 2 && session.leases >= 3 && session.in_flight >= 3
        });
        // Right after the look that comes every 100 ms: the next one is far.
        let last = scans();
        until("a full scan", || scans() != last);
        let (last, killed) = (scans(), Instant::now());
        client.kill();
        until("its slot, channels and extents are back", || {
            let report = worker.report();
            report.sessions.len() == 1 && report.arena.used_bytes == 0
        });
        times.push(killed.elapsed());
        without_a_scan += u32::from(scans() == last);
        assert_eq!(call(&witness, &request("echo", b"still")).expect("others go on").to_vec(), b"still");
    }
    assert!(median(&mut times) <= SHOWN_WITHIN, "{times:?}");
    // A scan stores its time before it takes anything back: this was the pidfd's doing.
    assert!(without_a_scan >= 3, "{without_a_scan} of {} came back without a scan: {times:?}", times.len());
}

/// What is promised of half of all deaths; on a machine that does other things a single one may take longer.
const SHOWN_WITHIN: Duration = Duration::from_millis(100);

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Fault 30: a stopped client keeps what it has and disturbs nobody.
#[test]
fn a_stopped_client_disturbs_nobody() {
    let worker = ThreadWorker::start();
    let witness = worker.client();
    let mut client = Child::start(&["client", &worker.names.shm]);
    assert_eq!(client.line(), "loaded");
    client.stop();
    let before = worker.report().arena.used_bytes;
    for _ in 0..200 {
        assert_eq!(call(&witness, &request("echo", b"on")).expect("an answer").to_vec(), b"on");
    }
    assert!(worker.report().arena.used_bytes <= before + (1 << 20), "bounded");
    assert_eq!(worker.report().sessions.len(), 2);
    client.kill();
    until("it comes back after all", || worker.report().sessions.len() == 1 && worker.report().arena.used_bytes == 0);
}

/// Faults 7-11: the cell tells what never ran from what may have run, and an answer that was committed is an answer.
#[test]
fn after_the_workers_death_each_request_ends_as_its_cell_says() {
    let names = Names::new();
    let mut worker = spawn(&names);
    let client = attach(&names);
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let mut submit = |entry: &str, payload: &[u8]| match channel.submit(&request(entry, payload)) {
        Submitted::Id(id) => id,
        other => panic!("{other:?}"),
    };
    let queued = submit("queue", b"never started");
    let running = submit("hold", b"started");
    let done = [submit("echo", b"small"), submit("echo", &[7; 100_000])];
    until("two are answered", || report(&names).totals["ok"] == 2);
    worker.kill();
    let mut out = std::collections::HashMap::new();
    until("all four have ended", || {
        for (id, reply) in channel.poll(8) {
            assert!(out.insert(id, reply).is_none(), "exactly once");
        }
        out.len() == 4
    });
    let mut failure = |id| out.remove(&id).expect("an end").expect_err("no answer");
    assert_eq!(failure(queued).outcome, Outcome::Unavailable);
    let lost = failure(running);
    assert!(lost.outcome == Outcome::WorkerLost && lost.message.contains(&worker.pid().to_string()), "{lost}");
    assert_eq!(out.remove(&done[0]).expect("an end").expect("an answer").to_vec(), b"small");
    assert_eq!(out.remove(&done[1]).expect("an end").expect("an answer").to_vec(), vec![7; 100_000]);
    assert!(matches!(channel.submit(&request("echo", b"more")), Submitted::Gone(_)));
}

/// Faults 7, 8: the same for calls that wait, and at once: nobody waits for the deadline, or for the end of a slice of its wait.
#[test]
fn callers_learn_of_the_workers_death_at_once() {
    let mut times: Vec<Duration> = (0..9).map(|_| callers_learn_within()).collect();
    assert!(median(&mut times) <= SHOWN_WITHIN, "{times:?}");
    // A wait comes back every 100 ms by itself. These had just begun: it was the hang-up that ended them.
    assert!(times[0] < SHOWN_WITHIN / 2, "{times:?}");
}

/// How long two waiting calls take to learn of their worker's death.
fn callers_learn_within() -> Duration {
    let names = Names::new();
    let mut worker = spawn(&names);
    let client = attach(&names);
    let told = std::thread::scope(|scope| {
        let wait = |entry: &'static str| {
            let client = &client;
            // One that may be sent again would wait for a successor, as long as there may be one.
            let once = Request { resend: false, ..request(entry, b"x") };
            scope.spawn(move || call(client, &once).expect_err("no answer").outcome)
        };
        let (held, queued) = (wait("hold"), wait("queue"));
        until("both are there", || report(&names).sessions[0].in_flight == 2);
        let killed = Instant::now();
        worker.kill();
        assert_eq!(held.join().expect("a thread"), Outcome::WorkerLost);
        assert_eq!(queued.join().expect("a thread"), Outcome::Unavailable);
        killed.elapsed()
    });
    let failure = call(&client, &request("echo", b"x")).expect_err("nobody serves");
    assert!(failure.outcome == Outcome::Unavailable && failure.message.contains(&names.shm), "{failure}");
    told
}

#[test]
fn a_client_finds_the_worker_that_was_started_anew() {
    let names = Names::new();
    let mut worker = spawn(&names);
    let client = attach(&names);
    let held = call(&client, &request("big", &500_000_u64.to_le_bytes())).expect("an answer");
    for round in 0..3_u64 {
        worker.kill();
        worker = spawn(&names);
        let reply = call(&client, &request("echo", &round.to_le_bytes())).expect("the next call works");
        assert_eq!(reply.to_vec(), round.to_le_bytes());
    }
    assert!(held.to_vec() == pattern(500_000, 500_000), "what was read from the dead worker stays valid");
    assert!(worker.finish());
    assert_eq!(names.objects(), [] as [&str; 0], "it leaves no name");
}

/// A worker that leaves in good order finishes what runs and takes nothing new.
#[test]
fn a_worker_that_stops_refuses_what_is_new_as_unavailable() {
    let mut worker = ThreadWorker::start();
    let client = worker.client();
    let Called::Interrupted(pending) = client.call(&request("hold", b"running")).expect("a long call") else {
        panic!("it is held")
    };
    client.cancel(pending);
    worker.stop();
    let failure = call(&client, &Request { resend: false, ..request("echo", b"x") });
    let outcome = failure.map_or_else(|failure| failure.outcome, |reply| reply.outcome);
    assert_eq!(outcome, Outcome::Unavailable);
    assert_eq!(worker.names.objects(), [] as [&str; 0]);
    assert!(!worker.names.socket.exists());
}

/// Fault 31: a stopped worker costs a caller its deadline and no more; what it answers later is dropped.
#[test]
fn a_stopped_worker_is_a_timeout_and_its_late_answers_are_dropped() {
    let names = Names::new();
    let worker = spawn(&names);
    let client = attach(&names);
    call(&client, &request("echo", b"warm")).expect("an answer");
    worker.stop();
    for _ in 0..3 {
        let started = Instant::now();
        let short = Request { timeout: Some(Duration::from_millis(100)), resend: false, ..request("echo", &[3; 9000]) };
        assert_eq!(call(&client, &short).expect_err("nobody answers").outcome, Outcome::Timeout);
        assert!(started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
    }
    // Also where a new channel would be needed.
    let session = client.session().expect("still the same session");
    let started = Instant::now();
    let deadline = molt_ipc_shm::os::now_ns() + 150_000_000;
    let kept: Vec<_> = std::iter::from_fn(|| session.checkout(deadline).ok()).take(2).collect();
    assert!(started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
    kept.into_iter().for_each(molt_ipc_shm::client::Channel::check_in);
    drop(session);
    worker.signal(Signal::SIGCONT);
    // Where all this took seconds the worker is known to be silent until it has looked once.
    let mut reply = None;
    until("it answers again", || {
        reply = call(&client, &request("echo", b"now")).ok();
        reply.is_some()
    });
    assert_eq!(reply.expect("an answer").to_vec(), b"now", "its own answer, not a late one");
    until("nothing is left of them", || {
        call(&client, &request("echo", b"")).expect("an answer");
        report(&names).arena.used_bytes == 0
    });
}

/// A second worker of the same name is refused and leaves the first one reachable.
#[test]
fn a_refused_start_leaves_the_running_worker_alone() {
    let names = Names::new();
    let _first = spawn(&names);
    let mut second = Child::start(&["worker", &names.shm, names.socket.to_str().expect("a plain path")]);
    assert!(second.line().starts_with("refused: "), "the name is taken");
    drop(second);
    let client = attach(&names);
    assert_eq!(call(&client, &request("echo", b"still here")).expect("an answer").to_vec(), b"still here");
}

/// Fault 34 in its first form: a takeover serves the next call of every client.
#[test]
fn a_takeover_serves_the_next_call() {
    let names = Names::new();
    let old = spawn(&names);
    let client = attach(&names);
    call(&client, &request("echo", b"old")).expect("an answer");
    let mut new = Child::start(&["worker", &names.shm, names.socket.to_str().expect("a plain path"), "replace"]);
    assert_eq!(new.line(), "serving");
    assert_eq!(call(&client, &request("echo", b"old still serves its own")).expect("an answer").outcome, Outcome::Ok);
    assert_eq!(attach(&names).session().expect("a session").segment.header.worker_pid, new.pid());
    assert!(old.finish());
    until("the client has moved over", || {
        let reply = call(&client, &request("echo", b"new")).expect("an answer");
        reply.outcome == Outcome::Ok
            && client.session().is_ok_and(|session| session.segment.header.worker_pid == new.pid())
    });
    assert!(new.finish());
    assert!(names.objects().is_empty() && !names.socket.exists(), "the last one takes the names away");
}

/// Fault 36.
#[test]
fn ten_thousand_sessions_leave_the_worker_as_it_was() {
    let names = Names::new();
    let worker = spawn(&names);
    let baseline = descriptors_at_rest(worker.pid());
    for round in 0..10_000_u64 {
        let mut client = common::worker::find(&names.shm, PATIENCE);
        until("there is a slot", || {
            if client.is_err() {
                client = common::worker::find(&names.shm, PATIENCE);
            }
            client.is_ok()
        });
        if round.is_multiple_of(100) {
            let payload = pattern(round, 20_000);
            assert!(
                call(client.as_ref().expect("a client"), &request("echo", &payload)).expect("an answer").to_vec()
                    == payload
            );
        }
    }
    until("slots and extents are back", || {
        let report = report(&names);
        report.sessions.is_empty() && report.arena.used_bytes == 0
    });
    until("descriptors are back", || descriptors(worker.pid()) == baseline);
}

/// Fault 21: without descriptors the worker refuses newcomers, serves the others, rests, and recovers.
#[test]
fn a_worker_out_of_descriptors_serves_on_and_recovers() {
    let names = Names::new();
    let words = ["worker", &names.shm, names.socket.to_str().expect("a plain path")];
    let mut worker = Child::start_under("ulimit -n 24; exec \"$0\" \"$@\"", &words);
    assert_eq!(worker.line(), "serving");
    let first = attach(&names);
    call(&first, &request("echo", b"x")).expect("an answer");
    let crowd: Vec<_> = (0..30).filter_map(|_| std::os::unix::net::UnixStream::connect(&names.socket).ok()).collect();
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.pid())).expect("its figures");
        let after_name =
            stat.rsplit(')').next().expect("fields").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        after_name[11].parse::<u64>().expect("ticks") + after_name[12].parse::<u64>().expect("ticks")
    };
    let (started, ticks) = (Instant::now(), cpu());
    while started.elapsed() < Duration::from_millis(500) {
        assert_eq!(call(&first, &request("echo", b"on")).expect("others are served").to_vec(), b"on");
        std::thread::sleep(Duration::from_millis(25));
    }
    assert!(cpu() - ticks < 35, "{} hundredths of a second in half a second: a busy loop", cpu() - ticks);
    drop(crowd);
    let second = common::worker::find(&names.shm, PATIENCE).expect("room again");
    assert_eq!(call(&second, &request("echo", b"y")).expect("an answer").to_vec(), b"y");
}
