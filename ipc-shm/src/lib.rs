//! molt's transport: requests through lock-free rings in shared memory, a doorbell for who sleeps, tables in an arena.
//!
//! Read `spec/` first, then the files in this order:
//!
//! | file | holds |
//! | --- | --- |
//! | `layout` | the place of every byte |
//! | `mapping`, `word` | the only ways to touch the bytes; the atomics among them |
//! | `segment` | the shared-memory object: made, named, found, checked |
//! | `ring`, `frame` | frames in a ring; what a frame says |
//! | `doorbell`, `bell`, `spin` | waking who sleeps, and only who sleeps |
//! | `attention` | what the worker should look at |
//! | `cell` | how far a request came |
//! | `arena`, `block`, `lease` | extents; what an owner cuts them into; how results are let go of |
//! | `table` | Arrow tables in the arena |
//! | `handshake` | what is said on the session socket |
//! | `worker/` | the worker's side |
//! | `client/` | the client's side |
//! | `stats`, `stat` | counters in the segment; what a tool shows of them |
//! | `failpoint` | where tests kill a process: before and after every store |
#![warn(missing_docs)]

pub mod arena;
pub mod attention;
pub mod bell;
pub mod block;
pub mod cell;
pub mod client;
pub mod doorbell;
pub mod failpoint;
pub mod frame;
pub mod handshake;
pub mod layout;
pub mod lease;
pub mod mapping;
pub mod os;
mod outcome;
pub mod record;
pub mod ring;
pub mod segment;
pub mod spin;
pub mod stat;
pub mod stats;
pub mod table;
pub mod word;
pub mod worker;

pub use frame::Codec;
pub use outcome::Outcome;
pub use segment::{Segment, SegmentError};
