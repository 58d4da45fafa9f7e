//! Request cells: one outcome a request, and what they say of a dead worker's requests is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loom::thread;
use molt_ipc_shm::cell::{self, CellState};
use molt_ipc_shm::failpoint::killed_at;
use molt_ipc_shm::frame::kind;
use molt_ipc_shm::mapping::SharedMapping;
use molt_ipc_shm::ring::{Consumer, Producer, RingPlace};

use super::model::{GEOMETRY, Places, explore, explore_deaths, frame, take, take_kind};

const ID: u64 = 7;

fn cell_of(map: &SharedMapping) -> &molt_ipc_shm::word::Word64 {
    map.u64(GEOMETRY.cell(0, 0))
}

fn submit(map: &SharedMapping, requests: &mut Producer, id: u64) {
    let room = requests.reserve(16, 0).expect("a correct peer").expect("an empty ring");
    cell::submit(cell_of(map), id, room, &[&frame(kind::REQUEST, id, 16)]);
}

#[test]
fn who_sees_the_frame_finds_the_request_queued() {
    explore(None, || {
        let map = Places::default().channel(0).map();
        let mut requests = Producer::new(map.clone(), RingPlace::of_requests(&GEOMETRY, 0));
        let mut taking = Consumer::new(map.clone(), RingPlace::of_requests(&GEOMETRY, 0));
        let worker = {
            let map = map.clone();
            thread::spawn(move || {
                if let Some(id) = take(&mut taking) {
                    assert!(cell::begin(cell_of(&map), id), "nobody has taken it back");
                }
            })
        };
        submit(&map, &mut requests, ID);
        worker.join().expect("the worker");
    });
}

/// The caller takes the request back while the worker begins and ends it.
#[test]
fn a_request_has_one_outcome() {
    explore(None, || {
        let map = Places::default().channel(0).map();
        cell::queue(cell_of(&map), ID);
        let worker = {
            let map = map.clone();
            thread::spawn(move || {
                let ran = cell::begin(cell_of(&map), ID);
                (ran, cell::finish(cell_of(&map), ID))
            })
        };
        let cancelled = cell::cancel(cell_of(&map), ID);
        if cancelled.is_none() {
            assert_eq!(cell::state(cell_of(&map), ID), Some(CellState::Done), "too late means ended");
        }
        match (cancelled, worker.join().expect("the worker")) {
            (None, (true, true)) | (Some(CellState::Queued), (false, false)) => {}
            (Some(CellState::Running), (true, false)) => {}
            other => panic!("told {other:?}"),
        }
    });
}

/// The same for a request that the worker refuses without beginning it.
#[test]
fn a_refused_request_has_one_outcome() {
    explore(None, || {
        let map = Places::default().channel(0).map();
        cell::queue(cell_of(&map), ID);
        let worker = {
            let map = map.clone();
            thread::spawn(move || cell::finish(cell_of(&map), ID))
        };
        let cancelled = cell::cancel(cell_of(&map), ID);
        match (cancelled, worker.join().expect("the worker")) {
            (None, true) | (Some(CellState::Queued), false) => {}
            other => panic!("told {other:?}"),
        }
    });
}

/// A thread that still asks about an answered request is not told of its cell's next one.
#[test]
fn a_late_look_sees_its_own_request_only() {
    explore(None, || {
        let map = Places::default().channel(0).map();
        cell::queue(cell_of(&map), ID);
        assert!(cell::begin(cell_of(&map), ID) && cell::finish(cell_of(&map), ID));
        let late = {
            let map = map.clone();
            thread::spawn(move || {
                let state = cell::state(cell_of(&map), ID);
                assert!(matches!(state, Some(CellState::Done) | None), "not cancelled: {state:?}");
                assert!(!cell::advance(cell_of(&map), ID, CellState::Queued, CellState::Running));
            })
        };
        cell::release(cell_of(&map));
        cell::queue(cell_of(&map), ID + 1);
        assert_eq!(cell::cancel(cell_of(&map), ID + 1), Some(CellState::Queued), "nobody else moves it");
        late.join().expect("the late one");
    });
}

/// A worker that dies anywhere: its client reads what was answered, and otherwise its cell. Queued means never ran.
#[test]
fn a_dead_workers_cell_says_whether_the_request_may_have_run() {
    explore_deaths(None, |place| {
        let map = Places::default().channel(0).map();
        let (requests, responses) = (RingPlace::of_requests(&GEOMETRY, 0), RingPlace::of_responses(&GEOMETRY, 0));
        let mut asking = Producer::new(map.clone(), requests);
        let mut hearing = Consumer::new(map.clone(), responses);
        let ran = Arc::new(AtomicBool::new(false));
        let worker = {
            let (map, ran) = (map.clone(), ran.clone());
            thread::spawn(move || {
                let (mut taking, mut answering) =
                    (Consumer::new(map.clone(), requests), Producer::new(map.clone(), responses));
                let steps = || {
                    let Some(id) = take(&mut taking) else { return };
                    if cell::begin(cell_of(&map), id) {
                        ran.store(true, Ordering::Relaxed);
                    }
                    let told = u64::from(cell::finish(cell_of(&map), id));
                    let room = answering.reserve(16, 0).expect("a correct peer").expect("an empty ring");
                    room.commit(&[&frame(kind::RESPONSE, told, 16)]);
                };
                killed_at(place, steps).is_none()
            })
        };
        submit(&map, &mut asking, ID);
        let early = take_kind(&mut hearing, kind::RESPONSE);
        let killed = worker.join().expect("the worker"); // its end of the doorbell is closed now
        let answer = early.or_else(|| take_kind(&mut hearing, kind::RESPONSE));
        let ran = ran.load(Ordering::Relaxed);
        match answer {
            Some(told) => assert!(told == 1 && ran, "answered means ran and finished: nobody took it back"),
            None if cell::cancel(cell_of(&map), ID) == Some(CellState::Queued) => {
                assert!(!ran, "queued means never ran")
            }
            None => assert!(killed, "a live worker answers what it took"),
        }
        killed
    });
}
