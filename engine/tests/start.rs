//! How a worker starts: defaults, what it says, what stops it, and whose name it may take.

mod common;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::ask::{Ask, health};
use common::{Folder, SHM_DIR, Worker, nameless, names_of, run, unique_shm, until_true};
use molt_ipc_shm::{Codec, Outcome, Segment};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn without_a_flag_it_serves_the_built_in_entries_in_a_folder_of_the_user() {
    if nameless() {
        return println!("a worker without a name is given a socket");
    }
    let folder = Arc::new(Folder::new());
    let worker = Worker::launch(unique_shm(), folder.clone(), &["--arena", "auto"]).serves();
    let socket = folder.join("molt").join(format!("{}.sock", &worker.shm[1..]));
    let meta = std::fs::symlink_metadata(&socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(socket.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let object = std::fs::metadata(format!("{SHM_DIR}{}", worker.shm)).unwrap();
    assert_eq!(object.permissions().mode() & 0o777, 0o600);

    let entries: Vec<String> = worker.report().entries.into_iter().map(|entry| entry.name).collect();
    let tables = ["molt.put", "molt.table", "molt.tables", "molt.drop", "molt.load", "molt.loads", "molt.handover"];
    assert_eq!(entries, [&["echo", "health", "compute"], &tables[..], &["molt.query"]].concat());
    assert_eq!(health(&worker.client())["status"], "ok");
}

#[test]
fn a_manifest_in_the_working_folder_is_found_and_its_paths_begin_there() {
    let folder = Arc::new(Folder::new());
    folder.write("regions.csv", "region,zone\nnorth,1\nsouth,2\n");
    let exports = json!({"abi_version": 1, "tables": {"regions": {"path": "regions.csv"}}, "exports": [
        {"name": "zones", "kind": "sql", "sql": "select region, zone from regions order by zone desc"}]});
    folder.write("molt_exports.json", exports.to_string());
    let worker = Worker::launch(unique_shm(), folder, &[]).serves();
    let rows: serde_json::Value = Ask::of("zones").body(Codec::Json, b"{}").value(&worker.client());
    assert_eq!(rows, json!([{"region": "south", "zone": 2}, {"region": "north", "zone": 1}]));
}

#[test]
fn one_line_says_what_listens_where() {
    let worker = Worker::plain(&["--threads", "3", "--queue", "17"]);
    let log = worker.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("molt_worker serves")).collect();
    let [line] = lines[..] else { panic!("not one line: {log}") };
    let socket = worker.socket().display().to_string();
    for part in [&worker.shm, &socket, "32 MiB", "threads=3", "queue=17", "echo health compute molt.put"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    assert!(!log.contains('\u{1b}'), "colours in a log that no terminal shows: {log:?}");
}

#[test]
fn sql_takes_a_quarter_of_the_memory_that_is_free_unless_told() {
    let stated = |worker: &Worker| {
        let log = worker.log();
        let (_, rest) = log.split_once("sql_memory=\"").unwrap_or_else(|| panic!("no memory for SQL in {log}"));
        rest.split_once('"').expect("its end").0.to_owned()
    };
    assert_eq!(stated(&Worker::plain(&["--sql-memory", "12MiB"])), "12 MiB");
    let auto = stated(&Worker::plain(&[]));
    let numbers: Vec<u64> = auto.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    let (own, free) = (numbers[0], numbers[1]);
    assert!(auto.contains("(auto: ") && own.abs_diff(free / 4) <= 1 && free > 0, "{auto}");
}

#[test]
fn help_shows_every_flag_with_examples_and_version_is_the_packages() {
    let folder = Folder::new();
    let (code, help, _) = run(common::WORKER, folder.path(), &["--help"]);
    assert_eq!(code, Some(0));
    let flags = "--shm --memfd --socket --exports --arena --threads --queue --supervise --replace --no-adhoc-sql";
    for part in flags.split(' ').chain(["Examples:", "molt_worker --exports molt_exports.json", "/molt0", "256MiB"]) {
        assert!(help.contains(part), "{part:?} is not in {help}");
    }
    let (code, version, _) = run(common::WORKER, folder.path(), &["--version"]);
    assert_eq!((code, version.as_str()), (Some(0), concat!("molt_worker ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn a_flag_that_makes_no_sense_is_refused_by_name() {
    let folder = Folder::new();
    for (flag, value, part) in [
        ("--arena", "12 parsecs", "parsecs"),
        ("--arena", "1.5GiB", "unit"),
        ("--arena", "64KiB", "outside 1MiB to 256GiB"),
        ("--arena", "", "no size"),
        ("--arena", "99999999999GiB", "99999999999GiB"),
        ("--threads", "0", "1..=1024"),
        ("--queue", "many", "many"),
        ("--socket", "", "--socket"),
    ] {
        let shm = unique_shm();
        let (code, _, message) = run(common::WORKER, folder.path(), &["--shm", &shm, flag, value]);
        assert_eq!(code, Some(2), "{flag} {value}: {message}");
        assert!(message.contains(part) && message.contains(flag), "{flag} {value}: {message}");
        assert!(names_of(&shm).is_empty());
    }
}

/// Starts that fail after the manifest was read: nothing of them may be left.
#[test]
fn a_start_that_finds_no_room_or_no_place_leaves_nothing_behind() {
    let folder = Folder::new();
    folder.write("file", "no socket");
    let shm = unique_shm();
    let socket = folder.join("w.sock").display().to_string();
    let long = folder.join(&"x".repeat(300)).display().to_string();
    let squatted = folder.join("file").display().to_string();
    for (args, parts) in [
        (["--shm", &shm, "--socket", &socket, "--arena", "256GiB"], ["/dev/shm has", "free", "--arena"]),
        (["--shm", "molt", "--socket", &socket, "--arena", "1MiB"], ["\"molt\"", "hint:", "/molt0"]),
        (["--shm", "/a/b", "--socket", &socket, "--arena", "1MiB"], ["\"/a/b\"", "hint:", "slash"]),
        (["--shm", &shm, "--socket", &long, "--arena", "1MiB"], ["socket path", "at most", "hint:"]),
        (["--shm", &shm, "--socket", &squatted, "--arena", "1MiB"], ["file", "not a socket", "hint:"]),
    ] {
        let (code, _, message) = run(common::WORKER, folder.path(), &args);
        assert_eq!(code, Some(1), "{args:?}: {message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert_eq!(names_of(&shm), [""; 0], "{args:?}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|file| file.file_name()).collect();
        assert_eq!(left, ["file"], "{args:?}");
    }
    assert_eq!(std::fs::read(folder.join("file")).unwrap(), b"no socket");
}

#[test]
fn a_name_that_is_alive_is_refused_and_its_worker_goes_on() {
    let worker = Worker::plain(&[]);
    let socket = worker.socket().display().to_string();
    let place = if nameless() { vec!["--memfd"] } else { vec!["--shm", &worker.shm] };
    let args = [&place[..], &["--socket", &socket, "--arena", "1MiB"]].concat();
    let (code, _, message) = run(common::WORKER, worker.folder.path(), &args);
    assert_eq!(code, Some(1));
    for part in [&worker.shm, &format!("pid {}", worker.pid()), "--replace"] {
        assert!(message.contains(&part[..]), "{part:?} is not in {message}");
    }
    // A newcomer still finds the one that runs, on the socket that both would have had.
    assert_eq!(health(&worker.client())["pid"], worker.pid());
    assert_eq!(names_of(&worker.shm), [&worker.shm[1..]]);
    let files = std::fs::read_dir(worker.folder.path()).unwrap().flatten().map(|file| file.file_name());
    let sockets: Vec<_> = files.filter(|name| name.to_string_lossy().contains("sock")).collect();
    assert_eq!(sockets, ["w.sock"]);
}

#[test]
fn replace_takes_over_and_clients_notice_nothing() {
    let mut old = Worker::plain(&[]);
    let socket = old.socket().display().to_string();
    let client = old.client();
    assert_eq!(health(&client)["pid"], old.pid());
    let args = ["--socket", &socket, "--replace"];
    let new = Worker::launch(old.shm.clone(), old.folder.clone(), &args);
    // Every call on the way is answered, by the one or by the other.
    until_true("an answer of the new worker", || health(&client)["pid"] == new.pid());
    assert!(old.ended().success(), "{}", old.log());
    assert_eq!(health(&client)["pid"], new.pid());
    // What the old one removed at its end was its own: newcomers find the new one.
    assert_eq!(health(&new.client())["pid"], new.pid());
    assert_eq!(names_of(&new.shm), [&new.shm[1..]]);
}

#[test]
fn replacing_it_again_and_again_under_load_loses_no_request() {
    let mut worker = Worker::plain(&[]);
    let socket = worker.socket().display().to_string();
    let client = worker.client();
    let (done, calls) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = |size: usize| {
        let body = vec![7; size];
        while !done.load(Ordering::Relaxed) {
            let answer = Ask::of("echo").body(Codec::Raw, &body).call(&client);
            assert_eq!(answer.bytes().len(), size, "{}", answer.message);
            calls.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for size in [1, 10_000, 400_000] {
            let load = &load;
            scope.spawn(move || load(size));
        }
        for _ in 0..3 {
            let next = Worker::launch(worker.shm.clone(), worker.folder.clone(), &["--socket", &socket, "--replace"]);
            until_true("an answer of the next worker", || health(&client)["pid"] == next.pid());
            assert!(worker.ended().success(), "{}", worker.log());
            worker = next;
            let before = calls.load(Ordering::Relaxed);
            until_true("more answers", || calls.load(Ordering::Relaxed) > before + 100);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn replace_starts_even_where_nobody_is() {
    let worker = Worker::plain(&["--replace"]);
    assert_eq!(health(&worker.client())["status"], "ok");
}

#[test]
fn what_killed_workers_left_is_replaced() {
    let mut killed = Worker::plain(&[]);
    let client = killed.client();
    killed.signal(Signal::SIGKILL);
    killed.ended();
    assert_eq!(names_of(&killed.shm), [&killed.shm[1..]], "kill -9 leaves the name");
    assert!(killed.socket().exists());
    Ask::of("health").call(&client).fails(Outcome::Unavailable, &[]);
    if !nameless() {
        let absent = Segment::open_serving(&killed.shm).unwrap_err().to_string();
        assert!(absent.contains("dead") && absent.contains("hint:"), "{absent}");
    }

    let socket = killed.socket().display().to_string();
    let next = Worker::launch(killed.shm.clone(), killed.folder.clone(), &["--socket", &socket]).serves();
    assert_eq!(health(&client)["pid"], next.pid(), "the same client goes on");
}
