//! Who may change a name.

mod common;

use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use common::child;
use common::worker::{blueprint, spawn};
use common::{Names, address, small};
use molt_ipc_shm::segment::{self, Claim, OwnedSegment, Segment, SegmentError};
use molt_ipc_shm::{LastEnd, Supervised, Supervision};

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role)]);
}

fn create(names: &Names) -> OwnedSegment {
    OwnedSegment::create(&names.shm, &blueprint(names.socket.clone(), small())).expect("a segment")
}

fn instance_of(names: &Names) -> u64 {
    Segment::open(&names.shm).expect("a segment").header.instance
}

/// A worker looks whether the name is still its own, and removes it: in between, nobody may put another segment there.
#[test]
fn a_name_is_not_taken_over_between_the_look_and_the_unlink() {
    let names = Names::new();
    let (mut old, mut new) = (create(&names), create(&names));
    old.publish(false).expect("a free name");
    let instance = new.segment.header.instance;
    let (published, told) = mpsc::channel();
    let taking = Mutex::new(None);
    old.retire(|| {
        let publish = move || {
            new.publish(true).expect("the name");
            published.send(()).expect("a test that listens");
            new
        };
        *taking.lock().expect("a lock") = Some(std::thread::spawn(publish));
        // The look is over, the unlink is to come. Whoever waits for longer than this waits for the lock.
        assert!(
            told.recv_timeout(Duration::from_millis(300)).is_err(),
            "the name changed under the worker that leaves"
        );
    });
    let taking: JoinHandle<OwnedSegment> = taking.into_inner().expect("a lock").expect("a thread");
    let new = taking.join().expect("a successor");
    assert_eq!(instance_of(&names), instance, "the successor's name was unlinked");
    drop(new);
    assert_eq!(names.objects(), [] as [&str; 0]);
}

/// Socket and name change together: a worker that leaves while its successor has the one and not yet the other removes
/// neither.
#[test]
fn a_worker_that_leaves_waits_until_its_successor_has_both_name_and_socket() {
    let names = Names::new();
    let (mut old, mut new) = (create(&names), create(&names));
    old.publish(false).expect("a free name");
    std::fs::write(&names.socket, "the old one's").expect("a file");
    let socket = names.socket.clone();
    let (left, told) = mpsc::channel();
    let mut leaving = None;
    let former = new
        .publish_with::<SegmentError>(Claim::Anybodys, |former| {
            assert!(former.is_some(), "the old one lives");
            leaving = Some(std::thread::spawn(move || {
                // As a listener does: it looks whose socket lies there, and removes its own.
                old.retire(|| {
                    if std::fs::read(&socket).is_ok_and(|text| text == b"the old one's") {
                        std::fs::remove_file(&socket).expect("its socket");
                    }
                });
                left.send(()).expect("a test that listens");
            }));
            assert!(told.recv_timeout(Duration::from_millis(300)).is_err(), "it left in between");
            std::fs::write(&names.socket, "the new one's").expect("a file");
            Ok(())
        })
        .expect("the name");
    assert!(former.is_some());
    leaving.expect("a thread").join().expect("the old one");
    assert_eq!(instance_of(&names), new.segment.header.instance);
    assert_eq!(std::fs::read_to_string(&names.socket).expect("a file"), "the new one's");
}

/// Fault 57: a dead worker's name is anybody's, unless somebody starts that worker again.
#[test]
fn the_name_of_a_dead_worker_waits_for_the_supervisor_that_starts_it_again() {
    let names = Names::new();
    let mut worker = spawn(&names);
    let supervised = Supervised::of_child(&address(&names.shm), worker.pid()).expect("its segment");
    let said = Supervision {
        pid: 4711,
        restarts: 3,
        in_a_row: 2,
        last_end: Some((LastEnd::Signal(9), 1)),
        next_start_ns: Some(u64::MAX / 2),
    };
    supervised.say(&said);
    worker.kill();
    let dead = Segment::open(&names.shm).expect("its segment");
    assert!(!dead.is_alive() && dead.is_supervised());
    assert_eq!(dead.supervision(), said, "what is said is read as it was said");
    for word in ["supervisor pid 4711", "restarted 3 times", "killed by SIGKILL", "2 times in a row", "next start in"] {
        assert!(dead.supervision().to_string().contains(word), "{word}: {}", dead.supervision());
    }
    segment::remove_dead();
    assert!(names.path().exists(), "cleaning takes it from nobody");
    match create(&names).publish(false) {
        Err(SegmentError::Supervised { pid: 4711, .. }) => {}
        other => panic!("{other:?}"),
    }
    drop(supervised);
    assert!(!dead.is_supervised(), "the kernel says that the supervisor is gone");
    create(&names).publish(false).expect("a name that nobody waits for");
}
