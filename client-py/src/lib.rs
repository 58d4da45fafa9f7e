//! The native half of molt_accel: `molt_ipc_shm::client` behind a C ABI that Python loads with cffi.
//!
//! `capi` and `retries` declare every function (the generator of the Python declarations reads them); `hold` is what replies
//! and tables keep alive for Python.

mod capi;
mod hold;
mod retries;

pub use capi::*;
pub use retries::*;
