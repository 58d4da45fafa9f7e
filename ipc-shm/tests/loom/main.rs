//! The transport's protocols in models: every scenario is run in every order in which its threads may take their steps and
//! see each other's stores (within the bound that it states), not in the orders that a processor happens to show.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test --release -p molt-ipc-shm --test loom
//! ```
//! The code that runs is the product's own: only the mapping, the atomics and the bell are loom's. `spec/proofs.md` says
//! what is proven and what is not; `tests/mutants` takes out each step that a proof rests on and demands that it fails.
#![cfg(loom)]

mod arena;
mod cell;
mod checkout;
mod doorbell;
mod exchange;
mod lease;
mod model;
mod recovery;
mod ring;
