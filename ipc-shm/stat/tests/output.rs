//! What the tool prints where no terminal is.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use common::worker::{ThreadWorker, spawn};
use common::{Names, PATIENCE, child};
use molt_ipc_shm::stats;

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role)]);
}

/// The tool with that for its output.
fn tool(args: &[&str], out: impl Into<Stdio>) -> Output {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_molt-shm-stat"));
    tool.args(args).stdout(out).stderr(Stdio::piped()).output().expect("the tool")
}

/// How the tests' worker is named to the tool.
fn named(names: &Names) -> Vec<&str> {
    if common::nameless() { vec!["--socket", &names.shm] } else { vec![&names.shm] }
}

/// `molt-shm-stat | head`: who reads no more has seen enough.
#[test]
fn an_output_that_nobody_reads_ends_it_quietly() {
    let worker = ThreadWorker::start();
    let named = named(&worker.names);
    for args in [vec![], vec!["--json"], vec!["--prometheus"], vec!["--watch"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = tool(&[named.clone(), args.clone()].concat(), writer);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && said.is_empty(), "{args:?}: {}: {said}", ended.status);
    }
    for args in [vec![], vec!["doctor"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let said = tool(&args, writer).stderr;
        assert!(said.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&said));
    }
}

/// Whatever an entry is called, each line is one that a scraper can read.
#[test]
fn a_name_with_quotes_is_escaped_for_prometheus() {
    let worker = ThreadWorker::start();
    let segment = &worker.host.segment;
    stats::name_entry(&segment.map, &segment.geometry, 1, "a \"b\" \\ c\nmolt_up 0", 0, false);
    let said = tool(&[named(&worker.names), vec!["--prometheus"]].concat(), Stdio::piped()).stdout;
    let said = String::from_utf8(said).expect("text");
    let calls = format!(
        r#"molt_entry_calls_total{{segment="{}",entry="a \"b\" \\ c\nmolt_up 0"}} 0"#,
        worker.host.segment.name
    );
    assert!(said.lines().any(|line| line == calls), "{calls} is not in {said}");
    assert!(said.lines().all(|line| line != "molt_up 0"), "{said}");
}

/// A full disk is not `head`.
#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let worker = ThreadWorker::start();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("the device");
    let ended = tool(&named(&worker.names), full);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains("cannot be written"), "{}: {said}", ended.status);
}

/// `--watch` into a log: blocks of lines, nothing that steers a terminal, and no end when the worker has one.
#[test]
fn a_log_goes_on_when_the_worker_dies_and_when_the_next_one_comes() {
    let names = Names::new();
    let mut worker = spawn(&names);
    let mut tool = Command::new(env!("CARGO_BIN_EXE_molt-shm-stat"))
        .args(named(&names))
        .args(["--watch", "--interval", "0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tool");
    let (say, said) = mpsc::channel();
    let lines = BufReader::new(tool.stdout.take().expect("its output")).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
    let until = |words: &[&str]| {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = said.recv_timeout(left).unwrap_or_else(|error| panic!("{error}: it never said {words:?}"));
            assert!(!line.contains('\x1b'), "{line:?}");
            if words.iter().all(|word| line.contains(word)) {
                return;
            }
        }
    };
    until(&["worker", "serving", &worker.pid().to_string()]);
    worker.kill();
    // Without a name and with no process that holds it, the memory is gone with its worker.
    until(if common::nameless() { &["no worker can be reached"] } else { &["worker", "dead"] });
    let next = spawn(&names);
    until(&["worker", "serving", &next.pid().to_string()]);
    tool.kill().expect("the tool");
    tool.wait().expect("its end");
}
