//! Stores that no load of this program comes by, each with its reason: any other one that is never passed fails the run, so
//! that nothing falls out of the load unnoticed.

use crate::sites::Failpoint;

/// When it is so.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Always,
    /// With segments that have no name.
    Nameless,
}

struct Unpassed {
    file: &'static str,
    function: &'static str,
    /// How many of the function's failpoints: the others are passed.
    most: usize,
    mode: Mode,
    reason: &'static str,
}

const fn always(file: &'static str, function: &'static str, most: usize, reason: &'static str) -> Unpassed {
    Unpassed { file, function, most, mode: Mode::Always, reason }
}

const fn nameless(file: &'static str, function: &'static str) -> Unpassed {
    Unpassed { file, function, most: usize::MAX, mode: Mode::Nameless, reason: "about names, of which there are none" }
}

const SUPERVISOR: &str = "a supervisor's, which no load here has: engine/tests/supervise.rs, ipc-shm/tests/restart.rs";

const FAILED: &str = "a start that fails half-way: engine/tests/start.rs, ipc-shm/tests/start.rs";

const ALLOWED: &[Unpassed] = &[
    always("supervision.rs", "say", 4, SUPERVISOR),
    always(
        "segment/remains.rs",
        "put_stand_in",
        2,
        "no room even for a stand-in, though the dead worker's has come back",
    ),
    always("segment/remains.rs", "make_way", 2, "a dead worker's segment that is damaged: ipc-shm/tests/segment.rs"),
    always("segment/owned.rs", "retire_dead", 2, SUPERVISOR),
    always(
        "segment/owned.rs",
        "publish_with",
        2,
        "over a name that a supervisor keeps, or a live worker's: ipc-shm/tests/restart.rs, engine/tests/upgrade.rs",
    ),
    always("segment/owned.rs", "create", 2, "swept away by another start in the moment before it is locked"),
    always("segment/owned.rs", "retire", 2, FAILED),
    always("worker/listener.rs", "drop", 2, FAILED),
    always("stats.rs", "show", 6, "the engine's watchdog's: engine/tests/watchdog.rs"),
    always("client/retries.rs", "may_run_again_at", 2, "no store to shared memory: a counter of the process's own"),
    nameless("segment/owned.rs", "create"),
    nameless("segment/owned.rs", "publish_with"),
    nameless("segment/owned.rs", "retire"),
    nameless("segment/owned.rs", "remove_unlocked"),
    nameless("segment/remains.rs", "put_stand_in"),
    nameless("segment/remains.rs", "put_into"),
    nameless("segment/remains.rs", "give_back"),
];

fn matches(allowed: &Unpassed, place: &Failpoint) -> bool {
    place.place() == (allowed.file, allowed.function)
}

/// Of the places that were never passed, the excused ones with their reasons, and the others.
pub fn sorted<'a>(never: &[&'a Failpoint], memfd: bool) -> (Vec<(&'a Failpoint, &'static str)>, Vec<&'a Failpoint>) {
    let (mut excused, mut missing) = (Vec::new(), Vec::new());
    for place in never {
        let holds = |allowed: &&Unpassed| {
            let alike = never.iter().filter(|other| matches(allowed, other)).count();
            matches(allowed, place) && (memfd || allowed.mode == Mode::Always) && alike <= allowed.most
        };
        match ALLOWED.iter().find(holds) {
            Some(allowed) => excused.push((*place, allowed.reason)),
            None => missing.push(*place),
        }
    }
    (excused, missing)
}

/// Reasons for places that the source does not have any more.
pub fn stale(all: &[Failpoint]) -> Vec<String> {
    let gone = |allowed: &&Unpassed| !all.iter().any(|place| matches(allowed, place));
    let told = |allowed: &Unpassed| {
        format!("{} has no store in {} any more: not to be excused", allowed.file, allowed.function)
    };
    ALLOWED.iter().filter(gone).map(told).collect()
}
