//! `--watch` on a real terminal, at workers that serve, hang, die and come back.

#[path = "../../tests/common/mod.rs"]
mod common;
mod pty;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::child::{self, Child};
use common::echo::Echo;
use common::worker::{attach, blueprint, listening};
use common::{Names, call, request, small, until, within};
use molt_ipc_shm::client::Request;
use molt_ipc_shm::stats;
use molt_ipc_shm::worker::{Host, Inflight, Service, Stop};
use nix::sys::signal::Signal;
use pty::Terminal;

#[test]
fn child_role() {
    child::play(&[("worker", serve)]);
}

/// The tests' worker, which counts its runs as the product's does.
struct Counting {
    echo: Echo,
    host: Arc<Host>,
}

impl Service for Counting {
    fn serve(&self, request: Inflight) {
        let (began, counts) = (Instant::now(), request.entry() == "echo");
        self.echo.serve(request);
        if counts {
            let (map, geometry) = (&self.host.segment.map, &self.host.segment.geometry);
            stats::record_run(map, geometry, 0, began.elapsed().as_nanos() as u64);
        }
    }

    fn cancelled(&self, channel: u32) {
        self.echo.cancelled(channel);
    }
}

fn serve(words: &[String]) {
    let plan = blueprint(words[1].clone().into(), small());
    let mut poller = listening(&words[0], &plan, false).expect("a worker");
    let service = Counting { echo: Echo::new(), host: poller.host().clone() };
    child::say("serving");
    poller.run(&service, &Stop::default(), Duration::from_millis(200)).expect("the poller");
}

fn worker(names: &Names) -> Child {
    let mut child = Child::start(&["worker", &names.shm, names.socket.to_str().expect("a plain path")]);
    assert_eq!(child.line(), "serving");
    child
}

/// The view, five times a second.
fn watch(names: &Names) -> Terminal {
    let named = if common::nameless() { vec!["--socket", &names.shm] } else { vec![&names.shm[..]] };
    let args = [&named[..], &["--watch", "--interval", "0.2"]].concat();
    Terminal::run(env!("CARGO_BIN_EXE_molt-shm-stat"), &args, &[])
}

#[track_caller]
fn shows(view: &Terminal, words: &[&str]) {
    // A sentence may be broken anywhere: where depends on how long names and numbers are.
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let all = || {
        let (text, unbroken) = (view.text(), flat(&view.text()));
        words.iter().all(|word| text.contains(word) || unbroken.contains(&flat(word)))
    };
    assert!(within(common::PATIENCE, all), "never on one screen: {words:?}; it says\n{}", view.text());
}

/// The words of the line that begins like this.
fn line(view: &Terminal, first: &str) -> Vec<String> {
    let text = view.text();
    let found = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    found.into_iter().find(|words| words.first().is_some_and(|word| word == first)).unwrap_or_default()
}

/// Calls without pause until dropped, whatever becomes of the worker.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(names: &Names) -> Self {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), attach(names));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if call(&client, &request("echo", b"load")).is_err() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_worker_is_watched_while_it_serves_hangs_dies_and_comes_back() {
    let names = Names::new();
    let mut first = worker(&names);
    let mut view = watch(&names);
    let load = Load::on(&names);
    let pid = |worker: &Child| format!("pid {}", worker.pid());
    shows(&view, &["● serving", &pid(&first), "all is well", "Entries", "since start"]);
    assert!(view.is_taken());
    until("the entry's rate and percentiles are shown", || {
        let words = line(&view, "echo");
        let rate = words.get(1).and_then(|rate| rate.trim_end_matches('k').parse::<f64>().ok());
        rate.is_some_and(|rate| rate > 0.0) && words.len() == 10 && !words.contains(&"–".to_owned())
    });

    // It changes nothing in what it looks at: the segment is mapped for reading alone.
    let mapped = if common::nameless() { "/memfd:molt" } else { &names.shm };
    until("the segment is mapped once, for reading", || {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", view.pid())).expect("its mappings");
        let rights: Vec<String> = maps
            .lines()
            .filter(|line| line.contains(mapped))
            .map(|line| line.split_whitespace().nth(1).unwrap_or_default().to_owned())
            .collect();
        !rights.is_empty() && rights.iter().all(|rights| rights == "r--s")
    });

    // A request that is not answered, with its age; then pages.
    let client = attach(&names);
    let held = std::thread::spawn(move || {
        let patient = Request { timeout: Some(common::PATIENCE * 10), ..request("keep", b"") };
        call(&client, &patient).is_ok()
    });
    view.press(b"4");
    shows(&view, &["[4 Requests]", "running keep", &std::process::id().to_string(), " in "]);
    view.press(b"3");
    shows(&view, &["[3 Channels]", "answer ring", "rings of 32KiB"]);
    view.press(b"\t");
    shows(&view, &["[4 Requests]", "running keep"]);

    // Stopped, it cannot answer; the view goes on.
    first.stop();
    shows(&view, &["DOES NOT ANSWER", "is stopped by a signal", "kill -CONT"]);
    let age = || view.text().lines().find(|line| line.contains("running keep")).map(str::to_owned);
    let before = age();
    assert!(before.is_some());
    until("the request grows older on the screen", || age().is_some_and(|age| Some(age) != before));

    first.kill();
    shows(&view, &["● DEAD", &pid(&first), "Waiting for the next one"]);
    assert!(!held.join().expect("the caller"), "nobody answered it");

    let second = worker(&names);
    shows(&view, &["● serving", &pid(&second), "all is well"]);
    view.press(b"1");
    until("the load goes on at the new one", || line(&view, "echo").get(1).is_some_and(|rate| rate != "0"));
    view.press(b"p");
    shows(&view, &["PAUSED"]);
    view.press(b"?");
    shows(&view, &["Help", "the worker is asked nothing"]);
    drop(load);

    view.press(b"q");
    until("it ends", || view.ended().is_some());
    assert!(view.ended().is_some_and(|status| status.success()));
    until("the terminal is as it was", || view.is_restored());
}

#[test]
fn every_way_to_end_it_gives_the_terminal_back() {
    let names = Names::new();
    let _worker = worker(&names);
    type Way = (&'static str, fn(&mut Terminal), i32);
    let ways: [Way; 5] = [
        ("Esc", |view| view.press(b"\x1b"), 0),
        ("Ctrl-C", |view| view.press(b"\x03"), 0),
        ("SIGTERM", |view| view.signal(Signal::SIGTERM), 128 + 15),
        ("SIGINT", |view| view.signal(Signal::SIGINT), 128 + 2),
        ("SIGHUP", |view| view.signal(Signal::SIGHUP), 128 + 1),
    ];
    for (way, end, code) in ways {
        let mut view = watch(&names);
        shows(&view, &["● serving"]);
        assert!(view.is_taken(), "{way}");
        end(&mut view);
        until(way, || view.ended().is_some());
        assert_eq!(view.ended().and_then(|status| status.code()), Some(code), "{way}");
        until(way, || view.is_restored());
    }
}

#[test]
fn it_may_be_started_before_its_worker() {
    let names = Names::new();
    let view = watch(&names);
    shows(&view, &["no worker is found", &names.shm, "hint: start one with"]);
    let worker = worker(&names);
    shows(&view, &["● serving", &format!("pid {}", worker.pid())]);
}
