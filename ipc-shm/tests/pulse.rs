//! A worker that looks at nothing: who waits pays once, everybody after that is told at once, and it heals by itself.

mod common;

use std::time::{Duration, Instant};

use common::child;
use common::worker::{attach, spawn};
use common::{Names, call, request, until};
use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::{LoopChannel, Request, Submitted};
use molt_ipc_shm::pulse::SILENT_AFTER;
use nix::sys::signal::Signal;

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role)]);
}

fn patient(seconds: u64) -> Request<'static> {
    Request { timeout: Some(Duration::from_secs(seconds)), ..request("echo", b"?") }
}

/// Fault 31, for all who come later: they are not made to wait for a worker of which it is known that it hangs.
#[test]
fn once_it_is_known_to_hang_new_requests_fail_at_once_and_it_heals_by_itself() {
    let names = Names::new();
    let worker = spawn(&names);
    let client = attach(&names);
    assert_eq!(call(&client, &patient(60)).expect("an answer").to_vec(), b"?");
    worker.stop();
    let waits = Instant::now();
    let first = call(&client, &patient(SILENT_AFTER.as_secs() + 1)).expect_err("nobody answers");
    assert_eq!(first.outcome, Outcome::Timeout, "it was sent: {first}");
    assert!(waits.elapsed() >= SILENT_AFTER);

    for _ in 0..20 {
        let told = Instant::now();
        let failure = call(&client, &patient(60)).expect_err("nobody looks");
        assert_eq!(failure.outcome, Outcome::Unavailable, "{failure}");
        assert!(failure.message.contains("has not looked at its requests for"), "{failure}");
        assert!(failure.message.contains(&format!("pid {}", worker.pid())), "{failure}");
        assert!(told.elapsed() < Duration::from_secs(20), "not its time-out");
    }
    let mut event_loop = LoopChannel::open(&client.session().expect("the session")).expect("its channel was open");
    let Submitted::Refused(failure) = event_loop.submit(&patient(60)) else { panic!("an event loop is told too") };
    assert_eq!(failure.outcome, Outcome::Unavailable, "{failure}");

    worker.signal(Signal::SIGCONT);
    until("it serves again, the same one", || call(&client, &patient(60)).is_ok_and(|reply| reply.to_vec() == b"?"));
    let Submitted::Id(_) = event_loop.submit(&patient(60)) else { panic!("the event loop goes on") };
}

/// A pause of the whole machine, or a request that takes long, is no silence.
#[test]
fn a_long_request_is_no_silence() {
    let names = Names::new();
    let _worker = spawn(&names);
    let client = attach(&names);
    let held = Request { timeout: Some(SILENT_AFTER + Duration::from_millis(500)), ..request("hold", b"?") };
    assert_eq!(call(&client, &held).expect_err("nobody answers").outcome, Outcome::Timeout);
    assert_eq!(call(&client, &patient(60)).expect("others are served").to_vec(), b"?");
}
