//! Native entries for the worker's tests: each does what a test tells it to, and says in files how far it came.
//!
//! A test learns that an entry runs from its `mark` file and lets it go on by making its `gate` file, so no test has to
//! guess how long something takes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use molt_entry::{Ctx, EntryError, Outcome, Payload, Raw, json};
use serde::{Deserialize, Serialize};

molt_entry::export! {
    "trial_hold" => hold,
    "trial_wait" => wait,
    "trial_panic" => panic,
    "trial_overflow" => overflow,
    "trial_big" => big,
    "trial_fail" => fail,
    "trial_params" => params,
    "trial_payload" => payload,
    "trial_turn" => turn,
}

/// How often a file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(1);

#[derive(Deserialize)]
struct Hold {
    /// Written when the entry begins.
    mark: Option<PathBuf>,
    /// The entry ends when this exists.
    gate: PathBuf,
    /// Answered.
    answer: Option<String>,
}

/// Runs until the gate opens, whatever its caller or its deadline say: code that never asks.
fn hold(hold: Hold, _: &Ctx) -> Result<String, EntryError> {
    leave_mark(hold.mark.as_deref(), "started")?;
    while !hold.gate.exists() {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(hold.answer.unwrap_or_else(|| "held".into()))
}

#[derive(Deserialize)]
struct Wait {
    /// Written when the entry begins, and again when it ends: "started", then "cancelled" or "timeout".
    mark: PathBuf,
}

/// Runs until its context says that nobody waits any more.
fn wait(wait: Wait, ctx: &Ctx) -> Result<(), EntryError> {
    leave_mark(Some(&wait.mark), "started")?;
    let ended = loop {
        if let Err(ended) = ctx.checkpoint() {
            break ended;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    leave_mark(Some(&wait.mark), if ended.outcome() == Outcome::Cancelled { "cancelled" } else { "timeout" })?;
    Err(ended)
}

#[derive(Deserialize)]
struct Turn {
    /// How long it takes.
    ms: u64,
}

/// Takes its time, and answers how many have begun before it, itself included.
fn turn(turn: Turn, _: &Ctx) -> Result<u64, EntryError> {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    let number = BEGUN.fetch_add(1, Ordering::Relaxed) + 1;
    std::thread::sleep(Duration::from_millis(turn.ms));
    Ok(number)
}

fn leave_mark(mark: Option<&Path>, text: &str) -> Result<(), EntryError> {
    let Some(mark) = mark else { return Ok(()) };
    // Written beside and moved, so that a test never reads half a word.
    let beside = mark.with_extension("part");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, mark))
        .map_err(|error| EntryError::internal(format!("no mark {}: {error}", mark.display())))
}

#[derive(Deserialize)]
struct Text<'a> {
    text: &'a str,
}

fn panic(text: Text<'_>, _: &Ctx) -> Result<(), EntryError> {
    panic!("{}", text.text)
}

/// Calls itself until the stack ends.
fn overflow(depth: u64, ctx: &Ctx) -> Result<u64, EntryError> {
    // Whatever the optimizer would make of it, each call needs a frame of its own.
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX {
        return Ok(0);
    }
    let below = overflow(depth + 1, ctx)?;
    Ok(below + std::hint::black_box(frame)[0])
}

#[derive(Deserialize)]
struct Big {
    bytes: usize,
}

/// Answers that many bytes.
fn big(big: Big, _: &Ctx) -> Result<Raw<Vec<u8>>, EntryError> {
    Ok(Raw(vec![b'x'; big.bytes]))
}

#[derive(Deserialize)]
struct Fail {
    status: u16,
    message: String,
    index: Option<u32>,
}

/// Fails as told.
fn fail(fail: Fail, _: &Ctx) -> Result<(), EntryError> {
    let error = EntryError::invalid(fail.message).status(fail.status);
    Err(match fail.index {
        Some(index) => error.details(json!({"index": index, "field": "qty"})),
        None => error,
    })
}

#[derive(Deserialize, Serialize)]
struct Vouched {
    tenant: Option<u64>,
    note: Option<String>,
}

/// Answers its params.
fn params(_: serde::de::IgnoredAny, ctx: &Ctx) -> Result<Vouched, EntryError> {
    ctx.params()
}

#[derive(Serialize)]
struct Seen {
    codec: String,
    bytes: usize,
}

/// Takes every codec undecoded, and says what came.
fn payload(payload: Payload<'_>, _: &Ctx) -> Result<Seen, EntryError> {
    Ok(Seen { codec: format!("{:?}", payload.codec).to_lowercase(), bytes: payload.bytes.len() })
}
