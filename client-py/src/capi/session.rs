//! Sessions: attaching, finding the worker again, looking at it, leaving.

use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use molt_ipc_shm::client::{Client, Failure, LOOK_WITHIN};
use molt_ipc_shm::stat::Report;
use molt_ipc_shm::{Address, Outcome};

use crate::hold::timeouts;

use super::{MoltClient, bytes, give, guarded, name, report};

/// Where a worker is found: by name, by socket, or both. Either may be NULL, not both.
pub(super) unsafe fn address(shm: *const c_char, socket: *const c_char) -> Result<Address, Failure> {
    // SAFETY: the caller promises NUL-terminated strings, or NULL.
    let text = |text: *const c_char| if text.is_null() { Ok(None) } else { unsafe { name(text) }.map(Some) };
    Address::of(text(shm)?, text(socket)?.map(PathBuf::from))
        .ok_or_else(|| Failure::new(Outcome::InvalidInput, "neither a segment's name nor a socket is given"))
}

/// A client of the worker of that segment. `socket` may be NULL; with it, `shm` may be: the worker is then found by its socket
/// alone, and hands its segment over if that has no name. It attaches at the first call, or by molt_seek.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_client_new(
    shm: *const c_char,
    socket: *const c_char,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> *mut MoltClient {
    // SAFETY: as the C caller promises.
    let new = || unsafe { address(shm, socket) }.map(|address| MoltClient(Arc::new(Client::new(address))));
    // SAFETY: as the C caller promises.
    unsafe { give(guarded(new), outcome, err, err_cap) }
}

/// Ends the session; replies, tables and blocks still held stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_close(client: *mut MoltClient) {
    if !client.is_null() {
        // SAFETY: made by molt_client_new, given back once.
        let client = unsafe { Box::from_raw(client) };
        client.0.close();
    }
}

/// Looks for the worker, or for its successor, for a tenth of a second at most and without any other effect. 0: there is a
/// session. 1: not yet, look again. 2: there will be none in that time. `*outcome` and `err` say why not.
/// `absent_ns`, `restart_ns`: how long to look where nobody, or somebody, is about to serve.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_seek(
    client: *mut MoltClient,
    absent_ns: i64,
    restart_ns: i64,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> i32 {
    // SAFETY: the C caller promises valid pointers for the time of the call.
    unsafe {
        let client = (*client).0.clone();
        let (code, why) = match guarded(|| client.reattach(nanoseconds(absent_ns), nanoseconds(restart_ns))) {
            Ok(true) => return 0,
            Ok(false) => (1, client.why_not_yet()),
            Err(failure) => (2, failure),
        };
        report(&why, outcome, err, err_cap);
        code
    }
}

pub(super) fn nanoseconds(given: i64) -> Duration {
    Duration::from_nanos(given.max(0) as u64)
}

/// How long a call of that entry may take, nanoseconds: `timeout_ns` is read as molt_call reads it, and what the last worker said
/// of the entry counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_timeout_ns(
    client: *mut MoltClient,
    entry: *const c_char,
    entry_len: usize,
    timeout_ns: i64,
) -> i64 {
    // SAFETY: the C caller promises valid pointers for the time of the call.
    unsafe {
        let (own, fallback) = timeouts(timeout_ns);
        let timeout = (*client).0.timeout(bytes(entry.cast(), entry_len), own, fallback);
        timeout.as_nanos().min(i64::MAX as u128) as i64
    }
}

/// Whether there is a session whose worker serves. Waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_is_attached(client: *mut MoltClient) -> i32 {
    // SAFETY: the C caller promises a valid pointer.
    i32::from(unsafe { (*client).0.present() }.is_some())
}

/// What molt-shm-stat --json prints, read from the segment itself: that of `client`, or, if that is NULL, the one found by
/// `shm` and `socket` as in molt_client_new. Goes back through molt_string_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_stat_json(
    client: *mut MoltClient,
    shm: *const c_char,
    socket: *const c_char,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> *mut c_char {
    let json = guarded(|| {
        let segment = match client.is_null() {
            // SAFETY: as the C caller promises.
            true => unsafe { address(shm, socket) }?.look(LOOK_WITHIN)?,
            // SAFETY: as the C caller promises.
            false => unsafe { &*client }.0.look()?,
        };
        CString::new(Report::of(&segment).to_json()).map_err(|error| Failure::new(Outcome::Internal, error.to_string()))
    });
    match json {
        Ok(json) => json.into_raw(),
        Err(failure) => {
            // SAFETY: as the C caller promises.
            unsafe { report(&failure, outcome, err, err_cap) };
            ptr::null_mut()
        }
    }
}

/// Frees a string that this library made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: made by CString::into_raw in this library, given back once.
        drop(unsafe { CString::from_raw(text) });
    }
}
