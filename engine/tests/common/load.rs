//! Load from client processes: this test program again, calling until it is told to stop, and saying what came back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use molt_ipc_shm::client::Client;
use molt_ipc_shm::{Codec, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{Ask, Line};
use super::{SOON, Worker, find, until_true};

/// Set for this test program when it is to be a client process.
const ROLE: &str = "MOLT_TEST_LOAD";
/// The test that plays it: every test program that makes load has one of this name.
const PLAYER: &str = "load_role";

/// What a client process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Requests that must not run twice: whoever loses one has lost something.
    Once,
    /// Requests that may run twice.
    Idempotent,
    /// As many requests in flight as a channel takes, each of that many milliseconds, for at most so many: whatever comes
    /// back, the next is sent at once.
    Flood {
        /// How long each runs.
        run_ms: u64,
        /// How long each may take.
        timeout_ms: u64,
    },
}

/// What a flood keeps in flight on each of its channels.
pub const FLOOD_DEPTH: usize = 100;

/// What became of the requests of a client process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Answered, and rightly.
    pub right: u64,
    /// Of these, sent a second time.
    pub resent: u64,
    /// Of a flood: turned away.
    pub busy: u64,
    /// Every other end, and how often.
    pub wrong: BTreeMap<String, u64>,
    /// The longest request, milliseconds.
    pub longest_ms: u64,
}

/// A client process under load.
#[derive(Debug)]
pub struct Load {
    process: std::process::Child,
    said: BufReader<ChildStdout>,
}

/// The body of `load_role`: is a client process, if the environment says so.
pub fn play() {
    let Ok(what) = std::env::var(ROLE) else { return };
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let (shm, kind, threads): (String, Kind, usize) = serde_json::from_str(&what).unwrap();
    let client = find(&shm, SOON).unwrap();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let spawn = |thread: usize| {
            scope.spawn({
                let (client, stop, done) = (&client, &stop, &done);
                move || work(client, kind, thread, stop, done)
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        println!("\n> started");
        let mut line = String::new();
        // Each line asks how many are done; the end of the input is the end of the work.
        while std::io::stdin().read_line(&mut line).unwrap_or(0) > 0 {
            println!("\n> {}", done.load(Ordering::Relaxed));
            line.clear();
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("\n> {}", serde_json::to_string(&sum(tallies)).unwrap());
    std::process::exit(0);
}

/// Small bodies, bodies in the arena, and results in the arena, one after the other.
fn work(client: &Client, kind: Kind, thread: usize, stop: &AtomicBool, done: &AtomicU64) -> Tally {
    if let Kind::Flood { run_ms, timeout_ms } = kind {
        return flood(client, run_ms, Duration::from_millis(timeout_ms), stop, done);
    }
    let mut tally = Tally::default();
    for round in thread as u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let body = vec![round as u8; [10, 3_000, 70_000][round as usize % 3]];
        // `echo` may run twice unless its caller says otherwise; these native entries must not.
        let counted = json!({"bytes": body.len()}).to_string();
        let ask = match kind {
            Kind::Idempotent => Ask::of("echo").body(Codec::Raw, &body),
            _ => Ask::of("trial_big").body(Codec::Json, counted.as_bytes()).accept(Codec::Raw),
        };
        let wanted = if kind == Kind::Once { vec![b'x'; body.len()] } else { body.clone() };
        let began = Instant::now();
        let answer = ask.call(client);
        tally.longest_ms = tally.longest_ms.max(began.elapsed().as_millis() as u64);
        match answer.outcome {
            Outcome::Ok if answer.bytes() == wanted => {
                tally.right += 1;
                tally.resent += u64::from(answer.resent);
            }
            Outcome::Ok => *tally.wrong.entry("another answer".into()).or_default() += 1,
            other => *tally.wrong.entry(format!("{}: {}", other.name(), answer.message)).or_default() += 1,
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

fn flood(client: &Client, run_ms: u64, timeout: Duration, stop: &AtomicBool, done: &AtomicU64) -> Tally {
    let (mut line, mut tally) = (Line::open(client), Tally::default());
    let body = json!({ "ms": run_ms }).to_string();
    let ask = Ask::of("trial_turn").body(Codec::Json, body.as_bytes()).timeout(timeout);
    let mut under_way: Vec<u64> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        while under_way.len() < FLOOD_DEPTH {
            under_way.push(line.send(&ask));
        }
        under_way.retain(|id| {
            let Some(answer) = line.look(*id) else { return true };
            match answer.outcome {
                Outcome::Ok => tally.right += 1,
                Outcome::Busy => tally.busy += 1,
                other => *tally.wrong.entry(format!("{}: {}", other.name(), answer.message)).or_default() += 1,
            }
            done.fetch_add(1, Ordering::Relaxed);
            false
        });
        std::thread::yield_now();
    }
    tally
}

fn sum(tallies: Vec<Tally>) -> Tally {
    tallies.into_iter().fold(Tally::default(), |mut sum, one| {
        sum.right += one.right;
        sum.resent += one.resent;
        sum.busy += one.busy;
        sum.longest_ms = sum.longest_ms.max(one.longest_ms);
        one.wrong.into_iter().for_each(|(what, count)| *sum.wrong.entry(what).or_default() += count);
        sum
    })
}

impl Load {
    /// A client process with that many threads, at work.
    pub fn start(worker: &Worker, kind: Kind, threads: usize) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", PLAYER, "--nocapture", "--test-threads=1"])
            .env(ROLE, json!([worker.shm, kind, threads]).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut load = Self { process, said };
        assert_eq!(load.line(), "started");
        load
    }

    /// The same for several processes.
    pub fn of(worker: &Worker, kinds: &[Kind], threads: usize) -> Vec<Self> {
        kinds.iter().map(|kind| Self::start(worker, *kind, threads)).collect()
    }

    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the client process has ended");
            if let Some(said) = line.strip_prefix("> ") {
                return said.trim_end().to_owned();
            }
        }
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }

    /// Requests that have ended.
    pub fn done(&mut self) -> u64 {
        writeln!(self.process.stdin.as_mut().unwrap()).unwrap();
        self.line().parse().unwrap()
    }

    /// Waits until that many more have ended.
    pub fn goes_on(&mut self, more: u64) {
        let wanted = self.done() + more;
        until_true("a client process that goes on", || {
            std::thread::sleep(Duration::from_millis(5)); // it is at work, not at telling
            self.done() >= wanted
        });
    }

    /// Ends the work and says what became of it.
    pub fn end(mut self) -> Tally {
        drop(self.process.stdin.take());
        let tally = serde_json::from_str(&self.line()).unwrap();
        let mut rest = String::new();
        let _ = self.said.read_to_string(&mut rest);
        tally
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every client process goes on.
pub fn all_go_on(loads: &mut [Load], more: u64) {
    loads.iter_mut().for_each(|load| load.goes_on(more));
}

/// Ends all of them and expects that no request was lost.
#[track_caller]
pub fn nothing_was_lost(loads: Vec<Load>) -> Tally {
    let tally = sum(loads.into_iter().map(Load::end).collect());
    assert!(tally.wrong.is_empty() && tally.right > 0, "{tally:?}");
    println!("{} requests, {} of them sent again, longest {} ms", tally.right, tally.resent, tally.longest_ms);
    tally
}
