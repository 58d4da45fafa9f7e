//! What the worker's tests share: a worker under names of its own that goes with the test, calls to it, and waiting for
//! conditions.
#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod ask;
pub mod load;
pub mod tables;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use molt_ipc_shm::client::{Client, Failure};
use molt_ipc_shm::stat::Report;
use molt_ipc_shm::{Address, Segment};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The program under test.
pub const WORKER: &str = env!("CARGO_BIN_EXE_molt_worker");
/// How long anything may take that has to happen.
pub const SOON: Duration = Duration::from_secs(20);
/// Where Linux keeps named shared memory.
pub const SHM_DIR: &str = "/dev/shm";

/// Waits until `look` finds something; panics with `what` when it does not come.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until it is so.
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// A folder of its own, removed at the end.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new, empty one.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(unique("molt-test"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether these tests run with segments that have no name: `MOLT_TEST_SEGMENT=memfd`.
pub fn nameless() -> bool {
    std::env::var("MOLT_TEST_SEGMENT").is_ok_and(|kind| kind == "memfd")
}

/// Where a worker of these tests is found. Only a socket's path has a second slash.
pub fn address(shm: &str) -> Address {
    match shm[1..].contains('/') {
        true => Address::Socket(shm.into()),
        false => Address::Name { shm: shm.into(), socket: None },
    }
}

/// Attaches to a worker of these tests.
pub fn find(shm: &str, wait: Duration) -> Result<Client, Failure> {
    Client::attach_to(address(shm), wait)
}

/// Its segment, as a tool sees it.
pub fn look(shm: &str) -> Result<Segment, Failure> {
    address(shm).look(SOON)
}

/// A segment name that nobody else has.
pub fn unique_shm() -> String {
    format!("/{}", unique("molt-it"))
}

/// The library of an example, built beside the worker.
pub fn library(name: &str) -> PathBuf {
    let path = Path::new(WORKER).with_file_name("examples").join(format!("lib{name}.so"));
    assert!(path.is_file(), "{} is not there; hint: `cargo build --release -p molt-engine --examples`", path.display());
    path
}

/// The tool, built beside the worker; made first where only this package was.
pub fn stat_program() -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = BUILDING.lock().unwrap();
    let program = Path::new(WORKER).with_file_name("molt-shm-stat");
    if !program.is_file() {
        let profile = Path::new(WORKER).parent().unwrap();
        let target = profile.parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "molt-shm-stat", "--bin", "molt-shm-stat", "--target-dir"]).arg(target);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "molt-shm-stat cannot be built");
    }
    program
}

/// A manifest of these exports.
pub fn manifest(exports: Value) -> String {
    serde_json::json!({"abi_version": 1, "exports": exports}).to_string()
}

/// A manifest with all trial entries.
pub fn trial_manifest() -> String {
    let names = [
        "trial_hold",
        "trial_wait",
        "trial_panic",
        "trial_overflow",
        "trial_big",
        "trial_fail",
        "trial_params",
        "trial_payload",
        "trial_turn",
    ];
    let library = library("trial_entries");
    let export = |name| serde_json::json!({"name": name, "kind": "native", "library": library});
    manifest(names.map(export).into_iter().collect())
}

/// A program run to its end: exit code, standard output, standard error.
pub fn run(program: impl AsRef<OsStr>, folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not end by itself is ended, and the test fails with what it said.
    let (deadline, mut ended) = (Instant::now() + SOON, None);
    while ended.is_none() && Instant::now() < deadline {
        ended = child.try_wait().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    if ended.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ended.is_some(), "{args:?} did not end within {SOON:?}; it said: {}", text(&output.stderr));
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Every name in shared memory that begins like `shm`; of a socket's path, the files that do.
pub fn names_of(shm: &str) -> Vec<String> {
    if let Address::Socket(path) = address(shm) {
        let (folder, own) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let files = files.filter(|file| file.file_name().to_string_lossy().starts_with(own));
        return files.map(|file| file.path().display().to_string()[1..].to_owned()).collect();
    }
    let names = std::fs::read_dir(SHM_DIR).unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name == &shm[1..] || name.starts_with(&format!("{}.", &shm[1..]))).collect()
}

/// A running worker. Dropping it ends the process, and removes its names and its folder.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    /// The segment's name; the socket's path where segments have none.
    pub shm: String,
    /// Its folder: manifest, socket, log, and whatever the test puts there.
    pub folder: std::sync::Arc<Folder>,
    log: PathBuf,
}

impl Worker {
    /// Starts a worker with the built-in entries, and waits until it serves.
    pub fn plain(args: &[&str]) -> Self {
        Self::start(Folder::new(), None, args)
    }

    /// Starts a worker with a manifest, and waits until it serves.
    pub fn with(manifest: &str, args: &[&str]) -> Self {
        Self::start(Folder::new(), Some(manifest), args)
    }

    /// Starts a worker with all trial entries.
    pub fn trial(args: &[&str]) -> Self {
        Self::with(&trial_manifest(), args)
    }

    /// The same in a folder that has been prepared.
    pub fn start(folder: Folder, manifest: Option<&str>, args: &[&str]) -> Self {
        let manifest = manifest.map(|text| folder.write("exports.json", text).display().to_string());
        let socket = folder.join("w.sock").display().to_string();
        let exports = manifest.as_ref().map(|file| ["--exports", file]);
        let args = ["--socket", &socket].into_iter().chain(exports.into_iter().flatten()).chain(args.iter().copied());
        let worker = Self::launch(unique_shm(), folder.into(), &args.collect::<Vec<_>>());
        worker.serves()
    }

    /// Starts the program with these arguments beside `--shm` and a small arena, and does not wait.
    pub fn launch(shm: String, folder: std::sync::Arc<Folder>, args: &[&str]) -> Self {
        let default = ["--socket", &folder.join("w.sock").display().to_string()].map(str::to_owned);
        let socket = args.windows(2).find(|pair| pair[0] == "--socket").map(|pair| pair[1].to_owned());
        let (shm, own) = match nameless() {
            true => (socket.clone().unwrap_or(default[1].clone()), vec!["--memfd".to_owned()]),
            false => (shm.clone(), vec!["--shm".to_owned(), shm]),
        };
        let own = own.into_iter().chain(default.into_iter().filter(|_| nameless() && socket.is_none()));
        let log = folder.join(&unique("log"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(WORKER);
        command.args(own).args(args).current_dir(folder.path()).env("XDG_RUNTIME_DIR", folder.path());
        if !args.contains(&"--arena") {
            command.args(["--arena", "32MiB"]);
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0); // signals to a test's group are not for it
        command
            .env_remove("MOLT_LOG")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        Self { child: command.spawn().unwrap(), shm, folder, log }
    }

    /// Waits until it serves.
    pub fn serves(mut self) -> Self {
        let serving = |worker: &mut Self| {
            let ended = worker.child.try_wait().unwrap();
            assert!(ended.is_none(), "the worker ended ({ended:?}): {}", worker.log());
            look(&worker.shm)
                .ok()
                .and_then(|segment| segment.serving().ok())
                .filter(|_| worker.log().contains("molt_worker serves"))
        };
        until("a worker that serves", || serving(&mut self));
        self
    }

    /// Waits until it serves under a name that was another's.
    pub fn serves_as_successor(mut self) -> Self {
        let pid = self.pid();
        until("a successor that serves", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the successor ended ({ended:?}): {}", self.log());
            let found = address(&self.shm).look(Duration::from_millis(200)).ok()?.serving().ok();
            found.filter(|segment| segment.header.worker_pid == pid)
        });
        self
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The process that was started: the worker, or its supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new client.
    pub fn client(&self) -> Client {
        find(&self.shm, SOON).unwrap_or_else(|failure| panic!("{failure}; log: {}", self.log()))
    }

    /// What the segment says.
    pub fn report(&self) -> Report {
        Report::of(&look(&self.shm).unwrap())
    }

    /// Waits until a counter stands there: an answer is counted once it has been told.
    pub fn counts(&self, name: &str, expected: u64) {
        let total = || self.report().totals[name].as_u64().unwrap();
        until_true(&format!("{expected} as the count of {name}, not {}", total()), || total() >= expected);
        assert_eq!(total(), expected, "{name}");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Stops it, and until each of its threads stands still: kill() returns before they have.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        until_true("all of the worker's threads stand still", || all_stopped(self.pid()));
    }

    /// Sends it a signal unless it has ended.
    pub fn signal_if_there(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal); // not waited for yet, so the pid is its own
    }

    /// How it ended, if it has.
    pub fn ended_by_now(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// How it ended, once it does.
    pub fn ended(&mut self) -> ExitStatus {
        until("the end of the worker", || self.ended_by_now())
    }

    /// The socket's path, unless `--socket` was given otherwise.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("w.sock")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.shm, self.log());
        }
        // A supervisor's worker is not this process's child: its pid is in the segment.
        let supervised = address(&self.shm).look(Duration::from_millis(50)).ok().filter(Segment::is_alive);
        let supervised =
            supervised.map(|segment| segment.header.worker_pid).filter(|pid| parent_of(*pid) == Some(self.child.id()));
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(pid) = supervised {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        if nameless() || (supervised.is_none() && molt_ipc_shm::segment::is_locked(&self.shm)) {
            return; // the name is a successor's now
        }
        for name in names_of(&self.shm) {
            let _ = std::fs::remove_file(Path::new(SHM_DIR).join(name));
        }
    }
}

/// Whether a process has threads, and all of them are stopped.
pub fn all_stopped(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let states: Vec<_> = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok()).collect();
    // The state follows the name, which stands in parentheses and may hold anything.
    let stopped = |stat: &String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
    !states.is_empty() && states.iter().all(stopped)
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
