//! What a hostile peer can put in front of the transport, one target an input of its.
//!
//! Each target is a plain function of bytes: libFuzzer calls it (`make fuzz`), and so does a test without libFuzzer
//! (`ipc-shm/tests/fuzz.rs`). It panics where the transport breaks a promise: a crash, a byte outside of what was given,
//! an answer that disagrees with a simple model. `spec/fuzzing.md` says which input of a peer each one stands for.

pub mod arena;
pub mod client;
mod guard;
pub mod handshake;
pub mod header;
mod input;
pub mod request;
pub mod ring;
mod segment;
mod served;
pub mod table;
pub mod worker;

/// A target's name, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 8] = [
    ("header", header::run),
    ("handshake", handshake::run),
    ("ring", ring::run),
    ("arena", arena::run),
    ("table", table::run),
    ("request", request::run),
    ("worker", worker::run),
    ("client", client::run),
];
