//! Pins: what a forked child inherited can be read for as long as it lives, whatever becomes of its parent.

mod common;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use common::child::{self, Child};
use common::raw::Raw;
use common::worker::{ThreadWorker, attach, report, spawn};
use common::{Names, PATIENCE, call, descriptors, descriptors_at_rest, pattern, request, until};
use molt_ipc_shm::client::{Body, Channel, Client, LoopChannel, Reply, Request, forks};
use molt_ipc_shm::handshake::{self, Received, message};
use molt_ipc_shm::{Outcome, os};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

const BIG: usize = 700_000;

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role), ("parent", parent), ("crowd", crowd), ("between", between)]);
}

/// Forks as a caller of the library does that has something in use; `inside` runs in the child, which then ends.
fn forked(inside: impl FnOnce() -> bool) -> Pid {
    forks::before().expect("a pin for each session");
    // SAFETY: the child uses what the C library and this library make usable after a fork; it is what Python's os.fork does.
    match unsafe { fork() }.expect("a fork") {
        ForkResult::Child => {
            forks::in_child();
            let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(inside)).unwrap_or(false);
            // SAFETY: ends this process at once, as a forked child should that shares its parent's memory image.
            unsafe { nix::libc::_exit(i32::from(!fine)) }
        }
        ForkResult::Parent { child } => {
            forks::in_parent();
            child
        }
    }
}

fn big(client: &Client, len: usize) -> Reply {
    let reply = call(client, &request("big", &(len as u64).to_le_bytes())).expect("an answer");
    assert!(matches!(reply.body, Body::Leased(_)));
    reply
}

/// `parent NAME HOW`: forks a child that says, when told to look, whether what it inherited is still there, and lives until
/// its input ends. Then it lets go of everything (`releases`), closes its client too (`closes`), or waits to be killed.
fn parent(words: &[String]) {
    let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
    let held = [big(&client, BIG), big(&client, BIG + 1)];
    forked(|| {
        while child::hear().is_some() {
            let same = held.iter().zip([BIG, BIG + 1]).all(|(reply, len)| reply.to_vec() == pattern(len as u64, len));
            child::say(if same { "same" } else { "differs" });
        }
        true
    });
    match words[1].as_str() {
        "releases" => drop(held),
        "closes" => drop((held, client)),
        _ => std::mem::forget(held),
    }
    child::say("forked");
    loop {
        std::thread::park();
    }
}

/// Fills the arena with other bytes, wherever there is room.
fn overwrite_all_that_is_free(witness: &Client) {
    let mut held = Vec::new();
    for len in [4 << 20, 1 << 20, 200_000] {
        loop {
            let reply = call(witness, &request("big", &(len as u64).to_le_bytes())).expect("an answer");
            if reply.outcome != Outcome::Ok {
                break;
            }
            held.push(reply);
        }
    }
}

/// Fault 29: what a child inherited stays as it is when its parent lets go of it, closes, or is killed; and once the child
/// is gone the bytes are free again.
#[test]
fn what_a_child_inherited_outlives_what_its_parent_does() {
    for how in ["releases", "closes", "dies"] {
        let names = Names::new();
        let worker = spawn(&names);
        let witness = attach(&names);
        call(&witness, &request("echo", b"here")).expect("an answer");
        let baseline = descriptors_at_rest(worker.pid());
        let mut parent = Child::start(&["parent", &names.shm, how]);
        assert_eq!(parent.line(), "forked");
        if how == "dies" {
            parent.signal(Signal::SIGKILL); // not waited for: that would close the input, which is the child's too
        }
        let sessions = if how == "releases" { 2 } else { 1 };
        until("its leases are let go of", || {
            let report = report(&names);
            report.sessions.len() == sessions && report.sessions.iter().all(|session| session.leases == 0)
        });
        overwrite_all_that_is_free(&witness);
        parent.tell("look");
        assert_eq!(parent.line(), "same", "the parent {how}");
        assert!(report(&names).arena.used_bytes >= 2 * BIG as u64);

        parent.kill();
        drop(parent); // its input ends, and with it the child
        until("all is given back", || {
            let _ = call(&witness, &request("echo", b"on")).expect("others are served");
            let report = report(&names);
            report.arena.used_bytes == 0 && report.sessions.len() == 1
        });
        until("descriptors are back", || descriptors(worker.pid()) == baseline);
    }
}

/// `crowd NAME`: forks again and again while other threads call, hold results, open channels, attach and close; each child
/// reads what it inherited and calls through a client of its own.
fn crowd(words: &[String]) {
    let name = &words[0];
    let client = common::worker::find(name, PATIENCE).expect("a worker");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..3_u64 {
            let (client, stop) = (&client, &stop);
            scope.spawn(move || {
                let payload = pattern(number, 50_000);
                while !stop.load(Ordering::Relaxed) {
                    let reply = call(client, &request("later", &payload)).expect("an answer");
                    assert!(reply.outcome != Outcome::Ok || reply.to_vec() == payload);
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let other = common::worker::find(name, PATIENCE).expect("a session");
                call(&other, &request("echo", &[1; 10_000])).expect("an answer");
            }
        });
        for round in 0..15 {
            let held = big(&client, BIG);
            let child = forked(|| {
                // SAFETY: the harness's alarm clock for a child that waits for ever on a lock that nobody holds here.
                unsafe { nix::libc::alarm(PATIENCE.as_secs() as u32 * 2) };
                let own = common::worker::find(name, PATIENCE).expect("a session of its own");
                let payload = pattern(round, 60_000);
                let answered = call(&own, &request("echo", &payload)).expect("an answer").to_vec() == payload;
                answered && held.to_vec() == pattern(BIG as u64, BIG)
            });
            drop(held);
            assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))), "child {round}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(client);
    child::say("fine");
    while child::hear().is_some() {}
}

/// Fault 29: also while other threads of the parent hold its locks.
#[test]
fn forks_in_the_midst_of_calls_find_no_lock_held_and_leave_nothing() {
    let names = Names::new();
    let worker = spawn(&names);
    let baseline = descriptors_at_rest(worker.pid());
    let mut crowd = Child::start(&["crowd", &names.shm]);
    assert_eq!(crowd.line(), "fine");
    until("all is given back", || {
        let report = report(&names);
        report.sessions.is_empty() && report.arena.used_bytes == 0
    });
    until("descriptors are back", || descriptors(worker.pid()) == baseline);
    assert!(crowd.finish());
}

/// `between`: is lent a result between the pin and the fork.
fn between(_: &[String]) {
    let worker = ThreadWorker::start();
    let (client, witness) = (worker.client(), worker.client());
    let first = big(&client, BIG);
    forks::before().expect("a pin");
    let second = big(&client, BIG + 1);
    let (look, looks) = nix::unistd::pipe().expect("a pipe");
    // SAFETY: as in `forked`; the child reads one byte, compares memory and ends.
    match unsafe { fork() }.expect("a fork") {
        ForkResult::Child => {
            forks::in_child();
            drop(looks);
            let _ = nix::unistd::read(&look, &mut [0]);
            let same = [(&first, BIG), (&second, BIG + 1)].iter().all(|(reply, len)| {
                let (at, bytes) = reply.bytes();
                // SAFETY: the reply's bytes, in a mapping that outlives this process.
                let there = unsafe { std::slice::from_raw_parts(at, bytes) };
                there == pattern(*len as u64, *len)
            });
            // SAFETY: as in `forked`.
            unsafe { nix::libc::_exit(i32::from(!same)) }
        }
        ForkResult::Parent { child } => {
            forks::in_parent();
            // Whoever has an answer on a socket knows that the worker has heard what was said on others before.
            let session = client.session().expect("a session");
            let soon = os::now_ns() + PATIENCE.as_nanos() as u64;
            let kept: Vec<_> = (0..2).map(|_| session.checkout(soon).expect("a channel")).collect(); // one is a new one
            kept.into_iter().for_each(Channel::check_in);
            drop(big(&client, BIG + 2)); // not pinned: the fork is over
            drop((first, second));
            overwrite_all_that_is_free(&witness);
            until("the two are left", || {
                call(&witness, &request("echo", b"")).expect("an answer");
                (2 * BIG as u64..3 * BIG as u64).contains(&worker.report().arena.used_bytes)
            });
            drop(looks);
            assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))));
            until("all is given back", || worker.report().arena.used_bytes == 0);
        }
    }
    child::say("fine");
}

/// What comes between the pin and the fork is the child's too. In a process of its own, which has no other test's sessions.
#[test]
fn a_result_that_comes_during_the_fork_is_pinned_too() {
    let mut between = Child::start(&["between"]);
    assert_eq!(between.line(), "fine");
    assert!(between.finish());
}

/// A worker that hangs delays a fork, and does not prevent it; its late pin is dropped, and the session goes on.
#[test]
fn a_fork_does_not_wait_for_a_worker_that_hangs() {
    let names = Names::new();
    let worker = spawn(&names);
    let client = attach(&names);
    let held = big(&client, BIG);
    worker.stop();
    let started = Instant::now();
    let failure = forks::before().expect_err("nobody answers");
    assert!(failure.outcome == Outcome::Unavailable && failure.message.contains(&names.shm), "{failure}");
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    forks::in_parent();
    // A channel that is asked for after it comes after the late pin; one that came late itself is for the next who asks.
    let session = client.session().expect("still the same session");
    let idle = session.checkout(os::now_ns()).expect("an idle channel");
    let short = os::now_ns() + 50_000_000;
    assert_eq!(session.checkout(short).expect_err("nobody answers").outcome, Outcome::Timeout);
    assert!(forks::before().is_err());
    forks::in_parent();
    worker.signal(Signal::SIGCONT);
    forks::before().expect("a pin, after all that is late");
    forks::in_parent();
    let second = LoopChannel::open(&session).expect("another channel");
    idle.check_in();
    second.close();
    assert_eq!(call(&client, &request("echo", b"on")).expect("an answer").to_vec(), b"on");
    drop(held);
    until("all is given back", || {
        call(&client, &Request { resend: false, ..request("echo", b"") }).expect("an answer");
        report(&names).arena.used_bytes == 0
    });
}

/// Pins are bounded: each is a descriptor of the worker's.
#[test]
fn pins_without_end_are_refused_and_go_with_their_holder() {
    let worker = ThreadWorker::start();
    let mut raw = Raw::attach(&worker.names);
    let ask = |raw: &mut Raw, beside: Option<BorrowedFd<'_>>| {
        handshake::send(raw.socket.as_fd(), message::PIN, &[], beside).expect("a worker that listens");
        let Received::Message(answer) = raw.hear() else { panic!("no answer") };
        (answer.kind, answer.payload.first().copied())
    };
    let busy = (message::REFUSED, Some(Outcome::Busy as u8));
    let mut pins = Vec::new();
    let refused = loop {
        let (pin, theirs) = UnixStream::pair().expect("a pair");
        match ask(&mut raw, Some(theirs.as_fd())) {
            (message::PINNED, _) => pins.push(pin),
            other => break other,
        }
        assert!(pins.len() <= 1000, "without end");
    };
    assert_eq!(refused, busy);
    let (last, theirs) = UnixStream::pair().expect("a pair");
    drop(pins);
    until("there is room again", || ask(&mut raw, Some(theirs.as_fd())).0 == message::PINNED);
    // What is no socket is no pin, and neither is nothing.
    let file = tempfile::tempfile().expect("a file");
    assert_eq!(ask(&mut raw, Some(file.as_fd())), busy);
    assert_eq!(ask(&mut raw, None), busy);
    let (pipe, _held) = nix::unistd::pipe().expect("a pipe");
    assert_eq!(ask(&mut raw, Some(pipe.as_fd())).0, message::PINNED, "watched until it says something");
    drop(last);
    // Before hello it is nobody's.
    let mut stranger = Raw::connect(&worker.names);
    stranger.say(message::PIN, &[]);
    assert!(stranger.is_cut());
    assert_eq!(call(&worker.client(), &request("echo", b"on")).expect("an answer").to_vec(), b"on");
}
