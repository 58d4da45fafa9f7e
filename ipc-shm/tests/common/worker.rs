//! A worker with the echo service: in a thread of the test, or in a process of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use molt_ipc_shm::client::{Client, Failure};
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::segment::{Blueprint, Claim, OwnedSegment, SegmentError};
use molt_ipc_shm::stat::Report;
use molt_ipc_shm::stats;
use molt_ipc_shm::worker::{Host, Poller, StartError, Stop};
use molt_ipc_shm::{Address, Segment};
use nix::sys::eventfd::EventFd;

use super::child::{self, Child};
use super::echo::Echo;
use super::{Names, PATIENCE, small};

/// How a worker of these tests is made.
pub fn blueprint(socket: PathBuf, geometry: Geometry) -> Blueprint {
    Blueprint { geometry, socket, max_body: 16 << 20, session_quota: 24 << 20 }
}

/// A segment under that name, or without one.
pub fn create(shm: &str, plan: &Blueprint) -> Result<OwnedSegment, SegmentError> {
    match super::address(shm) {
        Address::Socket(_) => OwnedSegment::create_nameless(plan),
        Address::Name { .. } => OwnedSegment::create(shm, plan),
    }
}

/// A poller that listens, for whoever drives it.
pub fn listening(shm: &str, plan: &Blueprint, replace: bool) -> Result<Poller, StartError> {
    claiming(shm, plan, if replace { Claim::Anybodys } else { Claim::Free })
}

/// The same for a start that may take those names.
pub fn claiming(shm: &str, plan: &Blueprint, claim: Claim) -> Result<Poller, StartError> {
    let owned = create(shm, plan)?;
    stats::name_entry(&owned.segment.map, &owned.segment.geometry, 0, "echo", 0, false);
    let mut poller = Poller::new(owned)?;
    poller.open_with(claim)?;
    Ok(poller)
}

/// A worker in a thread.
pub struct ThreadWorker {
    pub names: Names,
    pub host: Arc<Host>,
    stop: Arc<Stop>,
    waker: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl ThreadWorker {
    pub fn start() -> Self {
        Self::with(small())
    }

    pub fn with(geometry: Geometry) -> Self {
        let names = Names::new();
        let plan = blueprint(names.socket.clone(), geometry);
        Self::planned(names, &plan)
    }

    pub fn planned(names: Names, plan: &Blueprint) -> Self {
        let mut poller = listening(&names.shm, plan, false).expect("a worker");
        let stop = Arc::new(Stop::default());
        let (host, waker, stopped) = (poller.host().clone(), poller.waker(), stop.clone());
        let thread = std::thread::spawn(move || {
            poller.run(&Echo::new(), &stopped, Duration::from_millis(200)).expect("the poller");
        });
        Self { names, host, stop, waker, thread: Some(thread) }
    }

    pub fn client(&self) -> Client {
        attach(&self.names)
    }

    pub fn report(&self) -> Report {
        Report::of(&self.host.segment)
    }

    pub fn stop(&mut self) {
        self.stop.want();
        let _ = self.waker.write(1);
        self.thread.take().map(JoinHandle::join).transpose().expect("a worker that ends in good order");
    }
}

impl Drop for ThreadWorker {
    fn drop(&mut self) {
        self.stop.want();
        let _ = self.waker.write(1);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The role of a worker process: `worker NAME SOCKET [replace]`. It serves until its input is closed.
pub fn role(words: &[String]) {
    let plan = blueprint(words[1].clone().into(), small());
    let replace = words.get(2).is_some_and(|word| word == "replace");
    play(listening(&words[0], &plan, replace));
}

/// A worker process from its start on: it says what came of that, and serves until its input is closed.
pub fn play(start: Result<Poller, StartError>) {
    let mut poller = match start {
        Ok(poller) => poller,
        Err(error) => return child::say(&format!("refused: {error}")),
    };
    let stop = Arc::new(Stop::default());
    let (stopped, waker) = (stop.clone(), poller.waker());
    std::thread::spawn(move || {
        while child::hear().is_some() {}
        stop.want();
        let _ = waker.write(1);
    });
    child::say("serving");
    poller.run(&Echo::new(), &stopped, Duration::from_millis(200)).expect("the poller");
}

/// A worker process that serves.
pub fn spawn(names: &Names) -> Child {
    let mut child = Child::start(&["worker", &names.shm, names.socket.to_str().expect("a plain path")]);
    assert_eq!(child.line(), "serving");
    child
}

pub fn attach(names: &Names) -> Client {
    find(&names.shm, PATIENCE).expect("a worker to attach to")
}

/// Attaches by whatever these tests call a worker.
pub fn find(shm: &str, wait: Duration) -> Result<Client, Failure> {
    Client::attach_to(super::address(shm), wait)
}

/// Its segment, opened as a tool opens it.
pub fn look(shm: &str) -> Result<Segment, Failure> {
    super::address(shm).look(PATIENCE)
}

/// The figures of a segment, read as a tool reads them.
pub fn report(names: &Names) -> Report {
    Report::of(&look(&names.shm).expect("a segment"))
}
