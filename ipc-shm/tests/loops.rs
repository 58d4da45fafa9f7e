//! An event loop's channel: many requests in flight, answers in any order, its doorbell as the only thing to wait for.

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::child;
use common::worker::{ThreadWorker, attach, spawn};
use common::{Names, PATIENCE, call, pattern, request, small, until, within};
use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::{LoopChannel, Request, Submitted};
use molt_ipc_shm::layout::Geometry;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role)]);
}

/// Waits for the doorbell as an event loop does; `false`: nothing came in a tenth of a second.
fn readable(channel: &LoopChannel) -> bool {
    let mut polled = [PollFd::new(channel.bell(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::from(100_u8)).expect("a poll") > 0
}

fn submit(channel: &mut LoopChannel, request: &Request<'_>) -> Option<u64> {
    match channel.submit(request) {
        Submitted::Id(id) => Some(id),
        Submitted::Full => None,
        other => panic!("{other:?}"),
    }
}

/// Every one of a thousand is answered once, with its own bytes, in an order of the worker's; inline and leased alike.
#[test]
fn a_thousand_requests_are_each_answered_once_in_any_order() {
    const REQUESTS: u64 = 1000;
    // Answers that find the ring full become leases: as many as may be unread.
    let worker = ThreadWorker::with(Geometry { leases_per_session: 1024, ..small() });
    let client = worker.client();
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let payload =
        |number: u64| pattern(number, if number.is_multiple_of(50) { 20_000 } else { (number % 900) as usize });
    let (mut sent, mut open, mut order) = (0, HashMap::new(), Vec::new());
    let end = Instant::now() + PATIENCE;
    let mut most = 0;
    while order.len() < REQUESTS as usize {
        while sent < REQUESTS {
            let Some(id) = submit(&mut channel, &request("later", &payload(sent))) else { break };
            assert_eq!(open.insert(id, sent), None, "an id of its own");
            sent += 1;
        }
        most = most.max(open.len());
        for (id, reply) in channel.poll(64) {
            let number = open.remove(&id).expect("an answer to what is open");
            let reply = reply.expect("an answer");
            assert_eq!(reply.outcome, Outcome::Ok, "request {number}: {:?}", String::from_utf8_lossy(&reply.to_vec()));
            assert!(reply.to_vec() == payload(number), "request {number}");
            order.push(number);
        }
        if !open.is_empty() {
            readable(&channel);
        }
        assert!(Instant::now() < end, "{} of {REQUESTS} answered", order.len());
    }
    assert!(most > 20, "at most {most} were in flight together");
    assert!(!order.is_sorted(), "the pool answers the newest first");
    assert_eq!(channel.in_flight(), 0);
    channel.close();
    until("all is given back", || worker.report().arena.used_bytes == 0);
}

/// Lease numbers that were given back count as free, whether or not the worker has looked since.
#[test]
fn results_let_go_of_make_room_for_the_next_at_once() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let (mut sent, mut answered) = (0, 0);
    let payload = pattern(1, 5000);
    until("all are answered", || {
        // Fewer in flight than there are lease numbers; every answer is let go of as soon as it is read.
        while sent < 3000 && sent - answered < 60 && submit(&mut channel, &request("later", &payload)).is_some() {
            sent += 1;
        }
        for (_, reply) in channel.poll(32) {
            let reply = reply.expect("an answer");
            assert_eq!(reply.outcome, Outcome::Ok, "{:?}", String::from_utf8_lossy(&reply.to_vec()));
            answered += 1;
        }
        answered == 3000
    });
    channel.close();
}

/// What is armed is rung: no answer has to wait for a timer.
#[test]
fn the_doorbell_rings_for_every_answer_that_the_loop_sleeps_for() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    for round in 0..300_u64 {
        let id = submit(&mut channel, &request("later", &round.to_le_bytes())).expect("room");
        let mut answers = channel.poll(8); // arms when there is less than asked for
        let end = Instant::now() + PATIENCE;
        while answers.is_empty() {
            let rang = readable(&channel);
            answers = channel.poll(8);
            assert!(rang || answers.is_empty(), "round {round}: an answer was there and the doorbell had not rung");
            assert!(Instant::now() < end, "round {round}");
        }
        let (found, reply) = answers.remove(0);
        assert_eq!((found, reply.expect("an answer").to_vec()), (id, round.to_le_bytes().to_vec()));
    }
    channel.close();
}

/// Nobody rings for a client that looks by itself.
#[test]
fn a_client_that_does_not_sleep_is_not_rung() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let session = client.session().expect("a session");
    let deadline = molt_ipc_shm::os::now_ns() + PATIENCE.as_nanos() as u64;
    let mut channel = session.checkout(deadline).expect("a channel");
    let before = worker.report().totals["doorbells"].clone();
    for round in 0..100_u64 {
        let id = common::submit(&mut channel, &request("echo", &round.to_le_bytes()), deadline).expect("submitted");
        let mut reply = None;
        until("the answer", || {
            reply = channel.next_reply();
            reply.is_some()
        });
        assert_eq!(reply.expect("an answer").0, id);
    }
    assert_eq!(worker.report().totals["doorbells"], before);
    channel.check_in();
}

#[test]
fn a_full_channel_says_so_and_takes_more_after_a_poll() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let mut ids = Vec::new();
    while let Some(id) = submit(&mut channel, &request("queue", b"x")) {
        ids.push(id);
    }
    assert_eq!(ids.len(), small().cells_per_channel as usize, "as many as there are cells");
    until("all are taken", || worker.report().sessions[0].in_flight as usize == ids.len());
    call(&client, &request("release", b"")).expect("an answer");
    let mut answered = Vec::new();
    until("all are answered", || {
        readable(&channel);
        answered.extend(channel.poll(1000).into_iter().map(|(id, reply)| {
            assert_eq!(reply.expect("an answer").outcome, Outcome::Ok);
            id
        }));
        answered.len() == ids.len()
    });
    answered.sort_unstable();
    assert_eq!(answered, ids);
    assert!(submit(&mut channel, &request("echo", b"y")).is_some());
    channel.close();
}

/// Fault 37: a client that never reads fills its own ring and stops nobody else.
#[test]
fn a_loop_that_does_not_read_stops_nobody_else() {
    let worker = ThreadWorker::start();
    let (lazy, busy) = (worker.client(), worker.client());
    let mut channel = LoopChannel::open(&lazy.session().expect("a session")).expect("a channel");
    let mut sent = 0;
    while submit(&mut channel, &request("echo", &[1; 3000])).is_some() {
        sent += 1;
        if sent % 5 == 0 {
            call(&busy, &request("echo", b"me")).expect("others are served");
        }
        assert!(sent < 10_000, "a ring has an end");
    }
    for _ in 0..50 {
        assert_eq!(call(&busy, &request("echo", b"me")).expect("others are served").to_vec(), b"me");
    }
    let mut answered = 0;
    until("all answers come once it reads", || {
        readable(&channel);
        answered += channel
            .poll(1000)
            .iter()
            .filter(|(_, reply)| reply.as_ref().is_ok_and(|reply| reply.outcome == Outcome::Ok))
            .count();
        answered == sent
    });
    channel.close();
}

/// Context switches of a process that its threads asked for: how often they went to sleep.
fn sleeps(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten();
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    statuses.map(count).sum()
}

/// Faults 30, 37: a worker without work is not kept awake by a client that does not read, and serves it once it does.
#[test]
fn a_client_that_does_not_read_does_not_keep_the_worker_awake() {
    let names = Names::new();
    let worker = spawn(&names);
    let client = attach(&names);
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let mut sent = 0;
    while within(Duration::from_millis(200), || submit(&mut channel, &request("echo", &[1; 3000])).is_some()) {
        sent += 1;
    }
    let (before, since) = (sleeps(worker.pid()), Instant::now());
    until("a second has passed", || since.elapsed() > Duration::from_secs(1));
    let slept = sleeps(worker.pid()) - before;
    assert!(slept < 100, "{slept} times in a second");
    let mut answered = 0;
    until("all answers come once it reads", || {
        answered += channel.poll(1000).iter().filter(|(_, reply)| reply.is_ok()).count();
        answered == sent
    });
    channel.close();
}

#[test]
fn time_outs_and_cancellations_come_out_once_or_never() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let short = Request { timeout: Some(Duration::from_millis(50)), ..request("hold", &[5; 10_000]) };
    let late = submit(&mut channel, &short).expect("room");
    let taken_back = submit(&mut channel, &request("hold", b"never mind")).expect("room");
    let answered = submit(&mut channel, &request("echo", b"here")).expect("room");
    channel.cancel(taken_back);
    let mut out = HashMap::new();
    until("the two that are awaited", || {
        readable(&channel);
        for (id, reply) in channel.poll(8) {
            assert!(out.insert(id, reply.map(|reply| reply.outcome).map_err(|failure| failure.outcome)).is_none());
        }
        out.len() == 2
    });
    assert_eq!(out, HashMap::from([(late, Err(Outcome::Timeout)), (answered, Ok(Outcome::Ok))]));
    until("the worker has let go", || {
        assert!(channel.poll(8).is_empty(), "nothing comes for them any more");
        channel.in_flight() == 0
    });
    channel.close();
    until("all is given back", || worker.report().arena.used_bytes == 0);
}

/// A leased answer that nobody ever reads is no reason to keep the session, once the client has closed it.
#[test]
fn answers_that_were_never_read_end_with_the_session() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    submit(&mut channel, &request("big", &1_000_000_u64.to_le_bytes())).expect("room");
    until("the answer is there", || worker.report().sessions[0].leases == 1);
    channel.close();
    client.close();
    drop(client);
    until("slot and arena are back", || worker.report().sessions.is_empty() && worker.report().arena.used_bytes == 0);
}

/// A channel that is dropped, not closed, does not keep its slot in the worker.
#[test]
fn a_dropped_channel_comes_back() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let session = client.session().expect("a session");
    for round in 0..3 * small().channels {
        let mut opened = None;
        until("there is a channel", || {
            opened = LoopChannel::open(&session).ok();
            opened.is_some()
        });
        let mut channel = opened.expect("a channel");
        submit(&mut channel, &request("echo", &[9; 10_000])).unwrap_or_else(|| panic!("round {round}"));
        drop(channel);
        assert_eq!(session.channels_in_use(), 0);
    }
    // What its requests carried may still be read; it comes back with the session.
    drop(session);
    drop(client);
    until("the blocks are back", || worker.report().arena.used_bytes == 0);
}

#[test]
fn closing_a_loop_takes_back_what_it_still_had_in_flight() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    (0..20).for_each(|_| assert!(submit(&mut channel, &request("hold", &[2; 10_000])).is_some()));
    until("they run", || worker.report().sessions[0].in_flight == 20);
    channel.close();
    until("the worker has let go of them", || worker.report().totals["cancelled"] == 20);
    assert_eq!(call(&client, &request("echo", b"on")).expect("the pool goes on").to_vec(), b"on");
    until("all is given back", || worker.report().arena.used_bytes == 0);
}
