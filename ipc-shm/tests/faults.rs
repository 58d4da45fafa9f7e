//! Faults of the table in spec/faults.md that have no better place: rings without room, clocks that jump, a machine that
//! stands still, bytes that get lost.

mod common;

use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::child::{self, Child};
use common::worker::{ThreadWorker, attach, report, spawn};
use common::{Names, PATIENCE, call, pattern, request, until};
use molt_ipc_shm::client::{LoopChannel, Request, Submitted, Waited};
use molt_ipc_shm::{Outcome, bell, os};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role), ("caller", caller), ("waiter", waiter)]);
}

fn soon() -> u64 {
    os::now_ns() + PATIENCE.as_nanos() as u64
}

/// Fault 16: a ring without room is a time-out at the caller's deadline, not a wait without end; and room again is taken.
#[test]
fn a_full_ring_is_a_time_out_and_recovers_by_itself() {
    let names = Names::new();
    let worker = spawn(&names);
    let client = attach(&names);
    let session = client.session().expect("a session");
    let mut channel = session.checkout(soon()).expect("a channel");
    let (ask, payload) = (request("echo", b"on"), pattern(1, 3000));
    let long = request("echo", &payload);
    let mut ids = vec![common::submit(&mut channel, &ask, soon()).expect("room")];
    worker.stop();
    let full = loop {
        let (started, limit) = (Instant::now(), Duration::from_millis(100));
        match common::submit(&mut channel, &long, os::now_ns() + limit.as_nanos() as u64) {
            Ok(id) => ids.push(id),
            Err(failure) => {
                assert!(started.elapsed() >= limit && started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
                break failure;
            }
        }
        assert!(ids.len() < 1000, "a ring without end");
    };
    assert!(full.outcome == Outcome::Timeout && full.message.contains("full"), "{full}");
    // Neither sent nor half sent: once there is room, what comes out is what was put in.
    let ring = session.segment.geometry.ring_bytes as usize;
    assert!(
        (ids.len() - 1) * payload.len() <= ring && (ids.len() + 2) * 3200 > ring / 2,
        "{} of {ring} bytes",
        ids.len()
    );
    worker.signal(Signal::SIGCONT);
    // A channel in blocking use has one caller: what comes for the earlier ones is late, and dropped on the way.
    let last = common::submit(&mut channel, &long, soon()).expect("room again");
    let mut answer = None;
    until("its answer", || {
        match channel.wait(last) {
            Waited::Reply(reply) => answer = Some(reply.to_vec()),
            Waited::Failed(failure) => panic!("{failure}"),
            Waited::Interrupted => {}
        }
        answer.is_some()
    });
    assert!(answer.as_ref() == Some(&payload), "its own answer");
    assert_eq!(channel.in_flight(), 0, "the others are answered too");
    channel.check_in();
}

/// Fault 18, through a session: free room in pieces is Busy with the longest piece named, and whole again when they are.
#[test]
fn an_arena_in_pieces_names_its_longest_and_recovers() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let session = client.session().expect("a session");
    let extent = session.segment.geometry.extent_bytes as usize;
    // As many single extents as the session may have, and then every second one given back.
    let mut single: Vec<_> = std::iter::from_fn(|| session.block(extent).ok()).collect();
    assert!(single.len() > 8);
    let mut number = 0;
    single.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    let wanted = (session.segment.geometry.extents as usize - single.len() * 2 + 1) * extent;
    let refused = session.block(wanted).expect_err("no piece is that long");
    assert!(refused.outcome == Outcome::Busy && refused.message.contains("longest"), "{refused}");
    session.block(extent).expect("one piece is free");
    drop(single);
    session.block(wanted).expect("whole again");
    until("all is given back", || worker.report().arena.used_bytes == 0);
}

/// Fault 22, of a live segment that has a name: nothing can keep its user from truncating it. The worker dies of it, and the
/// next start takes the name over. A segment without a name is sealed against it (nameless.rs).
#[test]
fn a_live_segment_that_is_truncated_costs_its_worker_and_the_next_start_serves() {
    if common::nameless() {
        return;
    }
    let names = Names::new();
    let worker = spawn(&names);
    let object = std::fs::OpenOptions::new().write(true).open(names.path()).expect("the object");
    object.set_len(0).expect("a length");
    let pid = Pid::from_raw(worker.pid() as i32);
    let looked = || waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
    let mut ended = WaitStatus::StillAlive;
    until("its end", || {
        ended = looked().expect("a child");
        ended != WaitStatus::StillAlive
    });
    assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGBUS, _)), "{ended:?}");
    drop(worker);
    let next = spawn(&names);
    assert_eq!(call(&attach(&names), &request("echo", b"on")).expect("an answer").to_vec(), b"on");
    assert!(next.finish());
    assert_eq!(names.objects(), [] as [&str; 0]);
}

/// A library to preload that turns the wall clock a day forwards and a day back, with every reading.
fn jumping_clock(names: &Names) -> String {
    let (source, library) = (names.file("clock.c"), names.file("clock.so"));
    let text = "#define _GNU_SOURCE\n\
        #include <sys/syscall.h>\n#include <sys/time.h>\n#include <time.h>\n#include <unistd.h>\n\
        static int readings;\n\
        static time_t jump(void) { return __atomic_fetch_add(&readings, 1, __ATOMIC_RELAXED) % 2 ? 86400 : -86400; }\n\
        int clock_gettime(clockid_t id, struct timespec *now) {\n\
            int result = syscall(SYS_clock_gettime, id, now);\n\
            if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += jump();\n\
            return result;\n\
        }\n\
        int gettimeofday(struct timeval *now, void *zone) {\n\
            int result = syscall(SYS_gettimeofday, now, zone);\n\
            if (!result) now->tv_sec += jump();\n\
            return result;\n\
        }\n\
        time_t time(time_t *out) {\n\
            struct timeval now;\n\
            gettimeofday(&now, 0);\n\
            if (out) *out = now.tv_sec;\n\
            return now.tv_sec;\n\
        }\n";
    std::fs::File::create(&source).and_then(|mut file| file.write_all(text.as_bytes())).expect("a source");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
    assert!(built.is_ok_and(|status| status.success()), "a C compiler, as the README asks for");
    library.to_str().expect("a plain path").to_owned()
}

/// `caller NAME`: calls with short and long limits while the wall clock jumps.
fn caller(words: &[String]) {
    let (mut seen, mut last) = (0, SystemTime::now());
    for _ in 0..10 {
        let now = SystemTime::now();
        seen +=
            u32::from(now.duration_since(last).unwrap_or_else(|back| back.duration()) > Duration::from_secs(86_400));
        last = now;
    }
    assert_eq!(seen, 10, "the wall clock jumps");
    let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
    for round in 0..200_u64 {
        let payload = pattern(round, (round * 331 % 20_000) as usize);
        let reply = call(&client, &request("later", &payload)).expect("an answer");
        assert!(reply.outcome == Outcome::Ok && reply.to_vec() == payload);
    }
    for _ in 0..3 {
        let (started, limit) = (Instant::now(), Duration::from_millis(150));
        let held = Request { timeout: Some(limit), ..request("hold", b"x") };
        assert_eq!(call(&client, &held).expect_err("it is held").outcome, Outcome::Timeout);
        assert!(started.elapsed() >= limit && started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
    }
    child::say("fine");
    while child::hear().is_some() {}
}

/// Fault 32: the wall clock a day forwards and a day back at every reading, in client and worker, changes nothing.
#[test]
fn a_wall_clock_that_jumps_by_days_changes_nothing() {
    let names = Names::new();
    let library = jumping_clock(&names);
    let under = format!("LD_PRELOAD={library} exec \"$0\" \"$@\"");
    let socket = names.socket.to_str().expect("a plain path");
    let mut worker = Child::start_under(&under, &["worker", &names.shm, socket]);
    assert_eq!(worker.line(), "serving");
    let mut caller = Child::start_under(&under, &["caller", &names.shm]);
    assert_eq!(caller.line(), "fine");
    assert!(caller.finish());
    until("the session's end", || report(&names).sessions.is_empty());
    // Its successor is not misled by the age of what it left.
    worker.kill();
    let mut next = Child::start_under(&under, &["worker", &names.shm, socket]);
    assert_eq!(next.line(), "serving");
    assert_eq!(call(&attach(&names), &request("echo", b"on")).expect("an answer").to_vec(), b"on");
    assert!(next.finish());
    assert_eq!(names.objects(), [] as [&str; 0]);
}

/// `waiter NAME`: waits for an answer that never comes, and says how that ended.
fn waiter(words: &[String]) {
    let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
    let limit = Duration::from_millis(400);
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let held = Request { timeout: Some(limit), ..request("queue", b"x") };
    let Submitted::Id(id) = channel.submit(&held) else { panic!("no room") };
    child::say("waits");
    let mut ended = Vec::new();
    until("an end", || {
        ended.extend(channel.poll(8));
        !ended.is_empty()
    });
    assert!(ended.len() == 1 && ended[0].0 == id);
    let (_, result) = ended.remove(0);
    child::say(&format!("{:?}", result.expect_err("nobody answers").outcome));
    assert_eq!(call(&client, &request("echo", b"on")).expect("an answer").to_vec(), b"on");
    assert!(channel.poll(8).is_empty(), "once");
    child::say("on");
    while child::hear().is_some() {}
}

/// Fault 33, as processes see it: everything stands still for longer than a request may take, and goes on. A suspended
/// machine is the same with a clock that stands still too: deadlines count CLOCK_MONOTONIC, time that somebody was awake.
#[test]
fn what_stood_still_beyond_its_deadline_ends_once_and_goes_on() {
    let names = Names::new();
    let worker = spawn(&names);
    let mut waiter = Child::start(&["waiter", &names.shm]);
    assert_eq!(waiter.line(), "waits");
    worker.stop();
    waiter.stop();
    let still = Instant::now();
    until("a second in which nothing moved", || still.elapsed() > Duration::from_secs(1));
    worker.signal(Signal::SIGCONT);
    waiter.signal(Signal::SIGCONT);
    assert_eq!((waiter.line().as_str(), waiter.line().as_str()), ("Timeout", "on"));
    assert!(waiter.finish());
    until("all is given back", || report(&names).sessions.is_empty() && report(&names).arena.used_bytes == 0);
}

/// Fault 39 with everything in place: somebody takes the doorbell's bytes away from the client and doubles those to the
/// worker; every call is answered all the same, late by a look at most.
#[test]
fn stolen_and_doubled_doorbell_bytes_stop_nothing() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let session = client.session().expect("a session");
    let mut channel = session.checkout(soon()).expect("a channel");
    let stolen = channel.bell().try_clone_to_owned().expect("a copy");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = bell::drain(stolen.as_fd());
                let _ = bell::ring(stolen.as_fd());
                std::thread::yield_now();
            }
        });
        for round in 0..30_u64 {
            let payload = pattern(round, 100);
            let id = common::submit(&mut channel, &request("later", &payload), soon()).expect("room");
            let mut answer = None;
            until("an answer", || {
                if let Waited::Reply(reply) = channel.wait(id) {
                    answer = Some(reply.to_vec());
                }
                answer.is_some()
            });
            assert_eq!(answer, Some(payload));
        }
        stop.store(true, Ordering::Relaxed);
    });
    channel.check_in();
}

/// Fault 39, to the end: more bytes than a doorbell holds, to a worker that sleeps. A call that comes while it is full waits
/// for one look; after that look it is empty again.
#[test]
fn a_doorbell_that_was_filled_delays_one_call_by_one_look() {
    const CALLS: u32 = 40;
    let worker = ThreadWorker::start();
    let client = worker.client();
    let session = client.session().expect("a session");
    let mut channel = session.checkout(soon()).expect("a channel");
    let own = channel.bell().try_clone_to_owned().expect("a copy");
    let mut timed = || {
        let started = Instant::now();
        let id = common::submit(&mut channel, &request("later", b"x"), soon()).expect("room");
        while !matches!(channel.wait(id), Waited::Reply(_)) {}
        let took = started.elapsed();
        std::thread::sleep(Duration::from_millis(2)); // the worker is asleep when the next one comes
        took
    };
    for _ in 0..3 {
        (0..1000).for_each(|_| bell::ring(own.as_fd()).expect("a worker"));
        let first = timed();
        assert!(first < 5 * bell::LONGEST_SLEEP, "{first:?}");
        let rest: Duration = (0..CALLS).map(|_| timed()).sum();
        assert!(rest < CALLS * bell::LONGEST_SLEEP / 4, "{CALLS} calls took {rest:?}");
    }
    channel.check_in();
}
