//! molt's transport: requests through lock-free rings in shared memory, a doorbell for who sleeps, tables in an arena.
//!
//! Read `spec/` first, then the files in this order:
//!
//! | file | holds |
//! | --- | --- |
//! | `layout` | the place of every byte |
//! | `mapping`, `word` | the only ways to touch the bytes; the atomics among them |
//! | `segment`, `locks` | the shared-memory object: made, named, found, checked; who may change its name |
//! | `nameless` | a segment without a name |
//! | `memory` | how much memory a process may still take |
//! | `address`, `socket_path` | where a worker is found; who has the path of a socket |
//! | `ring`, `frame`, `trace` | frames in a ring; what a frame says, and of which trace |
//! | `doorbell`, `bell`, `spin` | waking who sleeps, and only who sleeps |
//! | `attention` | what the worker should look at |
//! | `cell` | how far a request came |
//! | `checkout` | who may use a channel |
//! | `slot` | sessions' and channels' words between two users |
//! | `arena`, `block`, `lease` | extents; what an owner cuts them into; how results are let go of |
//! | `table` | Arrow tables in the arena |
//! | `handshake` | what is said on the session socket |
//! | `worker/` | the worker's side |
//! | `client/` | the client's side |
//! | `stats`, `supervision` | counters in the segment; what its supervisor says there |
//! | `catalogue` | what the worker says there of its tables |
//! | `stat`, `doctor` | what a tool shows of them; what is wrong with a segment |
//! | `failpoint` | where tests kill a process: before and after every store |
//!
//! `ring`, `doorbell`, `attention`, `cell`, `checkout`, `slot`, `arena` and `lease` run in models too (`--cfg loom`), in every order in
//! which their sides may take their steps and see each other's stores: `spec/proofs.md`.
#![warn(missing_docs)]

// The words and bytes that two processes share, and what each side does with them. Under `--cfg loom` this much is there,
// over a model of the mapping: see `tests/loom.rs`.
pub mod arena;
pub mod attention;
pub mod cell;
pub mod checkout;
pub mod doorbell;
pub mod failpoint;
pub mod frame;
pub mod layout;
pub mod lease;
#[cfg(not(loom))]
pub mod mapping;
#[cfg(loom)]
#[path = "mapping/model.rs"]
pub mod mapping;
mod outcome;
pub mod record;
pub mod ring;
pub mod slot;
mod trace;
pub mod word;

// What the operating system takes part in.
#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
pub mod bell;
#[cfg(not(loom))]
pub mod block;
#[cfg(not(loom))]
pub mod catalogue;
#[cfg(not(loom))]
pub mod client;
#[cfg(not(loom))]
pub mod doctor;
#[cfg(not(loom))]
pub mod handshake;
#[cfg(not(loom))]
mod locks;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
pub mod nameless;
#[cfg(not(loom))]
pub mod os;
#[cfg(not(loom))]
pub mod pulse;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod socket_path;
#[cfg(not(loom))]
pub mod spin;
#[cfg(not(loom))]
pub mod stat;
#[cfg(not(loom))]
pub mod stats;
#[cfg(not(loom))]
mod supervision;
#[cfg(not(loom))]
pub mod table;
#[cfg(not(loom))]
pub mod worker;

#[cfg(not(loom))]
pub use address::Address;
pub use frame::Codec;
pub use outcome::Outcome;
#[cfg(not(loom))]
pub use segment::{Segment, SegmentError};
#[cfg(not(loom))]
pub use supervision::{LastEnd, Supervised, Supervision};
pub use trace::TraceContext;
