//! The C ABI, every function of it. Plain C types only: the generator of the Python declarations reads this folder.
//!
//! Conventions: a constructor returns NULL on failure and then tells `*outcome` and `err` (NUL-terminated UTF-8, cut at
//! `err_cap`). Pointers that a function hands out belong to the caller until the function named for it takes them back.
//! Every function may be called from any thread; what belongs to one event loop says so.
#![allow(clippy::missing_safety_doc, reason = "one rule for all, above: pointers are valid, as C callers promise")]

mod blocks;
mod calls;
mod capsules;
mod forks;
mod loops;
mod replies;
mod retries;
mod session;
mod tables;

use std::ffi::{CStr, c_char};
use std::ptr;
use std::slice;
use std::sync::Arc;

use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::{Client, ClientBlock, Failure, LoopChannel};

use crate::hold::{LoopHold, TableHold};

pub use blocks::*;
pub use calls::*;
pub use capsules::*;
pub use forks::*;
pub use loops::*;
pub use replies::*;
pub use retries::*;
pub use session::*;
pub use tables::*;

/// A client: one session of this process with one worker.
pub struct MoltClient(Arc<Client>);
/// Writable bytes in the arena.
pub struct MoltBlock(Arc<ClientBlock>);
/// An event loop's way to its worker.
pub struct MoltLoop(LoopHold);
/// A channel that was opened for an event loop.
pub struct MoltChannel(LoopChannel);
/// A table read in place.
pub struct MoltTable(TableHold);

unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller promises `len` readable bytes.
    unsafe { slice::from_raw_parts(data, len) }
}

unsafe fn report(failure: &Failure, outcome: *mut i32, err: *mut c_char, err_cap: usize) {
    let text = &failure.message.as_bytes()[..failure.message.floor_char_boundary(err_cap.saturating_sub(1))];
    // SAFETY: the caller promises a writable `outcome` and `err_cap` writable bytes at `err`, or NULL.
    unsafe {
        if !outcome.is_null() {
            *outcome = failure.outcome as i32;
        }
        if !err.is_null() && err_cap > 0 {
            ptr::copy_nonoverlapping(text.as_ptr().cast(), err, text.len());
            *err.add(text.len()) = 0;
        }
    }
}

/// Boxes a result for C, or reports the failure and returns NULL.
unsafe fn give<T>(result: Result<T, Failure>, outcome: *mut i32, err: *mut c_char, err_cap: usize) -> *mut T {
    match result {
        Ok(value) => Box::into_raw(Box::new(value)),
        Err(failure) => {
            // SAFETY: as this function's caller promises.
            unsafe { report(&failure, outcome, err, err_cap) };
            ptr::null_mut()
        }
    }
}

/// A panic must not cross into C: it becomes an Internal failure.
fn guarded<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Failure::new(Outcome::Internal, "molt_accel's native library failed inside; please report it"))
    })
}

unsafe fn name<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller promises a NUL-terminated string.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Failure::new(Outcome::InvalidInput, "a name is not UTF-8"))
}

/// The version of this ABI.
#[unsafe(no_mangle)]
pub extern "C" fn molt_abi_version() -> u32 {
    8
}
