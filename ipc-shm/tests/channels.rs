//! Channels between many processes: whoever has none gets one, whoever waits for one can be interrupted, and where one
//! cannot be had nobody loses its session.

mod common;

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::child::{self, Child};
use common::worker::{ThreadWorker, attach, report, spawn};
use common::{Names, PATIENCE, call, pattern, request, until};
use molt_ipc_shm::client::{Called, Channel, LoopChannel, Payload, Request, Session};
use molt_ipc_shm::pulse::SILENT_AFTER;
use molt_ipc_shm::{Outcome, os};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::time::{ClockId, clock_gettime};

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role), ("poor", poor)]);
}

fn soon() -> u64 {
    os::now_ns() + PATIENCE.as_nanos() as u64
}

/// A worker that is stopped before it has given a channel: the wait for it comes back to the caller.
#[test]
fn a_wait_for_a_channel_comes_back_and_can_be_given_up() {
    let names = Names::new();
    let worker = spawn(&names);
    let client = attach(&names);
    worker.stop();
    let ask = request("echo", b"?");
    let started = Instant::now();
    let Ok(Called::Interrupted(mut pending)) = client.call(&ask) else { panic!("nobody gives a channel") };
    for _ in 0..3 {
        let Ok(Called::Interrupted(again)) = client.resume(pending) else { panic!("still nobody") };
        pending = again;
    }
    assert!(started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
    client.cancel(pending);
    let Ok(Called::Interrupted(pending)) = client.call(&ask) else { panic!("still nobody") };
    worker.signal(Signal::SIGCONT);
    let mut called = client.resume(pending);
    while let Ok(Called::Interrupted(pending)) = called {
        called = client.resume(pending);
    }
    let Called::Reply(reply, again) = called.expect("an answer") else { panic!("it was waited for") };
    assert!(reply.to_vec() == b"?" && !again, "sent once");
    assert_eq!(client.retries().counted().sent, 1);
}

/// It is known to hang: who needs a channel that is not there is told so, not made to wait.
#[test]
fn a_wait_for_a_channel_asks_whether_the_worker_still_looks() {
    let names = Names::new();
    let worker = spawn(&names);
    let client = attach(&names);
    let event_loop = LoopChannel::open(&client.session().expect("a session")).expect("the only channel");
    worker.stop();
    let patient = Request { timeout: Some(PATIENCE), ..request("echo", b"?") };
    for _ in 0..3 {
        let started = Instant::now();
        let failure = call(&client, &patient).expect_err("nobody gives a channel");
        assert!(failure.outcome == Outcome::Unavailable && failure.message.contains("has not looked"), "{failure}");
        assert!(started.elapsed() < SILENT_AFTER + PATIENCE / 4, "{:?}", started.elapsed());
    }
    worker.signal(Signal::SIGCONT);
    until("it serves again", || call(&client, &patient).is_ok());
    event_loop.close();
}

/// Fills a channel until a frame of the request's length has no room; the worker is stopped.
fn fill(channel: &mut Channel, request: &Request<'_>) {
    let brief = || os::now_ns() + 20_000_000;
    while common::submit(channel, request, brief()).is_ok() {}
}

/// A wait for room comes back too. It neither spins nor puts anything into the arena before there is room.
#[test]
fn a_wait_for_room_comes_back_asleep_and_holds_nothing() {
    let names = Names::new();
    let worker = spawn(&names);
    let client = attach(&names);
    let session = client.session().expect("a session");
    let mut channel = session.checkout(soon()).expect("a channel");
    let block = session.block(64).expect("room");
    let name = "t".repeat(100);
    let tables: Vec<_> = (0..100).map(|_| (name.as_str(), block.clone())).collect();
    let params = pattern(1, 300_000);
    let long = Request { payload: Payload::Tables(&tables), params: &params, ..request("table", &[]) };
    worker.stop();
    // Room for most frames, and not for this one.
    fill(&mut channel, &Request { payload: Payload::Tables(&tables[1..]), ..request("table", &[]) });
    let used = report(&names).arena.used_bytes;
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock"));
    let (started, spent) = (Instant::now(), cpu());
    assert_eq!(channel.submit_within(&long, soon()).expect("no failure"), None);
    assert!(started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
    assert!(cpu() - spent < Duration::from_millis(30), "{:?} of its time awake", cpu() - spent);
    assert_eq!(report(&names).arena.used_bytes, used, "nothing is placed before there is room");
    worker.signal(Signal::SIGCONT);
    common::submit(&mut channel, &long, soon()).expect("room again");
    channel.check_in();
}

/// `poor NAME`: runs out of descriptors where one more channel is needed.
fn poor(words: &[String]) {
    let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
    let session = client.session().expect("a session");
    let taken = session.checkout(soon()).expect("a channel");
    let mut files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let brief = Request { timeout: Some(Duration::from_millis(300)), ..request("echo", b"?") };
    let refused = call(&client, &brief).expect_err("no descriptor");
    assert_eq!(refused.outcome, Outcome::Busy, "{refused}");
    assert!(["descriptor", "of 64 are open", "hint:"].iter().all(|word| refused.message.contains(word)), "{refused}");
    files.truncate(files.len() - 4);
    assert_eq!(call(&client, &request("echo", b"on")).expect("a channel").to_vec(), b"on");
    let same: &Session = &client.session().expect("a session");
    assert!(std::ptr::eq(same, &*session) && !session.is_dead(), "the session goes on");
    taken.check_in();
    child::say("fine");
    while child::hear().is_some() {}
}

/// The client's own lack of descriptors is no death of its worker.
#[test]
fn a_client_out_of_descriptors_is_told_so_and_keeps_its_session() {
    let worker = ThreadWorker::start();
    let mut poor = Child::start_under("ulimit -n 64; exec \"$0\" \"$@\"", &["poor", &worker.names.shm]);
    assert_eq!(poor.line(), "fine");
    assert!(poor.finish());
    assert_eq!(worker.report().totals["cut"], 0);
}

/// The kernel lets the worker send no descriptor (its user has too many on their way): the request for a channel is
/// refused, and the client, which has done nothing, is not cut.
#[test]
fn a_worker_that_cannot_send_a_doorbell_refuses_and_cuts_nobody() {
    let names = Names::new();
    // root may send as many as it likes.
    let limited = "ulimit -n 40; [ \"$(id -u)\" = 0 ] || exec \"$0\" \"$@\"; \
                   exec setpriv --bounding-set=-sys_resource,-sys_admin \"$0\" \"$@\"";
    let mut worker = Child::start_under(limited, &["worker", &names.shm, names.socket.to_str().expect("a plain path")]);
    assert_eq!(worker.line(), "serving");
    let client = attach(&names);
    let (on_their_way, held) = UnixStream::pair().expect("a pair");
    let fds = [held.as_raw_fd(); 100];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(on_their_way.as_raw_fd(), &[IoSlice::new(&[1])], &rights, MsgFlags::empty(), None).expect("room");
    let brief = Request { timeout: Some(Duration::from_millis(300)), ..request("echo", b"?") };
    let refused = call(&client, &brief).expect_err("no doorbell can be sent");
    assert!(refused.outcome == Outcome::Busy && refused.message.contains("doorbell"), "{refused}");
    assert_eq!(report(&names).totals["cut"], 0);
    drop((on_their_way, held));
    assert_eq!(call(&client, &request("echo", b"on")).expect("a channel").to_vec(), b"on");
    assert!(worker.finish());
}
