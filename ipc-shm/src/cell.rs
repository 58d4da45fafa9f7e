//! Request cells: one word a request in flight, the evidence of how far it came.
//!
//! ```text
//!   FREE -> QUEUED -> RUNNING -> DONE          the client queues, the worker runs and finishes
//!             |          |
//!             +----------+----> CANCELLED      the client takes it back, from any thread
//! ```
//! The worker moves QUEUED to RUNNING before the entry starts. So when a worker dies, a QUEUED request never ran
//! (Unavailable: safe to send again) and a RUNNING one may have (WorkerLost).

use std::sync::atomic::Ordering;

use crate::ring::Room;
use crate::word::Word64;

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CellState {
    /// No request uses the cell.
    Free = 0,
    /// Committed, not started.
    Queued = 1,
    /// Started.
    Running = 2,
    /// Answered.
    Done = 3,
    /// Taken back.
    Cancelled = 4,
}

/// Ids have 56 bits; the state has the low 8.
pub const ID_MASK: u64 = (1 << 56) - 1;

fn word(id: u64, state: CellState) -> u64 {
    (id & ID_MASK) << 8 | state as u64
}

/// Client: the request exists. Before its frame is committed, so the frame's Release carries this store too.
pub fn queue(cell: &Word64, id: u64) {
    cell.store(word(id, CellState::Queued), Ordering::Relaxed);
}

/// Client: hands a request over, its cell first. Whoever sees the frame finds it queued.
pub fn submit(cell: &Word64, id: u64, room: Room<'_>, parts: &[&[u8]]) {
    queue(cell, id);
    room.commit(parts);
}

/// Client: the answer has been read; nobody looks at the cell any more.
pub fn release(cell: &Word64) {
    cell.store(word(0, CellState::Free), Ordering::Relaxed);
}

/// Moves a request on, if it still stands where it is believed to stand.
pub fn advance(cell: &Word64, id: u64, from: CellState, to: CellState) -> bool {
    cell.compare_exchange(word(id, from), word(id, to), Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Worker: the entry may start; `false`: the caller has taken the request back.
pub fn begin(cell: &Word64, id: u64) -> bool {
    advance(cell, id, CellState::Queued, CellState::Running)
}

/// Worker: the request is answered, whether it ran or was refused; `false`: the caller has taken it back.
pub fn finish(cell: &Word64, id: u64) -> bool {
    // Who finishes is who began it: it stands in one of the two and nobody but the caller moves it.
    [CellState::Running, CellState::Queued].into_iter().any(|from| advance(cell, id, from, CellState::Done))
}

/// Client: takes the request back. Returns where it stood if it was still open.
pub fn cancel(cell: &Word64, id: u64) -> Option<CellState> {
    // The worker moves it forward only, so one look at each place finds it.
    [CellState::Queued, CellState::Running].into_iter().find(|from| advance(cell, id, *from, CellState::Cancelled))
}

/// Where the request of that id stands; `None` when the cell holds another.
pub fn state(cell: &Word64, id: u64) -> Option<CellState> {
    let word = cell.load(Ordering::Acquire);
    if word >> 8 != id & ID_MASK {
        return None;
    }
    Some(match word as u8 {
        1 => CellState::Queued,
        2 => CellState::Running,
        3 => CellState::Done,
        4 => CellState::Cancelled,
        _ => return None,
    })
}
