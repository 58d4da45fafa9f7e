//! What the tool prints where no terminal is.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

use common::worker::ThreadWorker;

/// The tool with that for its output.
fn tool(args: &[&str], out: impl Into<Stdio>) -> Output {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_molt-shm-stat"));
    tool.args(args).stdout(out).stderr(Stdio::piped()).output().expect("the tool")
}

/// How the tests' worker is named to the tool.
fn named(worker: &ThreadWorker) -> Vec<&str> {
    if common::nameless() { vec!["--socket", &worker.names.shm] } else { vec![&worker.names.shm] }
}

/// `molt-shm-stat | head`: who reads no more has seen enough.
#[test]
fn an_output_that_nobody_reads_ends_it_quietly() {
    let worker = ThreadWorker::start();
    let named = named(&worker);
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

/// A full disk is not `head`.
#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let worker = ThreadWorker::start();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("the device");
    let ended = tool(&named(&worker), full);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains("cannot be written"), "{}: {said}", ended.status);
}
