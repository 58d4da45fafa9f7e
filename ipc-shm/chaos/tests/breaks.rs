//! The harness can fail: each violation that is planted is found, and named.

use std::process::Command;

fn broken(what: &str, said: &str) {
    let run = Command::new(env!("CARGO_BIN_EXE_molt-chaos"))
        .args(["random", "--kills", "12", "--round", "6", "--lanes", "1", "--seed", "3", "--break", what])
        .env("MOLT_CHAOS_PATIENCE_MS", "4000")
        .output()
        .expect("the program");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(
        !run.status.success() && text.contains(said),
        "--break {what}: {text}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn a_block_that_is_never_given_back_is_found() {
    broken("leak", "not at the baseline");
}

#[test]
fn a_descriptor_that_is_never_closed_is_found() {
    broken("descriptor", "not at the baseline");
}

#[test]
fn a_request_that_runs_twice_is_found() {
    broken("double", "it ran 2 times, at most 1 are allowed");
}

#[test]
fn a_request_without_an_outcome_is_found() {
    broken("lose", "it never ended");
}

#[test]
fn a_wrong_byte_in_an_answer_is_found() {
    broken("garble", "byte 0 differs");
}

#[test]
fn a_name_that_is_left_is_found() {
    broken("name", "names are left in /dev/shm");
}
