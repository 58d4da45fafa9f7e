//! A segment without a name: what it is, what is refused, what its worker leaves behind, how it is found.

mod common;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use common::child::{self, Child};
use common::worker::{ThreadWorker, blueprint};
use common::{Names, PATIENCE, call, request, small, until};
use molt_ipc_shm::client::Client;
use molt_ipc_shm::handshake::{self, Inbox, Received, message};
use molt_ipc_shm::layout::{Geometry, Header};
use molt_ipc_shm::nameless;
use molt_ipc_shm::segment::{AutoArena, OwnedSegment, SegmentError};
use molt_ipc_shm::{Address, Outcome, Segment};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

#[test]
fn child_role() {
    child::play(&[
        ("worker", common::worker::role),
        ("client", |words| {
            let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
            assert_eq!(call(&client, &request("echo", b"there")).expect("an answer").to_vec(), b"there");
            child::say("answered");
            while child::hear().is_some() {}
        }),
    ]);
}

/// Names as they are for workers without a name, whatever mode these tests run in.
fn names() -> Names {
    let mut names = Names::new();
    names.shm = names.socket.to_str().expect("a plain path").to_owned();
    names
}

fn spawn(names: &Names) -> Child {
    let mut worker = Child::start(&["worker", &names.shm, &names.shm]);
    assert_eq!(worker.line(), "serving");
    worker
}

fn attach(names: &Names) -> Client {
    Client::attach_to(Address::Socket(names.socket.clone()), PATIENCE).expect("a worker")
}

fn look(names: &Names) -> Segment {
    Address::Socket(names.socket.clone()).look(PATIENCE).expect("a segment")
}

/// What a worker hands to whoever asks.
fn handed_over(socket: &Path) -> OwnedFd {
    let stream = UnixStream::connect(socket).expect("a worker");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    handshake::send(stream.as_fd(), message::LOOK, &[], None).expect("a worker that listens");
    match Inbox::default().read(stream.as_fd()).expect("an answer") {
        Received::Message(answer) if answer.kind == message::SEGMENT => answer.fd.expect("a descriptor"),
        other => panic!("{other:?}"),
    }
}

/// Everything in a folder but the test's own files.
fn left_in(names: &Names) -> Vec<String> {
    let folder = names.socket.parent().expect("a folder");
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    files.filter_map(|file| file.file_name().into_string().ok()).collect()
}

#[test]
fn calls_go_through_a_segment_that_has_no_name_anywhere() {
    let names = names();
    let before: Vec<_> = std::fs::read_dir("/dev/shm").expect("/dev/shm").flatten().map(|file| file.path()).collect();
    let worker = spawn(&names);
    let client = attach(&names);
    assert_eq!(call(&client, &request("echo", b"hello")).expect("an answer").to_vec(), b"hello");
    let large = common::pattern(3, 3 << 20);
    assert_eq!(call(&client, &request("echo", &large)).expect("an answer").to_vec(), large);
    let after = std::fs::read_dir("/dev/shm").expect("/dev/shm").flatten().map(|file| file.path());
    let mut new = after.filter(|path| !before.contains(path));
    assert!(!new.any(|path| File::open(path).is_ok_and(|file| has_pid(&file, worker.pid()))), "a name in /dev/shm");
    let report = molt_ipc_shm::stat::Report::of(&client.look().expect("a segment"));
    assert_eq!(
        (report.segment.name, report.worker.state, report.worker.pid),
        (names.shm.clone(), "serving", worker.pid())
    );
    drop(client);
    assert!(worker.finish(), "it ends in good order");
    assert_eq!(left_in(&names), [""; 0], "neither socket nor lock");

    fn has_pid(file: &File, pid: u32) -> bool {
        let mut bytes = [0; Header::BYTES];
        file.read_exact_at(&mut bytes, 0).is_ok() && Header::decode(&bytes).worker_pid == pid
    }
}

/// Fault 22 in this mode: nobody who gets the descriptor can take pages away, or make the object other than it is.
#[test]
fn the_object_can_neither_shrink_nor_grow_nor_lose_its_seals_nor_be_entered_by_others() {
    let names = names();
    let _worker = spawn(&names);
    let file = File::from(handed_over(&names.socket));
    let size = file.metadata().expect("its figures").len();
    assert_eq!(size, small().total_bytes() as u64);
    for other in [0, 4096, size - 1, size + 1, size * 2] {
        let refused = file.set_len(other).expect_err("a sealed size").raw_os_error();
        assert_eq!(refused, Some(Errno::EPERM as i32), "{other} bytes");
    }
    let hole = nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), size as i64, 4096);
    assert_eq!(hole, Err(Errno::EPERM));
    assert_eq!(fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)), Err(Errno::EPERM), "seals are sealed");
    assert_eq!(file.metadata().expect("its figures").mode() & 0o7777, 0o600);
    // Every page is there: the blocks that the kernel counts cover the size.
    assert!(file.metadata().expect("its figures").blocks() * 512 >= size);
    assert_eq!(call(&attach(&names), &request("echo", b"x")).expect("an answer").to_vec(), b"x");
}

#[test]
fn a_descriptor_that_is_no_sealed_segment_is_refused_unread() {
    let refused = |file: File| nameless::open(file.into(), "/run/s").expect_err("a refusal");
    let sealed_as = |seals: SealFlag, bytes: &[u8]| {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create("molt", flags).expect("a memfd"));
        file.write_all(bytes).expect("bytes");
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seals");
        file
    };
    let all = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    for missing in [SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_SEAL] {
        let error = refused(sealed_as(all.difference(missing), &[0; 8192]));
        assert!(matches!(error, SegmentError::NotSealed { .. }), "{error}");
        assert!(error.to_string().contains("/run/s"), "{error}");
    }
    let on_disk = tempfile::tempfile().expect("a file");
    assert!(matches!(refused(on_disk), SegmentError::NotSealed { .. }), "a file that may be truncated");
    assert!(matches!(refused(File::open("/").expect("a folder")), SegmentError::NotPlain { .. }));
    for bytes in [&[0; 100][..], &[0; 8192], &b"MOLTSHM1".repeat(1024)] {
        let error = refused(sealed_as(all, bytes));
        assert!(matches!(error, SegmentError::Damaged { .. } | SegmentError::Version { .. }), "{error}");
    }
    // Another user's, where this test may become another user.
    let foreign = sealed_as(all, &[0; 8192]);
    match nix::unistd::fchown(&foreign, Some(nix::unistd::Uid::from_raw(65_534)), None) {
        Ok(()) => assert!(matches!(refused(foreign), SegmentError::Foreign { uid: 65_534, .. })),
        Err(errno) => println!("not tried with another user's: only root gives files away ({errno})"),
    }
}

/// A client that maps the segment and holds its descriptor does not make a dead worker look alive.
#[test]
fn a_killed_worker_leaves_its_socket_alone_and_the_next_one_replaces_it() {
    let names = names();
    let mut worker = spawn(&names);
    let client = attach(&names);
    let segment = client.look().expect("a segment");
    assert!(segment.is_alive());
    worker.kill();
    until("the kernel lets go of the lock", || !segment.is_alive());
    assert_eq!(left_in(&names), ["s"], "a socket that nobody listens on, and nothing else");
    let failure = call(&client, &request("echo", b"x")).expect_err("nobody serves");
    assert_eq!(failure.outcome, Outcome::Unavailable);
    let gone = Client::attach_to(Address::Socket(names.socket.clone()), Duration::ZERO).expect_err("nobody");
    assert!(gone.message.contains(&names.shm) && gone.message.contains("hint:"), "{gone}");

    let next = spawn(&names);
    assert_eq!(call(&client, &request("echo", b"again")).expect("the same client goes on").to_vec(), b"again");
    assert_eq!(look(&names).header.worker_pid, next.pid());
    assert!(!segment.is_alive(), "the former segment's worker stays dead, whoever has the socket now");
}

/// Row 56: what decides is a lock and a connection. A pid in the header decides nothing.
#[test]
fn a_live_workers_socket_is_refused_and_taken_over_only_on_request() {
    let names = names();
    let first = spawn(&names);
    let client = attach(&names);
    let mut refused = Child::start(&["worker", &names.shm, &names.shm]);
    let said = refused.line();
    let pid = format!("pid {}", first.pid());
    for part in ["refused", &names.shm, &pid, "--replace"] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    assert!(refused.finish());
    assert_eq!(call(&client, &request("echo", b"x")).expect("undisturbed").to_vec(), b"x");

    let words = ["worker", &names.shm, &names.shm, "replace"];
    let mut second = Child::start(&words);
    assert_eq!(second.line(), "serving");
    assert_eq!(look(&names).header.worker_pid, second.pid());
    assert_eq!(call(&client, &request("echo", b"old")).expect("the old one goes on").to_vec(), b"old");
    assert!(first.finish(), "the old worker leaves in good order");
    assert_eq!(call(&client, &request("echo", b"new")).expect("the new one").to_vec(), b"new");
    assert!(names.socket.exists(), "not removed by the old worker");
}

/// A tool that asks where the segment is takes no session, and finds it although the worker answers nobody.
#[test]
fn the_segment_is_found_without_a_session_and_while_its_worker_hangs() {
    let names = names();
    let worker = spawn(&names);
    let segment = look(&names);
    assert_eq!(molt_ipc_shm::stat::Report::of(&segment).sessions.len(), 0);
    let instance = segment.header.instance;
    drop(segment);
    worker.stop();
    let started = Instant::now();
    let stopped = Address::Socket(names.socket.clone()).look(Duration::from_millis(50)).expect("found in /proc");
    assert_eq!((stopped.header.instance, stopped.is_alive()), (instance, true));
    assert!(nameless::find().iter().any(|segment| segment.header.instance == instance), "{:?}", started.elapsed());
    worker.signal(Signal::SIGCONT);
    assert_eq!(call(&attach(&names), &request("echo", b"x")).expect("an answer").to_vec(), b"x");
}

/// A worker with a name says it there: its socket is enough to find it too.
#[test]
fn a_named_worker_is_found_by_its_socket_alone() {
    if common::nameless() {
        return println!("workers have no names in this mode");
    }
    let worker = ThreadWorker::start();
    let client = Client::attach_to(Address::Socket(worker.names.socket.clone()), PATIENCE).expect("a worker");
    assert_eq!(call(&client, &request("echo", b"x")).expect("an answer").to_vec(), b"x");
    assert_eq!(client.look().expect("a segment").name, worker.names.shm);
}

/// A sidecar: another container with the socket alone. It sees neither this /dev/shm, nor this one's processes.
#[test]
fn a_client_with_another_dev_shm_and_other_pids_is_served_and_its_death_is_noticed() {
    let names = names();
    let roomy = Geometry { sessions: 32, channels: 64, ..small() };
    let plan = blueprint(names.socket.clone(), roomy);
    let worker = ThreadWorker::planned(names, &plan);
    let apart =
        "unshare --mount --pid --fork --kill-child sh -c 'mount -t tmpfs none /dev/shm && mount -t proc proc /proc'";
    if !std::process::Command::new("sh").args(["-c", apart]).status().is_ok_and(|status| status.success()) {
        return println!("not tried: namespaces of one's own need rights that this machine does not give");
    }
    let shell = "exec unshare --mount --pid --fork --kill-child sh -c \
                 'mount -t tmpfs none /dev/shm && mount -t proc proc /proc && exec \"$0\" \"$@\"' \"$0\" \"$@\"";
    let sessions = || worker.report().sessions.len();
    let mut clients: Vec<_> = (0..17).map(|_| Child::start_under(shell, &["client", &worker.names.shm])).collect();
    for client in &mut clients {
        assert_eq!(client.line(), "answered");
    }
    until("a session each, of more processes than one may have sessions", || sessions() == 17);
    clients[0].kill();
    until("the dead one's is gone", || sessions() == 16);
    drop(clients);
    until("all are gone", || sessions() == 0);
}

#[test]
fn an_arena_larger_than_the_memory_is_refused_with_the_numbers() {
    let names = names();
    let AutoArena { bytes: arena, free, .. } = nameless::auto_arena(&names.socket, 0);
    assert!(arena > 0 && (Geometry::for_arena(arena).total_bytes() as u64) < free);
    let geometry = Geometry { extent_bytes: 1 << 30, extents: (free >> 30) as u32 + 64, ..small() };
    let plan = blueprint(names.socket.clone(), geometry);
    let error = OwnedSegment::create_nameless(&plan).expect_err("no room");
    let wanted = geometry.total_bytes() as u64;
    assert!(matches!(&error, SegmentError::NoMemory { wanted: stated, .. } if *stated == wanted), "{error}");
    for part in [wanted.to_string(), "--arena".into(), "hint:".into(), names.shm.clone()] {
        assert!(error.to_string().contains(&part), "{part} is not in {error}");
    }
}

/// A forked child closes what it inherited: the descriptor of the segment too.
#[test]
fn descriptors_return_to_the_baseline() {
    let names = names();
    let _worker = spawn(&names);
    drop(attach(&names)); // whatever the first session opens for good is open
    let own = || {
        let all = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
        let shown = all.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        shown.filter(|shown| shown.to_string_lossy().starts_with("/memfd:molt")).count()
    };
    let client = attach(&names);
    assert!(own() >= 1);
    let object = client.look().expect("a segment");
    drop(client);
    drop(object);
    // Other tests of this binary have segments of their own: it is enough that all of them go.
    until("no descriptor of a segment is left", || own() == 0);
}
