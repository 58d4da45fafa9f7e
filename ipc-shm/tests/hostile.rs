//! Peers that break the rules: the offender is cut, nobody else notices, nothing is kept.

mod common;

use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::child::{self, Child};
use common::echo::Echo;
use common::raw::Raw;
use common::worker::{ThreadWorker, attach, blueprint, create, report, spawn};
use common::{Names, PATIENCE, call, descriptors, descriptors_at_rest, pattern, request, small, until, within};
use molt_ipc_shm::Outcome;
use molt_ipc_shm::cell;
use molt_ipc_shm::client::Client;
use molt_ipc_shm::frame::{Handle, RequestHead, kind, request_flag};
use molt_ipc_shm::handshake::{self, Hello, Inbox, Received, message};
use molt_ipc_shm::layout::{LAYOUT_VERSION, channel, layout_hash, session};
use molt_ipc_shm::worker::Poller;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role), ("vandal", vandal)]);
}

/// `vandal NAME SOCKET WHAT`: attaches like a client, breaks one rule, and stays alive.
fn vandal(words: &[String]) {
    let mut raw = Raw::attach_to(&words[0], words[1].as_ref());
    let place = raw.requests();
    let number: u64 = words[3].parse().expect("a number");
    let name = *b"echo";
    let frame = |head: RequestHead| [&head.encode()[..], &name, &[0; 60]].concat();
    match words[2].as_str() {
        "tail" => raw.set(place.tail, number),
        "response-head" => {
            // The worker asks for this word when its ring seems full.
            raw.set(raw.segment.geometry.channel(raw.channel) + channel::RESPONSE_HEAD, number);
            let taken = |raw: &Raw| raw.segment.map.u64(place.head).load(Ordering::Acquire);
            for sent in 0..1000_u64 {
                if !within(PATIENCE / 100, || sent * 128 - taken(&raw) < 4096) {
                    break;
                }
                let head = raw.head(sent + 1);
                raw.commit(&frame(head));
            }
        }
        "len" => raw.commit(&frame(RequestHead { len: number as u32, ..raw.head(1) })),
        "kind" => raw.commit(&frame(RequestHead { kind: number as u32, ..raw.head(1) })),
        "cell" => raw.commit(&frame(RequestHead { cell: number as u32, ..raw.head(1) })),
        "name" => raw.commit(&frame(RequestHead { name_len: number as u16, ..raw.head(1) })),
        "handles" => raw.commit(&frame(RequestHead { handles: number as u16, ..raw.head(1) })),
        "payload" => raw.commit(&frame(RequestHead { payload_len: number as u32, ..raw.head(1) })),
        "flags" => raw.commit(&frame(RequestHead { flags: number as u16, ..raw.head(1) })),
        "garbage" => {
            raw.segment.map.write(place.data, &pattern(number, place.capacity));
            raw.set(place.tail, 4096);
        }
        other => panic!("no rule {other}"),
    }
    raw.wake();
    child::say("done");
    while child::hear().is_some() {}
}

/// Faults 25, 28, 40: every kind of nonsense in the ring cuts its sender alone, and its death gives all back.
#[test]
fn who_breaks_a_rule_of_the_ring_is_cut_and_nobody_else() {
    let names = Names::new();
    let worker = spawn(&names);
    let witness = attach(&names);
    call(&witness, &request("echo", b"here")).expect("an answer");
    let far = 1_u64 << 40;
    let rules = [
        ("tail", 1),
        ("tail", 63),
        ("tail", far),
        ("tail", u64::MAX),
        ("response-head", 1 << 30),
        ("response-head", u64::MAX),
        ("len", 0),
        ("len", 7),
        ("len", 8),
        ("len", 63),
        ("len", 4000),
        ("len", u64::from(u32::MAX)),
        ("kind", 2),
        ("kind", 77),
        ("cell", 120),
        ("cell", u64::from(u32::MAX)),
        ("name", 5),
        ("name", 3),
        ("name", u64::from(u16::MAX)),
        ("handles", 1),
        ("handles", u64::from(u16::MAX)),
        ("payload", 1),
        ("payload", u64::from(u32::MAX)),
        ("flags", 1 << 15),
        ("garbage", 1),
        ("garbage", 2),
        ("garbage", 3),
    ];
    for (count, (what, number)) in rules.iter().enumerate() {
        let socket = names.socket.to_str().expect("a plain path");
        let mut child = Child::start(&["vandal", &names.shm, socket, what, &number.to_string()]);
        assert_eq!(child.line(), "done", "{what} {number}");
        until(&format!("{what} {number} is cut and held until its process ends"), || {
            let report = report(&names);
            assert_eq!(call(&witness, &request("echo", b"on")).expect("others go on").to_vec(), b"on");
            let theirs = report.sessions.iter().find(|session| session.pid == child.pid());
            theirs.is_some_and(|session| session.state == "quarantined") && report.totals["cut"] == count + 1
        });
        child.kill();
        until("its slot comes back", || report(&names).sessions.len() == 1 && report(&names).arena.used_bytes == 0);
    }
    assert!(worker.finish(), "the worker is in good order");
}

/// Faults 28, 52: handles of nobody, of others, of the past are refused to the one request that has them.
#[test]
fn a_request_with_a_foreign_handle_is_invalid_and_nothing_else_happens() {
    let worker = ThreadWorker::start();
    let owner = worker.client();
    let theirs = owner.session().expect("a session").block(300_000).expect("room");
    let mut raw = Raw::attach(&worker.names);
    let arena = raw.arena();
    let (stale, own) = (arena.claim(100).expect("room"), arena.claim(100).expect("room"));
    arena.free(stale);
    let extent = u64::from(small().extent_bytes);
    let at = |run| arena.offset(run) as u64;
    let good = Handle { offset: at(own), len: 100, generation: own.generation, sequence: 1 };
    let cases = [
        (good, Outcome::Ok),
        (theirs.block().handle(), Outcome::InvalidInput),
        (Handle { offset: at(stale), generation: stale.generation, ..good }, Outcome::InvalidInput),
        (Handle { generation: good.generation + 1, ..good }, Outcome::InvalidInput),
        (Handle { len: extent + 1, ..good }, Outcome::InvalidInput),
        (Handle { len: u64::MAX, ..good }, Outcome::InvalidInput),
        (Handle { offset: u64::MAX - 10, ..good }, Outcome::InvalidInput),
        (Handle { offset: 0, len: 512, ..good }, Outcome::InvalidInput),
        (Handle { offset: raw.segment.geometry.total_bytes() as u64, len: 0, ..good }, Outcome::InvalidInput),
    ];
    let name = *b"echo";
    for (number, (handle, expected)) in cases.into_iter().enumerate() {
        let before = worker.report().totals[expected.name()].as_u64().expect("a counter");
        let head = RequestHead { len: 100, flags: request_flag::HANDLES, handles: 1, ..raw.head(number as u64 + 1) };
        cell::queue(raw.segment.map.u64(raw.segment.geometry.cell(raw.channel, 0)), head.id);
        raw.commit(&[&head.encode()[..], &name, &handle.encode()].concat());
        until(&format!("case {number} is {expected:?}"), || worker.report().totals[expected.name()] == before + 1);
    }
    assert_eq!(worker.report().totals["cut"], 0);
}

/// Fault 49: of two requests of one cell and id, one runs.
#[test]
fn a_request_sent_twice_runs_once() {
    let worker = ThreadWorker::start();
    let mut raw = Raw::attach(&worker.names);
    cell::queue(raw.segment.map.u64(raw.segment.geometry.cell(raw.channel, 5)), 9);
    let frame = [&RequestHead { cell: 5, ..raw.head(9) }.encode()[..], b"echo"].concat();
    raw.commit(&frame);
    raw.commit(&frame);
    until("both have ended", || worker.report().totals["requests"] == 2 && worker.report().totals["cancelled"] == 1);
    assert_eq!(worker.report().totals["ok"], 1);
}

/// Fault 40: the socket.
#[test]
fn garbage_on_the_socket_is_cut_and_costs_no_descriptor() {
    let names = Names::new();
    let worker = spawn(&names);
    let witness = attach(&names);
    call(&witness, &request("echo", b"here")).expect("an answer");
    let baseline = descriptors_at_rest(worker.pid());
    let good = Raw::connect(&names).hello();
    let message =
        |kind: u32, payload: &[u8]| [&(payload.len() as u32).to_le_bytes()[..], &kind.to_le_bytes(), payload].concat();
    let cut: [(&str, Vec<u8>); 9] = [
        ("noise", pattern(1, 5000)),
        ("zeros", vec![0; 64]),
        ("a length beyond all", message(message::HELLO, &[0; 24]).into_iter().map(|byte| byte | 0x80).collect()),
        ("an unknown kind", message(99, &[])),
        ("a short hello", message(message::HELLO, &good.encode()[..23])),
        ("a channel before hello", message(message::OPEN, &[])),
        ("a worker's words", message(message::WELCOME, &[0; 16])),
        ("two hellos", [message(message::HELLO, &good.encode()), message(message::HELLO, &good.encode())].concat()),
        ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in &cut {
        let mut raw = Raw::connect(&names);
        raw.shout(bytes);
        assert!(raw.is_cut(), "{what}");
        assert_eq!(call(&witness, &request("echo", b"on")).expect("others go on").to_vec(), b"on", "{what}");
    }
    for (what, hello) in [
        ("another start", Hello { instance: good.instance ^ 1, ..good }),
        ("another layout", Hello { layout_version: good.layout_version + 1, ..good }),
        ("another hash", Hello { layout_hash: 0, ..good }),
    ] {
        let mut raw = Raw::connect(&names);
        raw.say(message::HELLO, &hello.encode());
        let Received::Message(refused) = raw.hear() else { panic!("{what}: no answer") };
        assert_eq!((refused.kind, refused.payload[0]), (message::REFUSED, Outcome::Unavailable as u8), "{what}");
    }
    // Half a hello, then the end; and half a hello in two parts with a pause, which is fine.
    let mut half = Raw::connect(&names);
    half.shout(&message(message::HELLO, &good.encode())[..11]);
    drop(half);
    let mut slow = Raw::connect(&names);
    let whole = message(message::HELLO, &good.encode());
    slow.shout(&whole[..11]);
    call(&witness, &request("echo", b"in between")).expect("an answer");
    slow.shout(&whole[11..]);
    assert!(matches!(slow.hear(), Received::Message(welcome) if welcome.kind == message::WELCOME));
    drop(slow);
    // A process that was cut keeps its slot until it ends: here one, the second hello's.
    until("descriptors are back", || descriptors(worker.pid()) == baseline + 2);
}

/// Descriptors that nobody asked for are closed, however many come.
#[test]
fn unwanted_descriptors_do_not_stay_in_the_worker() {
    let names = Names::new();
    let worker = spawn(&names);
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let baseline = descriptors_at_rest(worker.pid());
    for count in [1, 4, 5, 60, 253] {
        for _ in 0..5 {
            let raw = Raw::connect(&names);
            let fds = vec![null.as_raw_fd(); count];
            let junk = [7; 16];
            let _ = sendmsg::<()>(
                raw.socket.as_raw_fd(),
                &[IoSlice::new(&junk)],
                &[ControlMessage::ScmRights(&fds)],
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
        }
    }
    until("descriptors are back", || descriptors(worker.pid()) == baseline);
}

/// Fault 40, silence: a connection without a hello does not last.
#[test]
fn who_connects_and_says_nothing_is_shown_out() {
    let worker = ThreadWorker::start();
    let mut silent = Raw::connect(&worker.names);
    assert!(silent.is_cut());
    assert_eq!(worker.report().sessions.len(), 0);
}

/// A peer that feeds its ring without end gets no more than its share of the worker.
#[test]
fn a_flood_in_one_ring_leaves_the_others_their_turn() {
    let worker = ThreadWorker::start();
    let witness = worker.client();
    let mut flood = Raw::attach(&worker.names);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let flooder = std::thread::spawn(move || {
        let place = flood.requests();
        let padding = [64_u32.to_le_bytes(), kind::PAD.to_le_bytes()].concat();
        while !stopped.load(Ordering::Relaxed) {
            let head = flood.segment.map.u64(place.head).load(Ordering::Acquire);
            let tail = flood.segment.map.u64(place.tail).load(Ordering::Acquire);
            if tail.wrapping_sub(head) < place.capacity as u64 / 2 {
                flood.commit(&padding);
            }
        }
    });
    let fine = within(PATIENCE, || {
        (0..100).all(|_| call(&witness, &request("echo", b"me")).is_ok_and(|reply| reply.to_vec() == b"me"))
    });
    stop.store(true, Ordering::Relaxed);
    flooder.join().expect("the flooder");
    assert!(fine, "others wait for a peer that never ends");
}

/// The same on the session's socket: one look of the worker hears only so much of it, and nothing is lost.
#[test]
fn a_flood_of_messages_leaves_the_others_their_turn() {
    const OPENS: usize = 500;
    let names = Names::new();
    let owned = create(&names.shm, &blueprint(names.socket.clone(), small())).expect("a segment");
    let mut poller = Poller::new(owned).expect("a worker");
    let (mut flood, theirs) = UnixStream::pair().expect("a connection");
    flood.set_nonblocking(true).expect("a socket");
    let instance = poller.host().segment.header.instance;
    poller.admit(theirs);
    let hello = Hello { layout_version: LAYOUT_VERSION, reserved: 0, layout_hash: layout_hash(), instance };
    handshake::send(flood.as_fd(), message::HELLO, &hello.encode(), None).expect("room in the socket");
    let open = [0_u32.to_le_bytes(), message::OPEN.to_le_bytes()].concat();
    flood.write_all(&open.repeat(OPENS)).expect("room in the socket");
    let (echo, mut inbox, mut answers, mut looks) = (Echo::new(), Inbox::default(), 0, 0);
    while answers < 1 + OPENS {
        let before = answers;
        poller.look(&echo).expect("the poller");
        while let Received::Message(_) = inbox.read(flood.as_fd()).expect("an answer") {
            answers += 1;
        }
        looks += 1;
        assert!((1..=200).contains(&(answers - before)), "{} answers in one look", answers - before);
    }
    assert!(looks > 2);
}

/// Bits of leases that a session does not have change nothing.
#[test]
fn letting_go_of_what_one_does_not_hold_changes_nothing() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let held = call(&client, &request("big", &500_000_u64.to_le_bytes())).expect("an answer");
    let raw = Raw::attach(&worker.names);
    let geometry = raw.segment.geometry;
    for word in 0..geometry.leases_per_session as usize / 64 {
        raw.set(geometry.session(raw.slot) + session::RELEASED + word * 8, u64::MAX);
    }
    molt_ipc_shm::attention::set_session(&raw.segment.map, &geometry, raw.slot);
    until("the bits are taken", || {
        raw.segment.map.u64(geometry.session(raw.slot) + session::RELEASED).load(Ordering::Relaxed) == 0
    });
    assert!(held.to_vec() == pattern(500_000, 500_000));
    assert_eq!(call(&client, &request("echo", b"on")).expect("an answer").to_vec(), b"on");
}

#[test]
fn more_clients_than_slots_are_busy_and_a_slot_that_comes_back_is_used_again() {
    let worker = ThreadWorker::start();
    let mut clients: Vec<Client> = (0..small().sessions).map(|_| worker.client()).collect();
    let failure = common::worker::find(&worker.names.shm, PATIENCE / 100).expect_err("no slot is left");
    assert!(failure.outcome == Outcome::Busy && failure.message.contains(&small().sessions.to_string()), "{failure}");
    clients.pop();
    until("a slot", || common::worker::find(&worker.names.shm, PATIENCE).is_ok());
}

/// One session cannot take every channel: another process always gets one.
#[test]
fn one_session_cannot_take_all_channels() {
    let worker = ThreadWorker::start();
    let mut greedy = Raw::attach(&worker.names);
    let mut bells = Vec::new();
    while greedy.open() && bells.len() < 100 {
        bells.push(greedy.bell.take());
    }
    assert!(bells.len() < small().channels as usize, "{} channels for one", bells.len() + 1);
    let other = worker.client();
    assert_eq!(call(&other, &request("echo", b"me too")).expect("a channel").to_vec(), b"me too");
    drop(greedy);
}

/// Messages that arrive together: a descriptor belongs to the one that it was sent beside.
#[test]
fn a_descriptor_stays_with_its_message() {
    use molt_ipc_shm::handshake::{self, Inbox};
    use std::os::fd::AsFd;
    let (one, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    other.set_nonblocking(true).expect("a socket");
    let file = tempfile::tempfile().expect("a file");
    let kinds = [message::WELCOME, message::REFUSED, message::CHANNEL, message::WELCOME, message::CHANNEL];
    for kind in kinds {
        let beside = (kind == message::CHANNEL).then(|| file.as_fd());
        handshake::send(one.as_fd(), kind, &vec![7; 2 * kind as usize], beside).expect("room");
    }
    let mut inbox = Inbox::default();
    for kind in kinds {
        let Received::Message(message) = inbox.read(other.as_fd()).expect("a message") else { panic!("nothing") };
        assert_eq!((message.kind, message.payload.len()), (kind, 2 * kind as usize));
        assert_eq!(message.fd.is_some(), kind == message::CHANNEL, "{kind}");
    }
    assert!(matches!(inbox.read(other.as_fd()), Ok(Received::Nothing)));
}
