//! Where a worker listens: what it refuses to touch, what it replaces, how long a path may be.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use common::worker::{ThreadWorker, blueprint};
use common::{Names, call, request, small};
use molt_ipc_shm::layout::SOCKET_PATH_MAX;
use molt_ipc_shm::socket_path::PathError;
use molt_ipc_shm::worker::{Poller, StartError, default_socket};

/// What a start on that socket says.
fn start_on(names: &Names, socket: &Path) -> Result<(), StartError> {
    let owned = common::worker::create(&names.shm, &blueprint(socket.into(), small()))?;
    Poller::new(owned)?.open(false).map(|_| ())
}

/// Fault 55.
#[test]
fn what_squats_on_the_socket_is_refused_and_left_alone() {
    let names = Names::new();
    let target = names.file("target");
    std::fs::write(&target, "somebody's").expect("a file");
    let squat: [(&str, &dyn Fn()); 3] = [
        ("a file", &|| std::fs::write(&names.socket, "somebody's").expect("a file")),
        ("a folder", &|| std::fs::create_dir(&names.socket).expect("a folder")),
        ("a link", &|| std::os::unix::fs::symlink(&target, &names.socket).expect("a link")),
    ];
    for (what, make) in squat {
        make();
        let error = start_on(&names, &names.socket).expect_err(what);
        assert!(matches!(error, StartError::Path(PathError::Squatted { .. })), "{what}: {error}");
        assert!(std::fs::symlink_metadata(&names.socket).is_ok(), "{what} is still there");
        let _ = std::fs::remove_file(&names.socket).or_else(|_| std::fs::remove_dir(&names.socket));
    }
    assert_eq!(std::fs::read_to_string(&target).expect("a file"), "somebody's");
    assert_eq!(names.objects(), [] as [&str; 0], "a refused start leaves no segment");
}

#[test]
fn a_socket_that_a_dead_worker_left_is_replaced_and_only_its_user_may_enter() {
    let names = Names::new();
    drop(UnixListener::bind(&names.socket).expect("a socket that nobody listens on"));
    let plan = blueprint(names.socket.clone(), small());
    let worker = ThreadWorker::planned(names, &plan);
    let mode = std::fs::metadata(&worker.names.socket).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(call(&worker.client(), &request("echo", b"x")).expect("an answer").to_vec(), b"x");
}

/// Fault 57: what starts that were killed left beside the socket goes with the next start; what somebody listens on stays.
#[test]
fn sockets_of_killed_starts_are_swept() {
    let names = Names::new();
    let (dead, live) = (names.file("s.0000beef"), names.file("s.1111beef"));
    let (other, plain) = (names.file("s.beef"), names.file("s.2222beef"));
    for path in [&dead, &other] {
        drop(UnixListener::bind(path).expect("a socket that nobody listens on"));
    }
    let _listener = UnixListener::bind(&live).expect("a socket that somebody listens on");
    std::fs::write(&plain, "no socket").expect("a file");
    let plan = blueprint(names.socket.clone(), small());
    let worker = ThreadWorker::planned(names, &plan);
    assert!(!dead.exists() && live.exists() && other.exists() && plain.exists());
    assert!(worker.names.socket.exists());
}

#[test]
fn the_folder_of_a_socket_is_made_for_this_user_alone() {
    let names = Names::new();
    let socket = names.file("a/b/s");
    let plan = blueprint(socket.clone(), small());
    let worker = ThreadWorker::planned(names, &plan);
    let folder = socket.parent().expect("a folder");
    assert_eq!(std::fs::metadata(folder).expect("a folder").permissions().mode() & 0o777, 0o700);
    drop(worker);
    assert!(!socket.exists(), "the socket goes with its worker");
    assert!(default_socket("/molt7").ends_with("molt7.sock"));
}

/// The longest path that the refusal names is one that works.
#[test]
fn a_socket_path_works_up_to_the_length_that_is_stated() {
    let names = Names::new();
    let folder = names.file("");
    let of_len = |len: usize| -> PathBuf {
        let base = folder.to_str().expect("a plain path").trim_end_matches('/');
        format!("{base}/{}", "s".repeat(len - base.len() - 1)).into()
    };
    for len in [SOCKET_PATH_MAX - 10, SOCKET_PATH_MAX - 8, SOCKET_PATH_MAX] {
        start_on(&names, &of_len(len)).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
    }
    let error = start_on(&names, &of_len(SOCKET_PATH_MAX + 1)).expect_err("too long").to_string();
    assert!(error.contains(&(SOCKET_PATH_MAX + 1).to_string()) && error.contains("hint:"), "{error}");
}
