//! What the transport's tests share: names that nobody else has, conditions with a deadline, a worker, a child process.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod child;
pub mod echo;
pub mod raw;
pub mod tables;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use molt_ipc_shm::Address;
use molt_ipc_shm::client::{Called, Channel, Client, Failure, Payload, Reply, Request};
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::mapping::{Mapping, SharedMapping};

/// Longer than anything that works takes, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Whether these tests run with segments that have no name: `MOLT_TEST_SEGMENT=memfd`.
pub fn nameless() -> bool {
    std::env::var("MOLT_TEST_SEGMENT").is_ok_and(|kind| kind == "memfd")
}

/// Where a worker of these tests is found. Only a path has a second slash.
pub fn address(shm: &str) -> Address {
    match shm[1..].contains('/') {
        true => Address::Socket(shm.into()),
        false => Address::Name { shm: shm.into(), socket: None },
    }
}

/// A segment name and a socket path of this test alone; what is left of both goes when it is dropped.
#[derive(Debug)]
pub struct Names {
    /// The segment's name; the socket's path where segments have none.
    pub shm: String,
    pub socket: PathBuf,
    folder: tempfile::TempDir,
}

impl Names {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("molt").tempdir().expect("a temporary folder");
        let socket = folder.path().join("s");
        let shm = match nameless() {
            true => socket.to_str().expect("a plain path").to_owned(),
            false => format!("/molt-test-{}-{count}", std::process::id()),
        };
        Self { shm, socket, folder }
    }

    /// Where the object lies.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm{}", self.shm))
    }

    /// A file beside the socket.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything in /dev/shm whose name begins with this one.
    pub fn objects(&self) -> Vec<String> {
        let own = &self.shm[1..];
        let all = std::fs::read_dir("/dev/shm").expect("/dev/shm").flatten();
        let names = all.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name == own || name.starts_with(&format!("{own}."))).collect()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for name in self.objects() {
            let path = PathBuf::from("/dev/shm").join(name);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
    }
}

/// Asks until the answer is yes; fails the test when it never is.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(within(PATIENCE, &mut holds), "never within {PATIENCE:?}: {what}");
}

/// Asks until the answer is yes or the time is over.
pub fn within(longest: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + longest;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sizes that are quick to reserve: 8 sessions, 16 channels, 128 extents of 256 KiB.
pub fn small() -> Geometry {
    Geometry { sessions: 8, channels: 16, leases_per_session: 64, entries: 4, ..Geometry::for_arena(32 << 20) }
}

/// Shared bytes without a name.
pub fn bytes(len: usize) -> SharedMapping {
    let file = tempfile::tempfile_in("/dev/shm").expect("a file in /dev/shm");
    file.set_len(len as u64).expect("its size");
    Arc::new(Mapping::new(&file).expect("a mapping"))
}

/// The same, of a file that a child can map too.
pub fn bytes_of(path: &std::path::Path, len: usize) -> SharedMapping {
    let file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("open");
    file.set_len(len as u64).expect("its size");
    Arc::new(Mapping::new(&file).expect("a mapping"))
}

/// A request with bytes.
pub fn request<'a>(entry: &'a str, payload: &'a [u8]) -> Request<'a> {
    Request {
        entry: entry.as_bytes(),
        params: &[],
        payload: Payload::Bytes(payload),
        codec: 3,
        accept: 0,
        idempotent: Some(false),
        resend: true,
        timeout: Some(PATIENCE),
        fallback_timeout: PATIENCE,
        trace: None,
    }
}

/// Submits and waits for room through interruptions.
pub fn submit(channel: &mut Channel, request: &Request<'_>, deadline_ns: u64) -> Result<u64, Failure> {
    loop {
        if let Some(id) = channel.submit_within(request, deadline_ns)? {
            return Ok(id);
        }
    }
}

/// Calls and waits on through interruptions.
pub fn call(client: &Client, request: &Request<'_>) -> Result<Reply, Failure> {
    let mut called = client.call(request)?;
    loop {
        match called {
            Called::Reply(reply, _) => return Ok(reply),
            Called::Interrupted(pending) => called = client.resume(pending)?,
        }
    }
}

/// Bytes that differ by seed and place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at * 31) >> 3) as u8).collect()
}

/// Descriptors that a process has open.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The same once they have come to rest: a connection that only looked, or a probe, is closed a moment after it was used.
pub fn descriptors_at_rest(pid: u32) -> usize {
    let (mut count, mut since) = (descriptors(pid), Instant::now());
    until("descriptors come to rest", || {
        let now = descriptors(pid);
        if now != count {
            (count, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300) // three times as long as the worker ever sleeps
    });
    count
}

/// So many cases, and no file left behind by a failure: the message has the smallest input.
pub fn cases(cases: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config { cases, failure_persistence: None, ..Default::default() }
}
