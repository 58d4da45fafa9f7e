//! Cleaning up after dead workers. In a binary of its own: it takes every dead worker's object, those of other tests too.

mod common;

use std::sync::Mutex;

use common::child;
use common::worker::{blueprint, create, spawn};
use common::{Names, small};
use molt_ipc_shm::segment;

/// Cleaning takes what the other test has left, too.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role)]);
}

/// Fault 57.
#[test]
fn cleaning_removes_the_dead_and_keeps_the_living() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let names = [Names::new(), Names::new()];
    let (mut dead, alive) = (spawn(&names[0]), spawn(&names[1]));
    dead.kill();
    alive.stop();
    let removed = segment::remove_dead();
    assert!(removed.contains(&names[0].shm) && !removed.contains(&names[1].shm), "{removed:?}");
    assert_eq!((names[0].objects().len(), names[1].objects().len()), (0, 1));
}

/// Fault 57: a start that was killed with its pages reserved and no header written; others that look like one stay.
#[test]
fn cleaning_removes_what_killed_starts_have_not_finished() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let names = Names::new();
    // A start of that name that is under way keeps what it has made.
    let alive = create(&names.shm, &blueprint(names.socket.clone(), small())).expect("a segment");
    let left = [".0000000000000001.new", ".00000000deadbeef.new"];
    let others = [".new", ".beef.new", ".0000000000000001.old", ".000000000000000g.new"];
    for ending in left.iter().chain(&others) {
        let file = std::fs::File::create(format!("{}{ending}", names.path().display())).expect("an object");
        nix::fcntl::posix_fallocate(&file, 0, 1 << 20).expect("its pages");
    }
    let left = left.map(|ending| format!("{}{ending}", names.shm));
    let unfinished = segment::unfinished();
    assert!(left.iter().all(|name| unfinished.contains(&(name.clone(), 1 << 20))), "{unfinished:?}");
    let own = |name: &&(String, u64)| name.0.starts_with(&names.shm);
    assert_eq!(unfinished.iter().filter(own).count(), left.len(), "{unfinished:?}");
    let removed = segment::remove_dead();
    assert!(left.iter().all(|name| removed.contains(name)), "{removed:?}");
    assert_eq!(names.objects().len(), others.len() + 1, "{:?}", names.objects());
    drop(alive);
}
