//! Request cells: every step, and the race between the end of a request and its caller.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};

use molt_ipc_shm::cell::{CellState, ID_MASK, advance, cancel, queue, release, state};
use molt_ipc_shm::word::Word64;

const STATES: [CellState; 5] =
    [CellState::Free, CellState::Queued, CellState::Running, CellState::Done, CellState::Cancelled];

/// A cell that stands at `at` with request 7.
fn cell_at(at: CellState) -> Word64 {
    Word64::new(7 << 8 | at as u64)
}

#[test]
fn a_request_goes_from_queued_over_running_to_done() {
    let cell = Word64::new(0);
    queue(&cell, 7);
    assert_eq!(state(&cell, 7), Some(CellState::Queued));
    assert!(advance(&cell, 7, CellState::Queued, CellState::Running));
    assert_eq!(state(&cell, 7), Some(CellState::Running));
    assert!(advance(&cell, 7, CellState::Running, CellState::Done));
    assert_eq!(state(&cell, 7), Some(CellState::Done));
    release(&cell);
    assert_eq!(state(&cell, 7), None);
}

#[test]
fn a_step_is_taken_only_from_where_the_request_stands() {
    for at in STATES {
        for from in STATES {
            let cell = cell_at(at);
            assert_eq!(advance(&cell, 7, from, CellState::Done), at == from, "{from:?} at {at:?}");
        }
    }
}

#[test]
fn only_an_open_request_is_taken_back() {
    for at in STATES {
        let cell = cell_at(at);
        let open = matches!(at, CellState::Queued | CellState::Running);
        assert_eq!(cancel(&cell, 7), open.then_some(at), "at {at:?}");
        assert_eq!(state(&cell, 7) == Some(CellState::Cancelled), open || at == CellState::Cancelled);
    }
}

/// Faults 49, 50: the cell's next request is not touched by who still means the last one.
#[test]
fn another_requests_id_moves_nothing() {
    for at in STATES {
        let cell = cell_at(at);
        let before = cell.load(Ordering::Relaxed);
        assert_eq!(cancel(&cell, 8), None);
        assert!(STATES.iter().all(|from| !advance(&cell, 8, *from, CellState::Done)));
        assert_eq!(state(&cell, 8), None);
        assert_eq!(cell.load(Ordering::Relaxed), before);
    }
}

#[test]
fn ids_have_56_bits_and_unknown_states_are_nobodys() {
    let cell = Word64::new(0);
    queue(&cell, ID_MASK);
    assert_eq!(state(&cell, ID_MASK), Some(CellState::Queued));
    assert_eq!(state(&cell, u64::MAX), Some(CellState::Queued), "the high bits are not part of an id");
    assert!(advance(&cell, ID_MASK, CellState::Queued, CellState::Running));
    cell.store(7 << 8 | 200, Ordering::Relaxed);
    assert_eq!(state(&cell, 7), None);
}

/// Fault 51: either the answer or the cancellation, never both, never neither.
#[test]
fn of_cancel_and_completion_exactly_one_wins() {
    const ROUNDS: u64 = 20_000;
    let cells: Arc<Vec<Word64>> = Arc::new((1..=ROUNDS).map(|id| Word64::new(id << 8 | 1)).collect());
    let together = Arc::new(Barrier::new(2));
    let (theirs, start) = (cells.clone(), together.clone());
    let worker = std::thread::spawn(move || {
        start.wait();
        let finish = |(index, cell): (usize, &Word64)| {
            let id = index as u64 + 1;
            advance(cell, id, CellState::Queued, CellState::Running)
                && advance(cell, id, CellState::Running, CellState::Done)
        };
        theirs.iter().enumerate().map(finish).collect::<Vec<bool>>()
    });
    together.wait();
    // From the other end, so that the two meet in the middle.
    let mut taken: Vec<bool> =
        cells.iter().enumerate().rev().map(|(index, cell)| cancel(cell, index as u64 + 1).is_some()).collect();
    taken.reverse();
    let done = worker.join().expect("the worker");
    assert!(taken.iter().zip(&done).all(|(taken, done)| taken != done), "one outcome each");
}
