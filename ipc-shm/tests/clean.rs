//! Cleaning up after dead workers. In a binary of its own: it takes every dead worker's object, those of other tests too.

mod common;

use common::Names;
use common::child;
use common::worker::spawn;
use molt_ipc_shm::segment;

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role)]);
}

#[test]
fn cleaning_removes_the_dead_and_keeps_the_living() {
    let names = [Names::new(), Names::new()];
    let (mut dead, alive) = (spawn(&names[0]), spawn(&names[1]));
    dead.kill();
    alive.stop();
    let removed = segment::remove_dead();
    assert!(removed.contains(&names[0].shm) && !removed.contains(&names[1].shm), "{removed:?}");
    assert_eq!((names[0].objects().len(), names[1].objects().len()), (0, 1));
}
