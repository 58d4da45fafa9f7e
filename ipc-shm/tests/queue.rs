//! What a client does while a supervisor starts its worker again, and when a worker leaves.

mod common;

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::child::{self, Child};
use common::echo::Echo;
use common::worker::{blueprint, create};
use common::{Names, PATIENCE, address, call, request, small, until};
use molt_ipc_shm::client::{Client, Request};
use molt_ipc_shm::handshake::{self, Inbox, Leave, Received, message};
use molt_ipc_shm::segment::Claim;
use molt_ipc_shm::worker::{Listener, Poller, Stop};
use molt_ipc_shm::{Outcome, Supervised};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

/// A supervisor and its worker, both in this process: the worker dies and comes back as the test says.
struct Pair {
    names: Names,
    listener: Listener,
    running: Option<(Arc<Stop>, Arc<EventFd>, JoinHandle<()>)>,
}

impl Pair {
    fn start() -> Self {
        let names = Names::new();
        let listener = Listener::bind(names.socket.clone()).expect("a socket");
        let mut pair = Self { names, listener, running: None };
        pair.serve(Claim::Free);
        pair
    }

    fn serve(&mut self, claim: Claim) {
        let fd = self.listener.as_fd().try_clone_to_owned().expect("a descriptor");
        let listener = Listener::inherited(fd, self.listener.inode(), self.names.socket.clone()).expect("a socket");
        let owned = create(&self.names.shm, &blueprint(self.names.socket.clone(), small())).expect("a segment");
        let mut poller = Poller::listening(owned, listener).expect("a worker");
        poller.open_with(claim).expect("the name");
        let stop = Arc::new(Stop::default());
        let (stopped, waker) = (stop.clone(), poller.waker());
        let thread = std::thread::spawn(move || {
            poller.run(&Echo::new(), &stopped, Duration::ZERO).expect("the poller");
            poller.keep_name(); // as one that dies
        });
        self.running = Some((stop, waker, thread));
    }

    fn die(&mut self) -> Supervised {
        let supervised = Supervised::of_child(&address(&self.names.shm), std::process::id()).expect("a segment");
        let (stop, waker, thread) = self.running.take().expect("a worker");
        stop.at_once();
        waker.write(1).expect("a waker");
        thread.join().expect("a worker that ends");
        supervised
    }

    /// Whether somebody waits in the queue of the socket.
    fn has_newcomer(&self) -> bool {
        poll(&mut [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
    }

    fn client(&self) -> Client {
        Client::attach_to(address(&self.names.shm), PATIENCE).expect("a worker to attach to")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some((stop, waker, thread)) = self.running.take() {
            stop.at_once();
            let _ = waker.write(1);
            let _ = thread.join();
        }
    }
}

/// Faults 7-11, 35: between the death of a worker and the next start a call waits in the queue of the socket.
#[test]
fn a_call_waits_in_the_queue_while_the_worker_is_started_again() {
    let mut pair = Pair::start();
    let (client, newcomer) = (pair.client(), pair.names.shm.clone());
    assert_eq!(call(&client, &request("echo", b"1")).expect("an answer").to_vec(), b"1");
    let supervised = pair.die();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| call(&client, &request("echo", b"2")))).collect();
        let attach = scope.spawn(|| Client::attach_to(address(&newcomer), PATIENCE).map(drop));
        until("somebody in the queue", || pair.has_newcomer());
        assert!(calls.iter().all(|call| !call.is_finished()), "a call that ended while nobody served");
        pair.serve(Claim::Restart);
        for answer in calls {
            assert_eq!(answer.join().expect("a thread").expect("an answer").to_vec(), b"2");
        }
        attach.join().expect("a thread").expect("a session");
    });
    drop(supervised);
}

/// Fault 38: however many threads of a process wait, one of them looks.
#[test]
fn a_process_waits_in_the_queue_once() {
    let mut pair = Pair::start();
    let client = pair.client();
    let _supervised = pair.die();
    let brief = Request { timeout: Some(Duration::from_secs(2)), ..request("echo", b"x") };
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..32).map(|_| scope.spawn(|| call(&client, &brief).expect_err("nobody serves"))).collect();
        until("somebody in the queue", || pair.has_newcomer());
        for failure in calls {
            assert_eq!(failure.join().expect("a thread").outcome, Outcome::Unavailable);
        }
    });
    let queued = std::iter::from_fn(|| pair.listener.accept().ok()).count();
    assert!(queued <= 3, "{queued} connections of one process");
}

/// Fault 35: in a long pause the supervisor says why nobody serves, and nobody waits for nothing.
#[test]
fn whoever_is_turned_away_is_told_why_and_at_once() {
    let mut pair = Pair::start();
    let client = pair.client();
    let _supervised = pair.die();
    std::thread::scope(|scope| {
        let asked = Instant::now();
        let waiting = scope.spawn(|| call(&client, &request("echo", b"2")).expect_err("nobody serves"));
        until("a call that was turned away", || {
            pair.listener.turn_away("the worker dies again and again; next start in 9.0 s");
            waiting.is_finished()
        });
        let failure = waiting.join().expect("a thread");
        assert_eq!(failure.outcome, Outcome::Unavailable);
        assert!(failure.message.contains("next start in 9.0 s"), "{}", failure.message);
        assert!(asked.elapsed() < PATIENCE / 2, "not at the call's deadline");
    });
    pair.serve(Claim::Restart);
    assert_eq!(call(&client, &request("echo", b"3")).expect("an answer").to_vec(), b"3");
}

/// Only the start of the worker that is meant is told to go, and no pid says which that is.
#[test]
fn a_worker_leaves_when_its_own_instance_is_named() {
    let mut pair = Pair::start();
    let client = pair.client();
    let segment = address(&pair.names.shm).look(PATIENCE).expect("a segment");
    let instance = segment.header.instance;
    let say = |instance: u64| {
        let line = std::os::unix::net::UnixStream::connect(&pair.names.socket).expect("a worker");
        line.set_read_timeout(Some(PATIENCE)).expect("a patience");
        handshake::send(line.as_fd(), message::LEAVE, &Leave { instance }.encode(), None).expect("a message");
        line
    };
    let line = say(instance + 1);
    match Inbox::default().read(line.as_fd()).expect("an answer") {
        Received::Message(refused) => assert_eq!(refused.kind, message::REFUSED),
        other => panic!("{other:?}"),
    }
    assert_eq!(call(&client, &request("echo", b"1")).expect("an answer").to_vec(), b"1");
    assert!(segment.is_serving());
    say(instance);
    until("a worker that has left", || segment.state_name() == "stopped");
    let (_, _, thread) = pair.running.take().expect("a worker");
    thread.join().expect("a worker that ends");
}

/// Inode and bytes of the object that has these names' segment now.
fn object_of(names: &Names) -> (u64, u64) {
    let path = match common::nameless() {
        false => names.path(),
        true => memfds().into_iter().next().expect("a segment").0,
    };
    let meta = std::fs::metadata(path).expect("an object");
    (meta.ino(), meta.blocks() * 512)
}

/// This process's descriptors of segments without a name, and their inodes.
fn memfds() -> Vec<(PathBuf, u64)> {
    let all = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten().map(|entry| entry.path());
    let shown =
        |path: &PathBuf| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:molt"));
    all.filter(shown).filter_map(|path| std::fs::metadata(&path).map(|meta| (path, meta.ino())).ok()).collect()
}

/// Whether this process keeps an object's pages: by a mapping or by a descriptor.
fn keeps(inode: u64) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    let mapped = maps.lines().any(|line| line.split_whitespace().nth(4) == Some(&inode.to_string()));
    mapped || memfds().iter().any(|(_, open)| *open == inode)
}

/// The role `waiting`: in a process of its own, where nobody else's segments are looked at.
fn waiting() {
    let mut pair = Pair::start();
    let (idle, client) = (pair.client(), pair.client());
    // It looks at a result of three megabytes, makes no call, and so does not notice the death.
    let held = call(&idle, &request("big", &(3_u64 << 20).to_le_bytes())).expect("an answer");
    assert_eq!(call(&client, &request("echo", b"x")).expect("an answer").to_vec(), b"x");
    let (inode, before) = object_of(&pair.names);
    assert!(before > 32 << 20, "all of its pages are reserved: {before}");
    let dead = std::fs::File::open(match common::nameless() {
        true => memfds().remove(0).0,
        false => pair.names.path(),
    });
    let dead = dead.expect("the object");
    let bytes = || dead.metadata().expect("its figures").blocks() * 512;
    let mut supervised = pair.die();
    supervised.make_way().expect("a stand-in");
    // The result, the words, the rings of two channels.
    assert!(bytes() < 6 << 20, "{} of {before} bytes are still there", bytes());
    assert!(held.to_vec() == common::pattern(3 << 20, 3 << 20), "what is looked at stays as it is");
    let seen = address(&pair.names.shm).look(Duration::from_millis(50)).expect("the dead worker is shown");
    assert!(!seen.is_alive() && seen.is_supervised() && seen.header.worker_pid == std::process::id());
    assert_eq!(molt_ipc_shm::stat::Report::of(&seen).totals["ok"], 2, "as it was");
    drop((seen, dead));
    while pair.listener.accept().is_ok() {} // who looked behind the socket
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(&client, &request("echo", b"served")).expect("an answer").to_vec());
        until("it waits in the queue", || pair.has_newcomer());
        drop((held, idle));
        until("nobody keeps the dead worker's memory, whoever waits", || !keeps(inode));
        assert!(!waiting.is_finished());
        pair.serve(Claim::Restart);
        assert_eq!(waiting.join().expect("a thread"), b"served");
    });
    child::say("kept nothing");
}

/// Faults 8, 19: what nobody looks at of a dead worker's segment comes back at once, the rest with whoever looks at it; to wait
/// for the successor keeps nothing.
#[test]
fn who_waits_for_a_successor_keeps_no_memory_of_the_dead_worker() {
    let mut apart = Child::start(&["waiting"]);
    assert_eq!(apart.line(), "kept nothing");
}

#[test]
fn child_role() {
    child::play(&[("waiting", |_| waiting())]);
}
