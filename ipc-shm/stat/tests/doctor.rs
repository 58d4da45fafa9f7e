//! What the doctor finds, each in a state that was really brought about; and that it finds nothing where nothing is wrong.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

use common::child::{self, Child};
use common::raw::Raw;
use common::worker::{ThreadWorker, blueprint, create, look, spawn};
use common::{Names, PATIENCE, call, request, small, until};
use molt_ipc_shm::arena::{Arena, owner_of_session};
use molt_ipc_shm::client::{LoopChannel, Submitted};
use molt_ipc_shm::doctor::{Finding, Ill, examine, of_error};
use molt_ipc_shm::layout::{Header, LAYOUT_VERSION, fnv1a};
use molt_ipc_shm::worker::{Answer, AnswerBody, Inflight, Poller, Service, Stop};
use molt_ipc_shm::{Codec, Segment};
use nix::sys::signal::Signal;

#[test]
fn child_role() {
    child::play(&[
        ("worker", common::worker::role),
        ("client", |words| {
            let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
            call(&client, &request("echo", b"x")).expect("an answer");
            child::say("attached");
            while child::hear().is_some() {}
        }),
    ]);
}

fn has(findings: &[Finding], ill: Ill, words: &[&str]) -> bool {
    findings.iter().any(|finding| finding.ill == ill && words.iter().all(|word| finding.text.contains(word)))
}

/// Asks until the doctor finds it: a finding may need time to be one.
#[track_caller]
fn finds(segment: &Segment, ill: Ill, words: &[&str]) {
    let mut last = Vec::new();
    let found = common::within(PATIENCE, || {
        last = examine(segment);
        has(&last, ill, words)
    });
    assert!(found, "{ill:?} with {words:?} is not in {last:?}");
}

/// The tool, with its exit code and what it printed.
fn tool(args: &[&str]) -> (Option<i32>, String) {
    let ended = Command::new(env!("CARGO_BIN_EXE_molt-shm-stat")).args(args).output().expect("the tool");
    (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// The arguments that name a segment.
fn named(names: &Names) -> Vec<&str> {
    if common::nameless() { vec!["--socket", &names.shm] } else { vec![&names.shm] }
}

#[test]
fn a_busy_worker_with_sound_clients_is_healthy() {
    let names = Names::new();
    let _worker = spawn(&names);
    let clients: Vec<_> = (0..3).map(|_| common::worker::attach(&names)).collect();
    let results: Vec<_> =
        clients.iter().map(|client| call(client, &request("echo", &[7; 300_000])).expect("an answer")).collect();
    assert_eq!(examine(&look(&names.shm).expect("a segment")), []);
    let (code, said) = tool(&[&["doctor"][..], &named(&names)].concat());
    assert!(code == Some(0) && said.contains("serving") && said.contains(&names.shm), "{code:?} {said}");
    drop(results);
}

#[test]
fn a_dead_worker_is_told_from_a_stopped_one() {
    let names = Names::new();
    let mut worker = spawn(&names);
    let segment = look(&names.shm).expect("a segment");
    let pid = format!("pid {}", worker.pid());
    worker.stop();
    finds(&segment, Ill::StuckWorker, &[&pid, "stopped", "hint: `kill -CONT"]);
    let (code, said) = tool(&[&["doctor"][..], &named(&names)].concat());
    assert!(code == Some(1) && said.contains("stopped"), "{code:?} {said}");
    worker.signal(Signal::SIGCONT);
    until("it is well again", || examine(&segment).is_empty());
    worker.kill();
    finds(&segment, Ill::DeadWorker, &[&pid, "dead", "hint:"]);
    let (code, _) = tool(&[&["doctor"][..], &named(&names)].concat());
    assert_eq!(code, Some(1));
}

/// An entry that runs on the poller's own thread and does not return: a defect that a native worker can have.
#[derive(Default)]
struct Stalling {
    gate: Arc<(Mutex<bool>, Condvar)>,
    held: Mutex<Vec<Inflight>>,
}

impl Service for Stalling {
    fn serve(&self, request: Inflight) {
        match request.entry() {
            "stall" => {
                let open = self.gate.0.lock().expect("the gate");
                drop(self.gate.1.wait_while(open, |open| !*open).expect("the gate"));
                answer(request);
            }
            "hold" if request.begin() => self.held.lock().expect("the list").push(request),
            _ => answer(request),
        }
    }

    fn cancelled(&self, _channel: u32) {
        if *self.gate.0.lock().expect("the gate") {
            self.held.lock().expect("the list").drain(..).for_each(answer);
        }
    }
}

fn answer(request: Inflight) {
    request.begin();
    request.answer(Answer::ok(Codec::Raw, AnswerBody::Bytes(b"done".to_vec())));
}

#[test]
fn a_worker_that_looks_at_nothing_and_one_that_leaves_are_told_apart() {
    let names = Names::new();
    let mut poller = Poller::new(create(&names.shm, &blueprint(names.socket.clone(), small())).expect("a segment"))
        .expect("a worker");
    poller.open(false).expect("a free name");
    let (stop, waker) = (Arc::new(Stop::default()), poller.waker());
    let service = Stalling::default();
    let gate = service.gate.clone();
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || poller.run(&service, &stopped, PATIENCE).expect("the poller"));
    let segment = look(&names.shm).expect("a segment");
    let client = common::worker::attach(&names);

    std::thread::scope(|scope| {
        let open = || {
            *gate.0.lock().expect("the gate") = true;
            gate.1.notify_all();
        };
        let _stalled = scope.spawn(|| call(&client, &request("stall", b"")));
        finds(&segment, Ill::StuckWorker, &["has not looked at its channels", "hint:"]);
        open();
        until("it is well again", || examine(&segment).is_empty());
        *gate.0.lock().expect("the gate") = false;

        let _held = scope.spawn(|| call(&client, &request("hold", b"")));
        until("it runs", || common::worker::report(&names).sessions.iter().any(|session| session.in_flight == 1));
        stop.want();
        let _ = waker.write(1);
        finds(&segment, Ill::NotServing, &["stopping", "hint:"]);
        open();
    });
    drop(client);
    thread.join().expect("a poller that ends");
}

#[test]
fn a_client_that_is_stopped_is_named() {
    let names = Names::new();
    let _worker = spawn(&names);
    let mut client = Child::start(&["client", &names.shm]);
    assert_eq!(client.line(), "attached");
    let segment = look(&names.shm).expect("a segment");
    assert_eq!(examine(&segment), []);
    client.stop();
    finds(&segment, Ill::StuckPeer, &[&format!("pid {}", client.pid()), "stopped"]);
    client.signal(Signal::SIGCONT);
    until("it is well again", || examine(&segment).is_empty());
}

#[test]
fn a_client_that_does_not_read_its_answers_is_named() {
    let names = Names::new();
    let _worker = spawn(&names);
    let client = common::worker::attach(&names);
    let segment = look(&names.shm).expect("a segment");
    let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
    // Until nothing more fits, and for longer: what the worker takes makes room once more.
    let full = |channel: &mut LoopChannel| !matches!(channel.submit(&request("echo", &[7; 3000])), Submitted::Id(_));
    until("the ring stays full", || {
        let mut tries = 0;
        while !full(&mut channel) {
            tries += 1;
            assert!(tries < 10_000, "a ring without end");
        }
        has(&examine(&segment), Ill::StuckPeer, &["does not read its answers", &format!("pid {}", std::process::id())])
    });
    // Somebody else is served meanwhile.
    assert!(call(&common::worker::attach(&names), &request("echo", b"x")).is_ok());
}

#[test]
fn a_client_that_was_cut_is_named_until_its_process_ends() {
    let names = Names::new();
    let _worker = spawn(&names);
    let mut raw = Raw::attach(&names);
    let segment = look(&names.shm).expect("a segment");
    assert_eq!(examine(&segment), []);
    raw.shout(&[0xff; 64]);
    assert!(raw.is_cut());
    finds(&segment, Ill::CutPeer, &[&format!("pid {}", std::process::id()), "broke a rule"]);
}

#[test]
fn extents_of_nobody_are_a_leak() {
    let worker = ThreadWorker::start();
    let segment = look(&worker.names.shm).expect("a segment");
    let nobody = Arena::new(segment.map.clone(), segment.geometry, owner_of_session(5));
    let run = nobody.claim(3 * segment.geometry.extent_bytes as u64).expect("room");
    finds(&segment, Ill::LeakedExtents, &["3 extents (786432 bytes)", "slot 5", "hint:"]);
    nobody.free(run);
    until("it is well again", || examine(&segment).is_empty());
}

#[test]
fn a_worker_whose_socket_is_gone_is_found_out() {
    let worker = ThreadWorker::start();
    let segment = look(&worker.names.shm).expect("a segment");
    std::fs::remove_file(&worker.names.socket).expect("a socket");
    finds(&segment, Ill::NoSocket, &[worker.names.socket.to_str().expect("a plain path"), "hint:"]);
}

#[test]
fn another_version_and_a_damaged_header_are_told_apart() {
    if common::nameless() {
        return println!("a segment is damaged by its name; one without a name has the same header");
    }
    let names = Names::new();
    let _worker = spawn(&names);
    let file = OpenOptions::new().read(true).write(true).open(names.path()).expect("the object");
    let sound = Segment::open(&names.shm).expect("a segment").header;
    let told = |header: Header| {
        file.write_all_at(&header.encode(), 0).expect("a header");
        let finding = of_error(&Segment::open(&names.shm).expect_err("a broken header"));
        let (code, said) = tool(&["doctor", &names.shm]);
        assert!(code == Some(1) && said.contains(&finding.text), "{code:?} {said}");
        finding
    };
    let mut other = Header { layout_version: LAYOUT_VERSION + 7, ..sound };
    other.checksum = fnv1a(&other.encode()[..Header::BYTES - 8]);
    let (theirs, ours) = (format!("version {}", LAYOUT_VERSION + 7), format!("has {LAYOUT_VERSION}"));
    assert!(has(&[told(other)], Ill::OtherVersion, &[&theirs, &ours, "hint:"]));
    assert!(has(&[told(Header { extents: sound.extents + 1, ..sound })], Ill::Damaged, &["checksum", "hint:"]));
    file.write_all_at(&sound.encode(), 0).expect("a header");
    assert_eq!(tool(&["doctor", &names.shm]).0, Some(0));
}

/// What nobody listens on goes; what somebody listens on stays, and so does what is no socket.
#[test]
fn cleaning_removes_a_socket_only_when_nobody_listens_on_it() {
    let names = Names::new();
    let mut worker = spawn(&names);
    let (dead, live, file) = (names.file("dead.sock"), names.file("live.sock"), names.file("file.sock"));
    drop(UnixListener::bind(&dead).expect("a socket"));
    let _live = UnixListener::bind(&live).expect("a socket");
    std::fs::write(&file, "somebody's").expect("a file");
    for path in [&dead, &live, &file] {
        let (code, _) = tool(&["clean", "--socket", path.to_str().expect("a plain path")]);
        assert_eq!(code, Some(0));
    }
    assert_eq!((dead.exists(), live.exists(), file.exists()), (false, true, true));
    let own = names.socket.to_str().expect("a plain path").to_owned();
    tool(&["clean", "--socket", &own]);
    assert!(names.socket.exists(), "a worker's");
    worker.kill();
    let (_, said) = tool(&["clean", "--socket", &own]);
    assert!(!names.socket.exists() && said.contains(&format!("removed {own}")), "{said}");
    assert!(!names.file("s.lock").exists(), "no lock file is left");
}

/// Fault 57: a start that was killed with its pages reserved and no header written is no segment yet, and takes the room all
/// the same.
#[test]
fn what_a_killed_start_left_is_named_and_removed() {
    if common::nameless() {
        return println!("a start without a name leaves no object");
    }
    let names = Names::new();
    let left = format!("{}.00000000deadbeef.new", names.shm);
    let file = std::fs::File::create(format!("/dev/shm{left}")).expect("an object");
    nix::fcntl::posix_fallocate(&file, 0, 3 << 20).expect("its pages");
    // Another test of this machine may clean up meanwhile.
    let (code, said) = tool(&["doctor"]);
    let line = said.lines().find(|line| line.starts_with(&left)).unwrap_or_default();
    let told = line.contains("3145728 bytes") && line.contains("hint: remove them with `molt-shm-stat clean`");
    assert!(code == Some(1) && told || !std::path::Path::new(&format!("/dev/shm{left}")).exists(), "{code:?} {said}");
    tool(&["clean"]);
    assert_eq!(names.objects(), [] as [&str; 0]);
}
