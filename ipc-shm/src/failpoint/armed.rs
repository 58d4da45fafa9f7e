//! Failpoints as tests have them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use nix::sys::signal::{Signal, raise};

use super::Moment;

impl Moment {
    /// The word at the end of a failpoint's name.
    pub fn name(self) -> &'static str {
        match self {
            Moment::Before => "before",
            Moment::Halfway => "halfway",
            Moment::After => "after",
        }
    }
}

/// What the environment asks for.
struct Plan {
    trap: Option<Trap>,
    seen: Option<Seen>,
}

struct Trap {
    name: String,
    /// The line in the name: told apart by it first, since every store of the process comes by.
    line: u32,
    at: u64,
    signal: Signal,
    passed: AtomicU64,
}

struct Seen {
    file: File,
    passed: Mutex<HashMap<(&'static str, u32, u32, Moment), u64>>,
}

impl Plan {
    fn of_environment() -> Self {
        let trap = std::env::var("MOLT_FAILPOINT").ok().map(|text| {
            Trap::parse(&text).unwrap_or_else(|| panic!("MOLT_FAILPOINT={text:?} is not NAME#N=kill or NAME#N=stop"))
        });
        let seen = std::env::var_os("MOLT_FAILPOINTS_SEEN").map(|path| Seen {
            file: OpenOptions::new().create(true).append(true).open(&path).expect("a file for the names"),
            passed: Mutex::default(),
        });
        Self { trap, seen }
    }
}

impl Trap {
    fn parse(text: &str) -> Option<Self> {
        let (place, action) = text.rsplit_once('=')?;
        let (name, at) = place.rsplit_once('#')?;
        let signal = match action {
            "kill" => Signal::SIGKILL,
            "stop" => Signal::SIGSTOP,
            _ => return None,
        };
        let line = name.split(':').nth(1)?.parse().ok()?;
        Some(Self { name: name.into(), line, at: at.parse().ok()?, signal, passed: AtomicU64::new(0) })
    }
}

fn name_of(place: &Location<'_>, moment: Moment) -> String {
    let file = place.file().rsplit_once("src/").map_or(place.file(), |(_, file)| file);
    format!("{file}:{}:{}/{}", place.line(), place.column(), moment.name())
}

/// The process comes by the place from which this was called.
#[track_caller]
pub fn pass(moment: Moment) {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    let place = Location::caller();
    let plan = PLAN.get_or_init(Plan::of_environment);
    if let Some(seen) = &plan.seen {
        let key = (place.file(), place.line(), place.column(), moment);
        let mut passed = seen.passed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let count = passed.entry(key).or_default();
        *count += 1;
        if count.is_power_of_two() {
            // One write to an appended file: whole lines, whatever process they come from.
            let _ = (&seen.file).write_all(format!("{}#{count}\n", name_of(place, moment)).as_bytes());
        }
    }
    if let Some(trap) = &plan.trap
        && trap.line == place.line()
        && trap.name == name_of(place, moment)
        && trap.passed.fetch_add(1, Ordering::Relaxed) + 1 == trap.at
    {
        let _ = raise(trap.signal);
    }
}

/// Where a copy of many bytes is interrupted.
pub fn half(len: usize) -> usize {
    len / 2
}
