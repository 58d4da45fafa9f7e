//! A worker is succeeded by another one while it is at work: nothing is lost, and nobody is signalled by mistake.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::ask::{Ask, Line, health, hold_body, marked, queued};
use common::load::{self, Kind, Load, all_go_on, nothing_was_lost};
use common::tables::{batches, listed, named, numbers, orders, put, put_block, table};
use common::{Folder, SOON, Worker, address, nameless, names_of, trial_manifest, unique_shm, until, until_true};
use molt_ipc_shm::client::Client;
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::segment::{Blueprint, OwnedSegment};
use molt_ipc_shm::table::Encoded;
use molt_ipc_shm::{Address, Codec, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

#[test]
fn load_role() {
    load::play();
}

fn supervised(threads: &str) -> Worker {
    Worker::start(Folder::new(), Some(&trial_manifest()), &["--threads", threads, "--supervise"])
}

fn serving_pid(shm: &str) -> Option<u32> {
    address(shm).look(Duration::from_millis(200)).ok()?.serving().ok().map(|segment| segment.header.worker_pid)
}

/// Waits until another worker serves and the one before it has gone.
fn succeeded(worker: &Worker, before: u32) -> u32 {
    let now = until("another worker", || serving_pid(&worker.shm).filter(|pid| *pid != before));
    until_true("the end of the former one", || kill(Pid::from_raw(before as i32), None).is_err());
    now
}

/// The workers that a supervisor has at this moment.
fn workers_of(supervisor: u32) -> Vec<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// However far the new worker has come when the word to stop arrives, it is not left behind, and nobody waits for ever.
#[test]
fn a_stop_in_the_midst_of_an_upgrade_ends_both_workers() {
    for round in 0..6 {
        let mut worker = supervised("1");
        worker.signal(Signal::SIGHUP);
        let both = until("two workers", || Some(workers_of(worker.pid())).filter(|pids| pids.len() == 2));
        if round % 2 == 1 && matches!(address(&worker.shm), Address::Name { .. }) {
            // It makes its segment, or has made it: that is not to lie there afterwards, with the name or without.
            until_true("the segment of the new worker", || {
                names_of(&worker.shm).len() > 1 || serving_pid(&worker.shm) == both.get(1).copied()
            });
        }
        worker.signal(Signal::SIGTERM);
        worker.ended();
        let gone = |pid: &u32| kill(Pid::from_raw(*pid as i32), None).is_err();
        assert!(both.iter().all(gone), "{}", worker.log());
        assert!(names_of(&worker.shm).is_empty() && !worker.socket().exists(), "{}", worker.log());
    }
}

/// Fault 34: upgrades one after the other under load; half of the requests must not run twice.
#[test]
fn no_request_is_lost_when_a_supervised_worker_is_upgraded_under_load() {
    let mut worker = supervised("2");
    let mut loads = Load::of(&worker, &[Kind::Once, Kind::Once, Kind::Idempotent], 3);
    let first = serving_pid(&worker.shm).unwrap();
    let mut pid = first;
    for _ in 0..3 {
        all_go_on(&mut loads, 20);
        worker.signal(Signal::SIGHUP);
        pid = succeeded(&worker, pid);
        all_go_on(&mut loads, 20);
    }
    let tally = nothing_was_lost(loads);
    assert!(tally.right > 300, "{tally:?}");
    assert!(pid != first && names_of(&worker.shm) == [&worker.shm[1..]] && worker.socket().exists());
    worker.signal(Signal::SIGTERM);
    assert!(worker.ended().success(), "{}", worker.log());
    assert!(names_of(&worker.shm).is_empty() && !worker.socket().exists(), "{}", worker.log());
}

/// Fault 34, without a supervisor.
#[test]
fn no_request_is_lost_when_a_worker_is_replaced_under_load() {
    let mut worker = Worker::trial(&["--threads", "2"]);
    let mut loads = Load::of(&worker, &[Kind::Once, Kind::Idempotent], 3);
    for _ in 0..2 {
        all_go_on(&mut loads, 20);
        let next = successor(&worker, &[]);
        assert!(worker.ended().success(), "{}", worker.log());
        assert!(worker.log().contains("a successor serves"), "{}", worker.log());
        worker = next;
        all_go_on(&mut loads, 20);
    }
    nothing_was_lost(loads);
    assert!(worker.socket().exists());
}

fn successor(old: &Worker, more: &[&str]) -> Worker {
    let (socket, exports) = (old.socket(), old.folder.join("exports.json"));
    let mut args = vec!["--replace", "--socket", socket.to_str().unwrap(), "--exports", exports.to_str().unwrap()];
    args.extend(more);
    Worker::launch(old.shm.clone(), old.folder.clone(), &args).serves_as_successor()
}

/// Fault 34: what runs is finished where it runs, for longer than a stop would wait; what waits moves at once.
#[test]
fn what_runs_stays_and_what_waits_moves() {
    let worker = supervised("1");
    let client = worker.client();
    let (mark, gate) = (worker.folder.join("mark"), worker.folder.join("gate"));
    let body = hold_body(&mark, &gate);
    let hold = Ask::of("trial_hold").body(Codec::Json, &body).idempotent(false).timeout(4 * SOON);
    let big = br#"{"bytes": 5}"#;
    std::thread::scope(|scope| {
        let running = scope.spawn(|| hold.call(&client));
        marked(&mark, "started");
        let waiting = scope.spawn(|| Ask::of("trial_big").body(Codec::Json, big).accept(Codec::Raw).call(&client));
        queued(&client, 1);
        let old = serving_pid(&worker.shm).unwrap();
        let segment = common::look(&worker.shm).unwrap();
        worker.signal(Signal::SIGHUP);
        // The only thread of the old worker is held: only the new one can answer this.
        let moved = waiting.join().unwrap();
        assert_eq!((moved.bytes(), moved.resent), (b"xxxxx".to_vec(), true));
        assert_ne!(health(&client)["pid"], old, "new calls go to the new worker");
        assert_eq!(segment.state_name(), "stopping", "the old header tells");
        // Longer than a worker that is told to stop would wait.
        std::thread::sleep(Duration::from_secs(11));
        assert!(!running.is_finished(), "what runs was given up");
        std::fs::write(&gate, "").unwrap();
        let answer = running.join().unwrap();
        assert_eq!((answer.value::<String>(), answer.resent), ("held".into(), false));
        until_true("the end of the old one", || kill(Pid::from_raw(old as i32), None).is_err());
    });
}

/// Fault 34: an upgrade that cannot start changes nothing; mended, it goes through.
#[test]
fn an_upgrade_that_cannot_start_leaves_the_old_worker_at_work() {
    let worker = supervised("1");
    let client = worker.client();
    let before = health(&client)["pid"].clone();
    let exports = worker.folder.join("exports.json");
    let good = std::fs::read(&exports).unwrap();
    std::fs::write(&exports, "{").unwrap();
    worker.signal(Signal::SIGHUP);
    until_true("a refusal in the log", || worker.log().contains("the new worker could not start"));
    assert_eq!(health(&client)["pid"], before);
    let left = std::fs::read_dir(worker.folder.path()).unwrap().flatten();
    let sockets: Vec<_> = left.filter(|file| file.file_name().to_string_lossy().starts_with("w.sock")).collect();
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    std::fs::write(&exports, good).unwrap();
    worker.signal(Signal::SIGHUP);
    let pid = succeeded(&worker, before.as_u64().unwrap() as u32);
    assert_eq!(health(&client)["pid"], pid);
}

/// Fault 14: the successor is killed when it has the name and has not told the former worker yet. The supervisor starts
/// another one; until that serves, whoever is connected is served on.
#[test]
fn a_successor_that_dies_with_the_name_is_followed_by_another() {
    if nameless() {
        return; // The moment is seen through the name: one without it shows nothing before it serves.
    }
    let worker = supervised("2");
    let mut loads = Load::of(&worker, &[Kind::Once, Kind::Idempotent], 2);
    let mut killed = false;
    for _ in 0..50 {
        let old = common::look(&worker.shm).unwrap();
        let before = old.header.worker_pid;
        all_go_on(&mut loads, 10);
        worker.signal(Signal::SIGHUP);
        let next = until("a successor with the name", || {
            common::look(&worker.shm).ok().filter(|segment| segment.header.worker_pid != before)
        });
        let pid = Pid::from_raw(next.header.worker_pid as i32);
        kill(pid, Signal::SIGSTOP).unwrap();
        killed = next.state_name() == "starting" && old.state_name() == "serving";
        if killed {
            kill(pid, Signal::SIGKILL).unwrap();
            until_true("word of it in the log", || worker.log().contains("died with the name"));
        }
        let _ = kill(pid, Signal::SIGCONT);
        let now = succeeded(&worker, before);
        assert_eq!(killed, now != next.header.worker_pid, "{}", worker.log());
        all_go_on(&mut loads, 10);
        if killed {
            break;
        }
    }
    assert!(killed, "no successor was met between the two steps");
    nothing_was_lost(loads);
}

/// A supervised worker that another one replaces from outside is not started again.
#[test]
fn a_supervisor_ends_when_its_worker_is_replaced() {
    let mut old = supervised("1");
    let client = old.client();
    let next = successor(&old, &[]);
    assert!(old.ended().success(), "{}", old.log());
    assert_eq!(health(&client)["pid"], next.pid());
    assert!(next.socket().exists() && names_of(&next.shm) == [&next.shm[1..]]);
}

/// Fault 56: the pid in a segment may be anybody's by now. This test is the process that it names; a worker that sent a
/// signal there would end it.
#[test]
fn the_pid_in_a_segment_is_sent_no_signal() {
    if nameless() {
        return; // a name is what leads to such a segment; without one it is the socket, whose end is closed here
    }
    let (shm, folder) = (unique_shm(), std::sync::Arc::new(Folder::new()));
    let geometry = Geometry::for_arena(4 << 20);
    let plan = Blueprint { geometry, socket: folder.join("gone.sock"), max_body: 1 << 20, session_quota: 1 << 20 };
    let mut mine = OwnedSegment::create(&shm, &plan).unwrap();
    mine.publish(false).unwrap();
    mine.ready();
    let socket = folder.join("w.sock").display().to_string();
    let next = Worker::launch(shm.clone(), folder, &["--replace", "--socket", &socket]).serves_as_successor();
    until_true("word of it in the log", || next.log().contains("could not be told to leave"));
    assert_eq!(serving_pid(&shm), Some(next.pid()));
    drop(mine);
    assert_eq!(serving_pid(&shm), Some(next.pid()), "the former holder took the name along");
    assert_eq!(Ask::of("health").call(&next.client()).outcome, Outcome::Ok);
}

/// Fault 34 for event loops: what is in flight on the old worker is answered there, what comes next goes to the new one.
#[test]
fn an_open_channel_ends_what_it_has_on_the_old_worker() {
    let mut old = Worker::trial(&["--threads", "1"]);
    let client: Client = old.client();
    let (mark, gate) = (old.folder.join("mark"), old.folder.join("gate"));
    let body = hold_body(&mark, &gate);
    let mut line = Line::open(&client);
    let running = line.send(&Ask::of("trial_hold").body(Codec::Json, &body));
    marked(&mark, "started");
    let waiting = line.send(&Ask::of("trial_hold").body(Codec::Json, &body));
    queued(&client, 1);
    let next = successor(&old, &[]);
    line.answer(waiting).fails(Outcome::Unavailable, &["stopping", "not started"]);
    assert!(old.ended_by_now().is_none(), "{}", old.log());
    std::fs::write(&gate, "").unwrap();
    assert_eq!(line.answer(running).value::<String>(), "held");
    assert!(old.ended().success());
    assert_eq!(health(&client)["pid"], next.pid());
}

/// What clients have put is in the next worker, by the same name and with the same version: also what is put while the
/// upgrade goes on, and what was answered last by either worker.
#[test]
fn tables_that_clients_put_move_along_under_load() {
    let worker = supervised("2");
    let client = worker.client();
    let rates = orders(&[("north", 2.0), ("south", 3.0)]);
    let mut numbered = None;
    for (name, batch) in [("rates", &rates), ("large", &numbers(200_000)), ("short-lived", &numbers(10))] {
        let version: Value = put(&client, name, batch).value();
        numbered = version["version"].as_u64().or(numbered);
    }
    worker.folder.write("sizes.csv", "region,size\nnorth,7\nsouth,9\n");
    let sizes = json!({"name": "sizes", "path": worker.folder.join("sizes.csv")});
    let _: Value = Ask::of("molt.load").params(sizes).accept(Codec::MsgPack).value(&client);
    let dropped: bool = Ask::of("molt.drop").params(named("short-lived")).accept(Codec::MsgPack).value(&client);
    assert!(dropped);
    let held = table(&client, "rates");
    let before = listed(&client);
    let mut pid = serving_pid(&worker.shm).unwrap();
    let mut loads = Load::of(&worker, &[Kind::Once, Kind::Idempotent], 2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| putting(&worker, &stop));
        for _ in 0..3 {
            all_go_on(&mut loads, 10);
            worker.signal(Signal::SIGHUP);
            pid = succeeded(&worker, pid);
            all_go_on(&mut loads, 10);
            let now = listed(&client);
            for table in &before {
                let same = |other: &&Value| {
                    ["name", "version", "rows", "schema", "source"].iter().all(|key| other[key] == table[key])
                };
                assert!(now.iter().any(|other| same(&other)), "{table} is not in {now:?}; {}", worker.log());
            }
            assert!(!now.iter().any(|table| table["name"] == "short-lived"), "{now:?}");
            assert_eq!(batches(&table(&client, "rates")), [rates.clone()]);
            assert_eq!(batches(&table(&client, "large")), [numbers(200_000)]);
        }
        stop.store(true, Ordering::Relaxed);
        let (rows, version) = putting.join().unwrap();
        let last = listed(&client).into_iter().find(|table| table["name"] == "growing").unwrap();
        assert_eq!((last["rows"].as_i64(), last["version"].as_u64()), (Some(rows), Some(version)), "{}", worker.log());
        assert_eq!(batches(&table(&client, "growing")), [numbers(rows)]);
        assert!(Some(version) > numbered, "versions count on");
    });
    assert_eq!(batches(&held), [rates], "who reads the first worker's reads on");
    nothing_was_lost(loads);
}

/// Puts longer and longer tables under one name; after each, what is there is that or what came after it. The last that was
/// answered.
fn putting(worker: &Worker, stop: &AtomicBool) -> (i64, u64) {
    let client = worker.client();
    let mut last = (0, 0);
    for rows in 1.. {
        if stop.load(Ordering::Relaxed) && rows > 1 {
            break;
        }
        let encoded = Encoded::new(&numbers(rows).schema(), [Ok(numbers(rows))]).unwrap();
        // Between two workers there is no arena to put it in.
        let block = until("a worker", || {
            client.reattach(SOON, SOON).ok()?;
            client.session().ok()?.block_of_own_extents(encoded.len()).ok()
        });
        encoded.write_to(block.block());
        let answer = put_block(&client, "growing", &block);
        assert_eq!(answer.outcome, Outcome::Ok, "{}", answer.message);
        let version: Value = answer.value();
        assert!(version["version"].as_u64() > Some(last.1), "{version} after {last:?}");
        last = (rows, version["version"].as_u64().unwrap());
    }
    last
}

/// Without room for the tables there is no upgrade, and nothing is lost.
#[test]
fn a_worker_without_room_for_the_tables_takes_nothing_over() {
    let old = Worker::plain(&["--threads", "1"]);
    let client = old.client();
    assert_eq!(put(&client, "large", &numbers(400_000)).outcome, Outcome::Ok);
    let socket = old.socket().display().to_string();
    let mut next =
        Worker::launch(old.shm.clone(), old.folder.clone(), &["--replace", "--socket", &socket, "--arena", "1MiB"]);
    assert!(!next.ended().success());
    for part in ["large", "former worker"] {
        assert!(next.log().contains(part), "{part:?} is not in {}", next.log());
    }
    assert_eq!(serving_pid(&old.shm), Some(old.pid()));
    assert_eq!(batches(&table(&client, "large")), [numbers(400_000)]);
    assert_eq!(put(&client, "large", &numbers(4)).outcome, Outcome::Ok, "it may be changed as before");
}
