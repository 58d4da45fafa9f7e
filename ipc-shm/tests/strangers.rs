//! Who is kept out, and what is kept from them: other users, squatters of names, sockets and folders, a /dev/shm that is too
//! small. Rows 19, 54, 55 and 56 of the fault table.

mod common;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::child::{self, Child};
use common::worker::{blueprint, create, find, spawn};
use common::{Names, PATIENCE, call, request, small};
use molt_ipc_shm::client::Client;
use molt_ipc_shm::segment::SegmentError;
use molt_ipc_shm::socket_path::{PathError, PathLock};
use molt_ipc_shm::worker::{Poller, StartError};
use molt_ipc_shm::{Address, Segment};
use nix::unistd::{Uid, geteuid, setuid};

/// The user that nobody is.
const STRANGER: u32 = 65_534;

#[test]
fn child_role() {
    child::play(&[
        ("worker", common::worker::role),
        ("stranger", |words| {
            setuid(Uid::from_raw(STRANGER)).expect("another user");
            let told = |result: Result<(), String>| result.err().unwrap_or_else(|| "let in".into());
            let connected = UnixStream::connect(&words[1]).map(drop).map_err(|error| error.to_string());
            child::say(&told(connected));
            child::say(&told(find(&words[0], Duration::ZERO).map(drop).map_err(|failure| failure.message)));
            // What a stranger makes itself: a socket to be mistaken for the worker's, and an object under a segment's name.
            let _listener = UnixListener::bind(&words[2]).expect("a socket of its own");
            std::fs::set_permissions(&words[2], Permissions::from_mode(0o777))
                .expect("a socket that anybody may enter");
            std::fs::write(&words[3], vec![0; 8192]).expect("an object of its own");
            std::fs::set_permissions(&words[3], Permissions::from_mode(0o666)).expect("an object that anybody may map");
            child::say("squats");
            while child::hear().is_some() {}
        }),
    ]);
}

fn start_on(names: &Names, socket: &Path) -> Result<Poller, StartError> {
    let mut poller = Poller::new(create(&names.shm, &blueprint(socket.into(), small()))?)?;
    poller.open(false)?;
    Ok(poller)
}

fn path_error(result: Result<Poller, StartError>) -> PathError {
    match result {
        Err(StartError::Path(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started"),
    }
}

/// Row 54: another user's process, which root alone can start.
#[test]
fn another_user_is_neither_let_in_nor_believed() {
    if !geteuid().is_root() {
        return println!("not tried: only root becomes another user");
    }
    let (names, squatted) = (Names::new(), Names::new());
    let _worker = spawn(&names);
    // The folder lets it through, and the socket too: what keeps it out is what the kernel says of the peer.
    let folder = names.socket.parent().expect("a folder");
    std::fs::set_permissions(folder, Permissions::from_mode(0o1777)).expect("a folder that anybody may enter");
    std::fs::set_permissions(&names.socket, Permissions::from_mode(0o777)).expect("a socket that anybody may enter");
    let socket = names.socket.to_str().expect("a plain path");
    let (theirs, object) = (names.file("theirs"), names.file("object"));
    let named_object = if common::nameless() { object } else { squatted.path() };
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let mut stranger = Child::start(&["stranger", &names.shm, socket, &text(&theirs), &text(&named_object)]);
    assert_eq!(stranger.line(), "let in", "to the queue, where the worker finds out who it is and hangs up");
    let refused = stranger.line();
    assert!(refused.contains("user 0") || refused.contains("no session"), "{refused}");
    assert_eq!(stranger.line(), "squats");

    let address = Address::Socket(theirs.clone());
    let failure = address.look(PATIENCE).expect_err("a stranger's socket");
    assert!(failure.message.contains(&format!("user {STRANGER}")), "{failure}");
    let error = path_error(start_on(&Names::new(), &theirs));
    assert!(matches!(error, PathError::Squatted { uid: STRANGER, .. }), "{error}");
    if !common::nameless() {
        let error = Segment::open(&squatted.shm).expect_err("a stranger's object");
        assert!(matches!(error, SegmentError::Foreign { uid: STRANGER, own: 0, .. }), "{error}");
        let error = start_on(&squatted, &squatted.socket).err().expect("a stranger's name");
        assert!(error.to_string().contains(&format!("user {STRANGER}")), "{error}");
    }
    let report = common::worker::report(&names);
    assert_eq!((report.sessions.len(), report.worker.state), (0, "serving"), "nothing came of it");
    assert_eq!(call(&common::worker::attach(&names), &request("echo", b"x")).expect("an answer").to_vec(), b"x");
}

/// Row 55: another worker's socket is not taken away from it; who has it is said.
#[test]
fn a_live_socket_is_refused_with_the_process_that_has_it() {
    let (first, second) = (Names::new(), Names::new());
    let worker = spawn(&first);
    let second_shm = if common::nameless() { &first } else { &second };
    let error = path_error(start_on(second_shm, &first.socket));
    assert!(matches!(error, PathError::Alive { pid, .. } if pid == worker.pid()), "{error}");
    for part in [first.socket.to_str().expect("a plain path"), "--socket", "--replace", "hint:"] {
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
    assert_eq!(second.objects(), [""; 0], "the refused start leaves nothing");
    assert_eq!(call(&common::worker::attach(&first), &request("echo", b"x")).expect("an answer").to_vec(), b"x");
}

#[test]
fn a_folder_where_others_may_exchange_the_socket_is_refused() {
    let names = Names::new();
    let folder = names.file("open");
    std::fs::create_dir(&folder).expect("a folder");
    let mode = |mode| std::fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("a mode");
    for exposed in [0o777, 0o720, 0o702] {
        mode(exposed);
        let error = path_error(start_on(&names, &folder.join("s")));
        assert!(matches!(error, PathError::Exposed { .. }), "{exposed:o}: {error}");
        assert!(
            error.to_string().contains(&format!("{exposed:04o}")) && error.to_string().contains("hint:"),
            "{error}"
        );
    }
    for sound in [0o1777, 0o755, 0o700] {
        mode(sound);
        drop(start_on(&names, &folder.join("s")).unwrap_or_else(|error| panic!("{sound:o}: {error}")));
    }
    match chown(&folder, Some(STRANGER), None) {
        Ok(()) => {
            let error = path_error(start_on(&names, &folder.join("s")));
            assert!(error.to_string().contains(&format!("belongs to user {STRANGER}")), "{error}");
        }
        Err(error) => println!("not tried with another user's folder: only root gives one away ({error})"),
    }
}

/// The lock that guards a change of the path is itself no way to write over what is somebody else's.
#[test]
fn a_lock_file_that_is_a_link_or_held_is_refused_and_left_alone() {
    let names = Names::new();
    let (target, lock) = (names.file("target"), names.file("s.lock"));
    std::fs::write(&target, "somebody's").expect("a file");
    symlink(&target, &lock).expect("a link");
    let error = path_error(start_on(&names, &names.socket));
    assert!(matches!(error, PathError::Squatted { what, .. } if what.contains("link")), "{error}");
    assert_eq!(std::fs::read_to_string(&target).expect("a file"), "somebody's");
    std::fs::remove_file(&lock).expect("the link");

    // What a killed start left is no lock: the kernel let go of it.
    std::fs::write(&lock, "").expect("a file");
    drop(start_on(&names, &names.socket).expect("a start"));
    assert!(!lock.exists(), "it goes with the change of the name");

    let held = PathLock::take(&names.socket).expect("the lock");
    let error = path_error(start_on(&names, &names.socket));
    assert!(matches!(&error, PathError::Held { lock: named } if *named == lock), "{error}");
    drop(held);
    drop(start_on(&names, &names.socket).expect("a start"));
}

/// A client believes no link either: it could lead to another worker of this user.
#[test]
fn a_client_does_not_follow_a_link_to_a_socket() {
    let names = Names::new();
    let _worker = spawn(&names);
    let link = names.file("link");
    symlink(&names.socket, &link).expect("a link");
    let failure = Client::attach_to(Address::Socket(link), Duration::ZERO).expect_err("a link");
    assert!(failure.message.contains("no socket"), "{failure}");
}

/// Row 19, with a /dev/shm of 8 MiB: an error with the numbers and the flag, never a SIGBUS later.
#[test]
fn a_small_dev_shm_is_refused_with_the_numbers() {
    if common::nameless() {
        return println!(
            "a segment without a name takes nothing of /dev/shm: see nameless.rs for the memory that it takes"
        );
    }
    let apart = "mount -t tmpfs -o size=8m none /dev/shm";
    let possible = Command::new("unshare").args(["--mount", "--map-root-user", "sh", "-c", apart]).status();
    if !possible.is_ok_and(|status| status.success()) {
        return println!("not tried: a /dev/shm of one's own needs rights that this machine does not give");
    }
    let names = Names::new();
    let shell = format!("exec unshare --mount --map-root-user sh -c '{apart} && exec \"$0\" \"$@\"' \"$0\" \"$@\"");
    let mut worker = Child::start_under(&shell, &["worker", &names.shm, names.socket.to_str().expect("a plain path")]);
    let said = worker.line();
    let wanted = small().total_bytes().to_string();
    for part in ["refused", "/dev/shm has 8388608 bytes free", &wanted, "--arena", "--shm-size", "hint:"] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    assert!(worker.finish() && !names.socket.exists());
}
