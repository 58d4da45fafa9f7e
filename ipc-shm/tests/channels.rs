//! Channels between many processes: whoever has none gets one, whoever waits for one can be interrupted, and where one
//! cannot be had nobody loses its session.

mod common;

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::child::{self, Child};
use common::worker::{ThreadWorker, attach, report, spawn};
use common::{Names, PATIENCE, call, pattern, request, small, until};
use molt_ipc_shm::client::{Called, Channel, Client, LoopChannel, Payload, Request, Session};
use molt_ipc_shm::layout::Geometry;
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

/// Uses so many channels at a time, or as many as there are to be had.
fn use_at_a_time(client: &Client, channels: usize) -> usize {
    let session = client.session().expect("a session");
    let short = || os::now_ns() + 50_000_000;
    let used: Vec<Channel> = std::iter::from_fn(|| session.checkout(short()).ok()).take(channels).collect();
    let count = used.len();
    used.into_iter().for_each(Channel::check_in);
    count
}

/// Processes that once had many calls at a time and are idle now do not keep others out.
#[test]
fn a_newcomer_gets_a_channel_that_others_do_not_use() {
    let worker = ThreadWorker::start();
    let all = small().channels as usize;
    let idle: Vec<Client> = (0..4).map(|_| worker.client()).collect();
    let used: usize = idle.iter().map(|client| use_at_a_time(client, all)).sum();
    assert!(used >= all - all / 8, "{used} of {all}");
    let newcomers: Vec<Client> = (0..4).map(|_| worker.client()).collect();
    for client in newcomers.iter().chain(&idle) {
        assert_eq!(call(client, &request("later", b"me")).expect("a channel").to_vec(), b"me");
    }
    let report = worker.report();
    assert!(report.sessions.iter().all(|session| (1..=4).contains(&session.channels)), "{:?}", report.sessions);
    // What an idle client is found to have lost does not break it.
    for client in &idle {
        assert!(use_at_a_time(client, 2) == 2 && call(client, &request("echo", b"on")).is_ok());
    }
}

#[test]
fn more_processes_than_channels_take_turns() {
    let worker = ThreadWorker::with(Geometry { channels: 2, ..small() });
    let clients: Vec<Client> = (0..6).map(|_| worker.client()).collect();
    for round in 0..10_u64 {
        for (number, client) in clients.iter().enumerate() {
            let payload = pattern(round * 10 + number as u64, 20_000);
            assert!(call(client, &request("later", &payload)).expect("its turn").to_vec() == payload);
        }
    }
    assert_eq!(worker.report().totals["cut"], 0);
    drop(clients);
    until("all is given back", || worker.report().sessions.is_empty() && worker.report().arena.used_bytes == 0);
}

/// One that is in use all the time is asked for, and comes back between two uses.
#[test]
fn a_channel_in_use_is_given_up_for_who_has_none() {
    let worker = ThreadWorker::with(Geometry { channels: 8, ..small() });
    let busy: Vec<Client> = (0..4).map(|_| worker.client()).collect();
    let sessions: Vec<_> = busy.iter().map(|client| client.session().expect("a session")).collect();
    let mut held: Vec<Channel> = Vec::new();
    for session in &sessions {
        let short = || os::now_ns() + 50_000_000;
        held.extend(std::iter::from_fn(|| session.checkout(short()).ok()).take(2));
    }
    let last: Vec<Client> = (0..8 - held.len()).map(|_| worker.client()).collect();
    held.extend(last.iter().map(|client| client.session().and_then(|own| own.checkout(soon())).expect("a last one")));
    assert_eq!(held.len(), 8, "all of them");
    let newcomer = worker.client();
    std::thread::scope(|scope| {
        let served = scope.spawn(|| call(&newcomer, &request("echo", b"me")).map(|reply| reply.to_vec()));
        // Never idle for longer than a thread takes to go on.
        until("the newcomer is served", || {
            let channel = held.remove(0);
            let session = channel.session().clone();
            channel.check_in();
            held.extend(session.checkout(os::now_ns() + 1_000_000));
            served.is_finished()
        });
        assert_eq!(served.join().expect("a thread").expect("an answer"), b"me");
    });
    held.into_iter().for_each(Channel::check_in);
}

/// Who has a channel that never comes back gets another one as soon as there is one.
#[test]
fn a_call_beside_an_event_loop_waits_for_any_channel() {
    let worker = ThreadWorker::with(Geometry { channels: 8, ..small() });
    let client = worker.client();
    let event_loop = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let others: Vec<Client> = (0..6).map(|_| worker.client()).collect();
    let mut held: Vec<Channel> =
        others.iter().map(|other| other.session().and_then(|own| own.checkout(soon())).expect("a channel")).collect();
    let brief = Request { timeout: Some(Duration::from_millis(150)), ..request("echo", b"?") };
    let refused = call(&client, &brief).expect_err("the last one is for a process that has none");
    assert!(refused.outcome == Outcome::Busy && refused.message.contains("of 8 channels"), "{refused}");
    std::thread::scope(|scope| {
        let served = scope.spawn(|| call(&client, &request("echo", b"me")).map(|reply| reply.to_vec()));
        held.pop();
        assert_eq!(served.join().expect("a thread").expect("a channel of the other's"), b"me");
    });
    event_loop.close();
}

/// What a burst of calls has opened goes back when calls come one at a time again.
#[test]
fn channels_that_a_process_does_not_use_go_back_after_a_while() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    assert_eq!(use_at_a_time(&client, 4), 4);
    let late = request("queue", b"late");
    let Ok(Called::Interrupted(pending)) = client.call(&late) else { panic!("nobody answers") };
    client.cancel(pending);
    until("two are left", || {
        std::thread::sleep(Duration::from_millis(20));
        call(&client, &request("echo", b"now and then")).expect("an answer");
        worker.report().sessions[0].channels <= 2
    });
    assert_eq!(use_at_a_time(&client, 4), 4);
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
    let own = || worker.report().sessions.iter().find(|session| session.pid == poor.pid()).map(|poor| poor.channels);
    until("channels that it could not take are free again", || own() == Some(2));
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
