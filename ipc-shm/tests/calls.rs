//! Calls between a client and a worker that are well: sizes, threads, leases, deadlines, cancelling, room.

mod common;

use std::time::{Duration, Instant};

use common::worker::{ThreadWorker, blueprint};
use common::{Names, PATIENCE, call, pattern, request, small, until};
use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::{Body, Called, LoopChannel, Payload, Request, Session, Submitted};
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::os::now_ns;

const MIB: usize = 1 << 20;

/// The worker has let go of everything, and nobody is in flight.
fn nothing_is_held(worker: &ThreadWorker) -> bool {
    let report = worker.report();
    report.arena.used_bytes == 0 && report.sessions.iter().all(|session| session.in_flight == 0 && session.leases == 0)
}

#[test]
fn an_answer_has_the_bytes_of_its_request_at_every_size() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    // The inline limit is an eighth of a ring, its frame's head and name included.
    let edge = small().ring_bytes as usize / 8;
    let around = (edge - 140..edge + 10).chain([0, 1, 7, 8, 63, 64, 65]);
    let large = [64 << 10, (64 << 10) + 1, 256 << 10, (256 << 10) + 1, MIB, 3 * MIB + 17, 8 * MIB];
    for len in around.chain(large) {
        let payload = pattern(len as u64, len);
        for entry in ["echo", "later"] {
            let reply = call(&client, &request(entry, &payload)).expect("an answer");
            assert_eq!((reply.outcome, reply.head.codec), (Outcome::Ok, 3), "{len} bytes");
            assert!(reply.to_vec() == payload, "{entry} of {len} bytes");
        }
    }
    drop(client);
    until("all is given back", || nothing_is_held(&worker) && worker.report().sessions.is_empty());
}

#[test]
fn long_params_and_blocks_travel_like_any_payload() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let session = client.session().expect("a session");
    let params = pattern(3, 100_000);
    let block = session.block(500_000).expect("room");
    block.block().write(0, &pattern(4, 500_000));
    let both = Request { params: &params, payload: Payload::Block(&block), ..request("echo", &[]) };
    assert!(call(&client, &both).expect("an answer").to_vec() == pattern(4, 500_000));
    drop((block, session));
    until("all is given back", || nothing_is_held(&worker));
}

#[test]
fn many_threads_share_a_client_and_each_gets_its_own_answer() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    // More threads than channels: some wait for one that comes back.
    std::thread::scope(|scope| {
        for thread in 0..24_u64 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..60_u64 {
                    let len = (round * 997 + thread * 131) as usize % if round % 10 == 0 { 300_000 } else { 6000 };
                    let payload = pattern(thread << 32 | round, len);
                    let entry = if round % 2 == 0 { "echo" } else { "later" };
                    let reply = call(client, &request(entry, &payload)).expect("an answer");
                    assert!(reply.outcome == Outcome::Ok && reply.to_vec() == payload, "thread {thread} round {round}");
                }
            });
        }
    });
    assert!(worker.report().sessions[0].channels <= small().channels);
    drop(client);
    until("all is given back", || nothing_is_held(&worker) && worker.report().sessions.is_empty());
}

/// Fault 53.
#[test]
fn a_result_stays_until_its_last_holder_lets_go_even_after_close() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let replies: Vec<_> = (0..5_u64)
        .map(|number| call(&client, &request("big", &(MIB as u64 + number).to_le_bytes())).expect("an answer"))
        .collect();
    assert!(replies.iter().all(|reply| matches!(reply.body, Body::Leased(_))));
    until("five leases are seen", || worker.report().sessions[0].leases == 5);
    client.close();
    for (number, reply) in replies.iter().enumerate() {
        let len = MIB + number;
        assert!(reply.to_vec() == pattern(len as u64, len), "valid after close");
    }
    assert_eq!(worker.report().sessions.len(), 1, "the session outlives close");
    drop(replies);
    until("the session ends with its last lease", || nothing_is_held(&worker) && worker.report().sessions.is_empty());
}

#[test]
fn results_are_let_go_of_from_any_thread() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    for _ in 0..20 {
        let replies: Vec<_> =
            (0..10).map(|_| call(&client, &request("big", &300_000_u64.to_le_bytes())).expect("an answer")).collect();
        std::thread::scope(|scope| replies.into_iter().for_each(|reply| drop(scope.spawn(move || drop(reply)))));
    }
    until("all is given back", || nothing_is_held(&worker));
}

/// A result too many is refused with the number, and letting one go makes room.
#[test]
fn more_results_than_lease_numbers_are_refused_until_one_is_let_go() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let one = 5000_u64.to_le_bytes();
    let ask = || call(&client, &request("big", &one)).expect("an answer");
    let mut held: Vec<_> = (0..64).map(|_| ask()).collect();
    assert!(held.iter().all(|reply| reply.outcome == Outcome::Ok));
    let refused = ask();
    // Not Busy: the entry has run, and who obeys Busy would run it again.
    assert_eq!(refused.outcome, Outcome::Internal);
    assert!(refused.into_failure().message.contains("64"));
    held.pop();
    until("one fits again", || ask().outcome == Outcome::Ok);
}

/// Fault 17: a full arena is Busy with the numbers, for requests and for answers, and recovers by itself.
#[test]
fn a_full_arena_is_busy_and_recovers() {
    let geometry = Geometry { extents: 16, ..small() };
    let worker = ThreadWorker::with(geometry);
    let client = worker.client();
    let session = client.session().expect("a session");
    let most = geometry.arena_bytes();
    let all = session.block(most).expect("an empty arena");
    let payload = pattern(1, 100_000);
    let refused = call(&client, &request("echo", &payload)).expect_err("no room for the request");
    assert!(refused.outcome == Outcome::Busy && refused.message.contains("bytes"), "{refused}");
    let answer = call(&client, &request("big", &100_000_u64.to_le_bytes())).expect("an answer");
    assert_eq!(answer.outcome, Outcome::Busy, "no room for the answer");
    assert!(answer.into_failure().message.contains(&most.to_string()), "names the size");
    assert_eq!(call(&client, &request("echo", b"small")).expect("inline needs no arena").to_vec(), b"small");
    drop(all);
    assert!(call(&client, &request("echo", &payload)).expect("room again").to_vec() == payload);
    drop(session);
    until("all is given back", || nothing_is_held(&worker));
}

#[test]
fn a_session_cannot_take_more_than_its_quota() {
    let names = Names::new();
    let plan =
        molt_ipc_shm::segment::Blueprint { session_quota: MIB as u64, ..blueprint(names.socket.clone(), small()) };
    let worker = ThreadWorker::planned(names, &plan);
    let (client, other) = (worker.client(), worker.client());
    let held = client.session().expect("a session").block(MIB).expect("within the quota");
    let refused = call(&client, &request("echo", &pattern(1, 10_000))).expect_err("over the quota");
    assert!(refused.outcome == Outcome::Busy && refused.message.contains(&MIB.to_string()), "{refused}");
    assert_eq!(call(&other, &request("echo", &pattern(1, 10_000))).expect("a quota of its own").outcome, Outcome::Ok);
    drop(held);
    assert_eq!(call(&client, &request("echo", &pattern(1, 10_000))).expect("room again").outcome, Outcome::Ok);
}

/// Fault 43: decided before anything is allocated.
#[test]
fn a_body_over_the_limit_is_too_large() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let body = vec![0; (16 << 20) + 1];
    let refused = call(&client, &request("echo", &body)).expect_err("over max_body");
    assert!(refused.outcome == Outcome::TooLarge && refused.message.contains(&(16 << 20).to_string()), "{refused}");
    assert_eq!(worker.report().arena.used_bytes, 0);
}

#[test]
fn a_request_that_its_entry_forgets_is_internal_and_an_unknown_entry_is_named() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    assert_eq!(call(&client, &request("drop", b"x")).expect("an answer").outcome, Outcome::Internal);
    let unknown = call(&client, &request("nothing", b"x")).expect("an answer");
    assert_eq!(unknown.outcome, Outcome::UnknownEntry);
    assert!(unknown.into_failure().message.contains("nothing"));
    let long = "n".repeat(201);
    assert_eq!(call(&client, &request(&long, b"x")).expect_err("no such name").outcome, Outcome::UnknownEntry);
    assert_eq!(call(&client, &request(&long[1..], b"x")).expect("an answer").outcome, Outcome::UnknownEntry);
}

/// A caller waits no longer than it said; its channel serves others meanwhile; what it held comes back.
#[test]
fn a_deadline_that_passes_is_a_timeout_and_costs_nobody_else() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let payload = pattern(1, 300_000);
    call(&client, &request("echo", b"opens a channel")).expect("an answer");
    for round in 0..5_u64 {
        let started = Instant::now();
        let slow = Request { timeout: Some(Duration::from_millis(60)), ..request("queue", &payload) };
        let failure = call(&client, &slow).expect_err("nobody answers");
        assert!(failure.outcome == Outcome::Timeout && failure.message.contains("queued"), "{failure}");
        assert!(started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
        let reply = call(&client, &request("echo", &round.to_le_bytes())).expect("the channel serves others");
        assert_eq!(reply.to_vec(), round.to_le_bytes());
    }
    assert_eq!(worker.report().sessions[0].channels, 1, "one channel was enough");
    until("the limbo is over", || {
        let reply = call(&client, &request("release", b"")).expect("an answer");
        reply.outcome == Outcome::Ok && nothing_is_held(&worker)
    });
}

/// The late answer of a timed-out call holds nothing while the client goes on with other channels.
#[test]
fn what_a_timed_out_call_held_comes_back_while_others_go_on() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let session = client.session().expect("a session");
    let soon = || now_ns() + PATIENCE.as_nanos() as u64;
    let (mut first, second) = (session.checkout(soon()).expect("one"), session.checkout(soon()).expect("two"));
    let late = Request { timeout: Some(Duration::ZERO), ..request("hold", &[7; 300_000]) };
    let id = common::submit(&mut first, &late, now_ns() + 1_000_000_000).expect("submitted");
    until("it runs", || worker.report().arena.used_bytes > 0 && worker.report().sessions[0].in_flight == 1);
    first.time_out(id);
    first.check_in();
    second.check_in(); // from now on, this one is handed out
    drop(session);
    until("nothing is held for a caller who has gone", || {
        call(&client, &request("echo", b"on")).expect("an answer");
        nothing_is_held(&worker)
    });
}

/// Faults 50, 51.
#[test]
fn a_call_taken_back_is_cancelled_in_the_worker_and_its_channel_goes_on() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    for _ in 0..10 {
        let Ok(Called::Interrupted(pending)) = client.call(&request("hold", &[1; 200_000])) else {
            panic!("a wait of more than a tenth of a second comes back to its caller")
        };
        client.cancel(pending);
        assert_eq!(call(&client, &request("echo", b"next")).expect("an answer").to_vec(), b"next");
    }
    until("all is given back", || {
        call(&client, &request("echo", b"")).expect("an answer");
        nothing_is_held(&worker) && worker.report().totals["cancelled"] == 10
    });
    assert_eq!(worker.report().sessions[0].channels, 1);
}

/// A wait for a channel ends at its deadline, also when the client is closed meanwhile.
#[test]
fn a_wait_for_a_channel_ends_at_its_deadline() {
    let worker = ThreadWorker::with(Geometry { channels: 1, ..small() });
    let session = Session::attach(&common::address(&worker.names.shm), PATIENCE).expect("a session");
    let taken = session.checkout(now_ns() + PATIENCE.as_nanos() as u64).expect("the only channel");
    for close in [false, true] {
        let waiting = session.clone();
        let waiter = std::thread::spawn(move || {
            let started = Instant::now();
            let failure = waiting.checkout(now_ns() + 200_000_000).expect_err("no channel is left");
            (failure, started.elapsed())
        });
        if close {
            session.close_idle_channels();
        }
        until("the waiter gives up", || waiter.is_finished());
        let (failure, took) = waiter.join().expect("the waiter");
        assert!(matches!(failure.outcome, Outcome::Busy | Outcome::Unavailable), "{failure}");
        assert!(took < PATIENCE / 4, "{took:?}");
    }
    drop(taken);
}

/// Wrong limits of a frame: more tables than a frame has room for are refused, not waited for.
#[test]
fn tables_that_do_not_fit_a_frame_are_refused_at_once() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let block = client.session().expect("a session").block(64).expect("room");
    let name = "t".repeat(100);
    let tables: Vec<_> = (0..200).map(|_| (name.as_str(), block.clone())).collect();
    let refused =
        call(&client, &Request { payload: Payload::Tables(&tables), ..request("table", &[]) }).expect_err("too many");
    assert_eq!(refused.outcome, Outcome::InvalidInput);
}

/// What the worker still reads is nobody else's, whatever its sender has done since: it timed out, closed, and left.
#[test]
fn bytes_that_a_request_still_reads_are_not_given_to_others() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let short = Request { timeout: Some(Duration::from_millis(30)), ..request("keep", &[9; 300_000]) };
    assert_eq!(call(&client, &short).expect_err("it is held").outcome, Outcome::Timeout);
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    let held = request("keep", &[8; 300_000]);
    assert!(matches!(channel.submit(&held), Submitted::Id(_)));
    until("it is there", || worker.report().sessions[0].in_flight >= 1 && worker.report().arena.used_bytes >= 300_000);
    drop((channel, client));
    let other = worker.client();
    for _ in 0..50 {
        call(&other, &request("echo", &[1; 300_000])).expect("an answer");
        let owner = worker.report().sessions.iter().map(|session| session.arena_bytes).max();
        assert!(owner >= Some(300_000), "the extents under a running request went back");
    }
    call(&other, &request("release", b"")).expect("an answer");
    until("now they do", || nothing_is_held(&worker) && worker.report().sessions.len() == 1);
}

/// What a failed test or a log prints of a reply names it, and does not spill the pool and the bytes behind it.
#[test]
fn a_reply_prints_as_one_short_line() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let inline = call(&client, &request("echo", &[7; 2000])).expect("an answer");
    let leased = call(&client, &request("big", &300_000_u64.to_le_bytes())).expect("an answer");
    for (body, words) in [(&inline.body, vec!["2000 bytes"]), (&leased.body, vec!["Lease(", "300000", "slot 0"])] {
        let text = format!("{body:?}");
        assert!(text.len() < 200 && words.iter().all(|word| text.contains(word)), "{text}");
    }
    let text = format!("{leased:?}");
    assert!(text.len() < 800 && text.contains(&worker.names.shm), "{text}");
}
