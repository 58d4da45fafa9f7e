//! The product's own files: everything that touches shared memory and needs no Arrow.
#![allow(dead_code, reason = "the rest of the product uses it")]

#[path = "../../src/arena.rs"]
pub mod arena;
#[path = "../../src/attention.rs"]
pub mod attention;
#[path = "../../src/block.rs"]
pub mod block;
#[path = "../../src/cell.rs"]
pub mod cell;
#[path = "../../src/checkout.rs"]
pub mod checkout;
#[path = "../../src/doorbell.rs"]
pub mod doorbell;
#[path = "../../src/failpoint.rs"]
pub mod failpoint;
#[path = "../../src/frame.rs"]
pub mod frame;
#[path = "../../src/handshake.rs"]
pub mod handshake;
#[path = "../../src/layout.rs"]
pub mod layout;
#[path = "../../src/lease.rs"]
pub mod lease;
#[path = "../../src/mapping.rs"]
pub mod mapping;
#[path = "../../src/os.rs"]
pub mod os;
#[path = "../../src/outcome.rs"]
pub mod outcome;
#[path = "../../src/record.rs"]
pub mod record;
#[path = "../../src/ring.rs"]
pub mod ring;
#[path = "../../src/slot.rs"]
pub mod slot;
#[path = "../../src/trace.rs"]
pub mod trace;
#[path = "../../src/word.rs"]
pub mod word;

pub use frame::Codec;
pub use outcome::Outcome;
pub use trace::TraceContext;
