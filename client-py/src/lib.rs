//! The native half of molt_accel: `molt_ipc_shm::client` behind a C ABI that Python loads with cffi.
//!
//! `capi` declares every function (the generator of the Python declarations reads it); `hold` is what replies and tables keep
//! alive for Python; `incoming` reads the tables that Python brings.

mod capi;
mod hold;
mod incoming;

pub use capi::*;
