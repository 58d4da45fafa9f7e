//! Client processes come, go, die and misbehave: what they held comes back, and nobody else notices.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::ask::{Ask, Line, health, marked};
use common::{SOON, Worker, tables, until_true};
use molt_ipc_shm::Codec;
use serde_json::json;

/// Set for this test program when it is to be the client that dies: the segment, and the mark of the request.
const VICTIM: &str = "MOLT_TEST_VICTIM";

/// A client in a process of its own, killed at the latest with the test.
struct Victim(Child);

impl Victim {
    fn start(worker: &Worker, mark: &std::path::Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_killed_client_leaves_nothing_behind", "--nocapture"]);
        command.env(VICTIM, json!([worker.shm, mark]).to_string()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the victim does: a request that runs, a result that it holds, a block that it has not sent. Then it waits for its end.
fn be_the_victim(what: &str) {
    let (shm, mark): (String, PathBuf) = serde_json::from_str(what).unwrap();
    let client = common::find(&shm, SOON).unwrap();
    let _block = tables::block(&client, &[1; 600_000]);
    let _held = Ask::of("echo").body(Codec::Raw, &[1; 300_000]).call(&client).ok();
    let body = json!({"mark": mark}).to_string();
    Line::open(&client).send(&Ask::of("trial_wait").body(Codec::Json, body.as_bytes()).timeout(10 * SOON));
    loop {
        std::thread::park();
    }
}

/// Fault 5.
#[test]
fn a_killed_client_leaves_nothing_behind() {
    if let Ok(what) = std::env::var(VICTIM) {
        return be_the_victim(&what);
    }
    let worker = Worker::trial(&["--threads", "1"]);
    let client = worker.client();
    let mark = worker.folder.join("mark");
    let mut victim = Victim::start(&worker, &mark);
    marked(&mark, "started");
    until_true("all that it holds", || {
        let report = worker.report();
        let session = report.sessions.iter().find(|session| session.pid == victim.0.id());
        session.is_some_and(|session| (session.in_flight, session.leases, session.arena_bytes) == (1, 1, 3 << 18))
    });
    victim.0.kill().unwrap();
    marked(&mark, "cancelled");
    until_true("one session and an empty arena", || {
        let report = worker.report();
        let pids: Vec<u32> = report.sessions.iter().map(|session| session.pid).collect();
        pids == [std::process::id()] && report.arena.used_bytes == 0
    });
    // Its thread and its slot serve others.
    let body = json!({"bytes": 3}).to_string();
    let answer = Ask::of("trial_big").body(Codec::Json, body.as_bytes()).accept(Codec::Raw).call(&client);
    assert_eq!(answer.bytes(), b"xxx");
}

#[test]
fn many_clients_come_and_go_without_a_trace() {
    let worker = Worker::plain(&[]);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap().count();
    let (mut at_rest, mut since) = (descriptors(), Instant::now());
    until_true("descriptors come to rest: what only looked is closed a moment later", || {
        let now = descriptors();
        if now != at_rest {
            (at_rest, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    });
    for round in 0..300_usize {
        let client = worker.client();
        let size = [10, 5_000, 300_000][round % 3];
        assert_eq!(Ask::of("echo").body(Codec::Raw, &vec![1; size]).call(&client).bytes().len(), size);
    }
    until_true("no session and an empty arena", || {
        let report = worker.report();
        report.sessions.is_empty() && report.arena.used_bytes == 0
    });
    until_true("as many descriptors as before", || descriptors() == at_rest);
}

#[test]
fn a_result_outlives_the_client_that_got_it() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let held = Ask::of("echo").body(Codec::Raw, &[9; 300_000]).call(&client).ok();
    client.close();
    drop(client);
    // Others write all over the arena meanwhile.
    let other = worker.client();
    for _ in 0..50 {
        Ask::of("echo").body(Codec::Raw, &[1; 3 << 20]).call(&other).ok();
    }
    assert_eq!(held.bytes(), [9; 300_000]);
    drop((held, other));
    until_true("an empty arena", || worker.report().arena.used_bytes == 0);
}

#[test]
fn threads_of_a_process_share_one_client() {
    let worker = Worker::plain(&["--arena", "64MiB"]);
    let client = worker.client();
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let client = &client;
            scope.spawn(move || {
                for call in 0..100 {
                    let body = vec![thread as u8; 1 + call * thread * 50];
                    assert!(Ask::of("echo").body(Codec::Raw, &body).call(client).bytes() == body);
                }
            });
        }
    });
    assert_eq!(worker.report().sessions.len(), 1, "one session a process");
    worker.counts("ok", 800);
}

#[test]
fn garbage_on_the_socket_costs_that_connection_and_no_other() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let hello = [24_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 4_000],
        vec![0; 64],
        [1_u32.to_le_bytes(), 4_u32.to_le_bytes()].concat().into_iter().chain([0]).collect(), // a channel before hello
        [hello.clone(), vec![0xab; 24]].concat(),                                             // another layout
        [3_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat().into_iter().chain([0; 3]).collect(), // a short hello
    ] {
        let mut socket = UnixStream::connect(worker.socket()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.write_all(&garbage).unwrap();
        // It is answered with a refusal, or cut, and never left alone.
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = Vec::new();
        let ended = socket.read_to_end(&mut said);
        assert!(ended.is_ok() || said.is_empty(), "{ended:?}");
        assert!(said.is_empty() || said[4] == 3, "neither cut nor refused: {said:?}");
    }
    assert_eq!(health(&client)["pid"], worker.pid());
    let newcomer = worker.client();
    assert_eq!(health(&newcomer)["pid"], worker.pid());
    assert_eq!(worker.report().sessions.len(), 2);
}
