//! A segment name, a folder, and the processes that meet there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use molt_ipc_shm::{Segment, nameless};
use tempfile::TempDir;

use crate::journal::{ClientTail, Record, WorkerTail};
use crate::oracle::Runs;
use crate::process::{End, Process, patience, within};
use crate::roles::client::Manner;
use crate::roles::{Break, FAILURES, VIOLATIONS, journal};

/// Where one cast of processes plays.
#[derive(Debug)]
pub struct Stage {
    /// The segment's name: nobody else's.
    pub shm: String,
    /// The folder of the worker's socket; nothing else is in it.
    sockets: TempDir,
    /// Journals, violations, what was said on stderr.
    folder: TempDir,
    numbers: AtomicU32,
    broken: Option<Break>,
    /// The real worker, if it is to be that.
    foreign: Option<PathBuf>,
    /// The segment has no name.
    pub memfd: bool,
    /// The nameless segment that was found last.
    found: Mutex<Option<Segment>>,
}

/// What is special about a process.
#[derive(Debug, Clone, Default)]
pub struct Arm {
    /// `MOLT_FAILPOINT`.
    pub trap: Option<String>,
    /// `MOLT_FAILPOINTS_SEEN`.
    pub seen: Option<PathBuf>,
}

impl Arm {
    /// Dies (or stops) when it passes a failpoint for the nth time.
    pub fn trap(failpoint: &str, nth: u64, stop: bool) -> Self {
        let action = if stop { "stop" } else { "kill" };
        Self { trap: Some(format!("{failpoint}#{nth}={action}")), seen: None }
    }
}

/// A client of the stage.
#[derive(Debug)]
pub struct Actor {
    /// Its process.
    pub process: Process,
    /// Its number.
    pub number: u32,
    tail: ClientTail,
    /// What it wrote so far.
    pub records: Vec<Record>,
    /// It was killed from outside.
    pub was_killed: bool,
}

impl Actor {
    /// Reads what it wrote since.
    pub fn read(&mut self) -> &[Record] {
        let _ = self.tail.records(&mut self.records);
        &self.records
    }

    /// How many of its requests were answered after that time.
    pub fn answered_since(&mut self, at_ns: u64) -> usize {
        use crate::journal::Event::Ended;
        let answered =
            |record: &&Record| record.at_ns > at_ns && matches!(record.event, Ended(molt_ipc_shm::Outcome::Ok, _));
        self.read().iter().rev().take_while(|record| record.at_ns > at_ns).filter(answered).count()
    }
}

/// A worker of the stage.
#[derive(Debug)]
pub struct Worker {
    /// Its process.
    pub process: Process,
    tail: WorkerTail,
}

impl Worker {
    /// Counts what it ran since.
    pub fn read(&mut self, runs: &mut Runs) {
        let _ = self.tail.runs(|client, seq| *runs.entry((client, seq)).or_default() += 1);
    }
}

impl Stage {
    /// A stage of its own.
    pub fn new(broken: Option<Break>, foreign: Option<PathBuf>, memfd: bool) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = |what: &str| {
            let made = tempfile::Builder::new().prefix(what).tempdir();
            made.map_err(|error| format!("a temporary folder: {error}"))
        };
        Ok(Self {
            shm: format!("/molt-chaos-{}-{count}", std::process::id()),
            sockets: folder("molt-s")?,
            folder: folder("molt-chaos")?,
            numbers: AtomicU32::new(1),
            broken,
            foreign,
            memfd,
            found: Mutex::default(),
        })
    }

    /// Where files of a run may lie.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.sockets.path().join("s")
    }

    /// The segment, whatever its worker does. One without a name is looked for among what processes hold: to ask for it
    /// would take a descriptor of the worker, and those are counted here.
    pub fn segment(&self) -> Result<Segment, String> {
        if !self.memfd {
            return Segment::open(&self.shm).map_err(|error| error.to_string());
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alive) = found.as_ref().filter(|segment| segment.is_alive()) {
            return Ok(alive.clone());
        }
        let here = |segment: &Segment| segment.socket() == self.socket();
        *found = nameless::find().into_iter().filter(here).max_by_key(Segment::is_alive);
        found.clone().ok_or_else(|| format!("nobody holds a segment of {}", self.socket().display()))
    }

    /// The segment of a worker that serves.
    pub fn serving(&self) -> Result<Segment, String> {
        self.segment()?.serving().map_err(|error| error.to_string())
    }

    fn role(&self, role: &str, number: u32, arm: &Arm) -> Result<Command, String> {
        let own = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
        let mut command = Command::new(own);
        command.args(["role", role, "--shm", &self.shm, "--number", &number.to_string(), "--socket"]);
        command.arg(self.socket()).arg("--folder").arg(self.folder.path());
        if self.memfd {
            command.arg("--memfd");
        }
        if let Some(broken) = self.broken {
            command.arg("--break").arg(
                clap::ValueEnum::to_possible_value(&broken)
                    .map_or_else(String::new, |value| value.get_name().to_owned()),
            );
        }
        self.quiet(&mut command)?;
        command.env_remove("MOLT_FAILPOINT").env_remove("MOLT_FAILPOINTS_SEEN");
        arm.trap.iter().for_each(|trap| {
            command.env("MOLT_FAILPOINT", trap);
        });
        arm.seen.iter().for_each(|seen| {
            command.env("MOLT_FAILPOINTS_SEEN", seen);
        });
        Ok(command)
    }

    fn quiet(&self, command: &mut Command) -> Result<(), String> {
        let said = std::fs::File::options().create(true).append(true).open(self.file("stderr"));
        command.stdout(Stdio::null()).stderr(said.map_err(|error| format!("stderr: {error}"))?);
        Ok(())
    }

    fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts a worker; it may not serve yet.
    pub fn worker(&self, arm: &Arm) -> Result<Worker, String> {
        let number = self.number();
        let mut command = match &self.foreign {
            Some(program) => {
                let mut command = Command::new(program);
                let mode = if self.memfd { vec!["--memfd"] } else { vec!["--shm", &self.shm] };
                command.args(mode).args(["--arena", "32MiB", "--supervise", "--socket"]).arg(self.socket());
                self.quiet(&mut command)?;
                command
            }
            None => self.role("worker", number, arm)?,
        };
        let path = journal(self.folder.path(), number);
        let tail = WorkerTail::of_worker(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Worker { process: Process::start(&mut command).map_err(|error| format!("a worker: {error}"))?, tail })
    }

    /// Whether the worker keeps a journal of what it ran.
    pub fn keeps_journal(&self) -> bool {
        self.foreign.is_none()
    }

    /// Waits until this worker serves, or is dead, or stopped, or the time is over; whether it serves.
    pub fn serves(&self, worker: &mut Worker) -> bool {
        let pid = worker.process.pid();
        let foreign = self.foreign.is_some();
        let serving = || self.serving().is_ok_and(|segment| foreign || segment.header.worker_pid == pid);
        let mut is_serving = false;
        within(patience(), || {
            is_serving = serving();
            is_serving || worker.process.state() != crate::process::State::Alive
        });
        is_serving
    }

    /// Starts a worker that must serve.
    pub fn serving_worker(&self) -> Result<Worker, String> {
        let mut worker = self.worker(&Arm::default())?;
        if self.serves(&mut worker) {
            return Ok(worker);
        }
        let end = worker.process.ended();
        Err(format!("a worker does not begin to serve ({end:?}): {}", self.said()))
    }

    /// Starts a client.
    pub fn client(&self, manner: &Manner, arm: &Arm) -> Result<Actor, String> {
        let number = self.number();
        let mut command = self.role("client", number, arm)?;
        let (threads, pause) = (manner.threads.to_string(), manner.pause_us.to_string());
        let (seed, event_loop) = (manner.seed.to_string(), manner.event_loop.to_string());
        command.args(["--threads", &threads, "--pause-us", &pause, "--seed", &seed, "--event-loop", &event_loop]);
        if manner.echo_only {
            command.arg("--echo-only");
        }
        let path = journal(self.folder.path(), number);
        let tail = ClientTail::of_client(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let process = Process::start(&mut command).map_err(|error| format!("a client: {error}"))?;
        Ok(Actor { process, number, tail, records: Vec::new(), was_killed: false })
    }

    /// Starts a client that breaks the rules.
    pub fn rude(&self) -> Result<Process, String> {
        let mut command = self.role("rude", self.number(), &Arm::default())?;
        Process::start(&mut command).map_err(|error| format!("a rude client: {error}"))
    }

    /// Names in /dev/shm that begin with the segment's.
    pub fn names(&self) -> Vec<String> {
        let own = &self.shm[1..];
        listed(Path::new(molt_ipc_shm::segment::SHM_DIR))
            .into_iter()
            .filter(|name| name == own || name.starts_with(&format!("{own}.")))
            .collect()
    }

    /// Sockets in the worker's folder. Its lock file is permanent.
    pub fn sockets(&self) -> Vec<String> {
        listed(self.sockets.path()).into_iter().filter(|name| !name.ends_with(".lock")).collect()
    }

    /// Leaves a socket there on which nobody listens.
    pub fn leave_socket(&self, name: &str) -> std::io::Result<()> {
        std::os::unix::net::UnixListener::bind(self.sockets.path().join(name)).map(drop)
    }

    fn said(&self) -> String {
        let mut said = std::fs::read_to_string(self.file("stderr")).unwrap_or_default();
        let end = said.len().min(2000);
        said.truncate((0..=end).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0));
        said
    }

    /// What processes accused each other of, and what they said before they panicked.
    pub fn accusations(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(VIOLATIONS)).unwrap_or_default();
        let mut found: Vec<String> = text.lines().map(str::to_owned).collect();
        let said = if self.foreign.is_none() { self.said() } else { String::new() };
        if !said.is_empty() {
            found.push(format!("a process said: {said}"));
        }
        found
    }

    /// Adds to what was broken why those requests failed, as their clients were told.
    pub fn explained(&self, broken: Vec<String>) -> Vec<String> {
        if broken.is_empty() {
            return broken;
        }
        let why = std::fs::read_to_string(self.file(FAILURES)).unwrap_or_default();
        let of = |what: &String| {
            let request = what.split('(').next().unwrap_or(what);
            why.lines().find(|line| line.starts_with(request)).map(|line| format!("{what}: {line}"))
        };
        broken.into_iter().map(|what| of(&what).unwrap_or(what)).collect()
    }

    /// Forgets why requests failed.
    pub fn forget_failures(&self) {
        let _ = std::fs::remove_file(self.file(FAILURES));
    }

    /// Forgets a process's journal.
    pub fn forget(&self, number: u32) {
        let _ = std::fs::remove_file(journal(self.folder.path(), number));
    }

    /// Nothing of the segment may be left once its last worker has ended.
    pub fn is_empty(&self) -> Result<(), String> {
        let (names, sockets) = (self.names(), self.sockets());
        if names.is_empty() && sockets.is_empty() {
            return Ok(());
        }
        Err(format!("names are left in /dev/shm: {names:?}, beside the socket: {sockets:?}"))
    }
}

fn listed(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

impl Drop for Stage {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = std::fs::remove_file(Path::new(molt_ipc_shm::segment::SHM_DIR).join(name));
        }
    }
}

/// Ends all clients in good order; who does not end so is named.
pub fn finish(clients: &mut [Actor]) -> Vec<String> {
    clients.iter_mut().for_each(|client| {
        client.process.go_on();
        client.process.tell_to_end();
    });
    let mut wrong = Vec::new();
    for client in clients.iter_mut().filter(|client| !client.was_killed) {
        match client.process.finish() {
            Ok(End::Good) => {}
            Ok(end) => wrong.push(format!("client {} ended as {end:?}", client.number)),
            Err(what) => wrong.push(format!("client {}: {what}", client.number)),
        }
    }
    wrong
}

/// Runs of all workers.
pub fn runs_of(workers: &mut [Worker]) -> Runs {
    let mut runs = HashMap::new();
    workers.iter_mut().for_each(|worker| worker.read(&mut runs));
    runs
}
