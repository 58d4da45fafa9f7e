//! Calls: a thread asks and waits for the answer.

use std::ffi::c_char;
use std::ptr;

use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::{Called, Failure, Pending};

use crate::hold::Arguments;

use super::replies::{MoltReply, arguments, fill};
use super::{MoltBlock, MoltClient, bytes, guarded};

const INTERRUPTED: i32 = 1;

unsafe fn finish(called: Result<Called, Failure>, reply: *mut MoltReply) -> i32 {
    match called {
        Ok(Called::Interrupted(pending)) => {
            // SAFETY: the C caller promises a writable reply.
            unsafe {
                (*reply).pending = Box::into_raw(pending).cast();
                (*reply).hold = ptr::null_mut();
            }
            INTERRUPTED
        }
        Ok(Called::Reply(answer, again)) => {
            // SAFETY: the same.
            unsafe { fill(reply, 0, Ok((answer, again))) };
            0
        }
        Err(failure) => {
            // SAFETY: the same.
            unsafe { fill(reply, 0, Err(failure)) };
            0
        }
    }
}

/// Calls an entry and waits. 0: `*reply` is filled. 1: interrupted, see `pending`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_call(
    client: *mut MoltClient,
    entry: *const c_char,
    entry_len: usize,
    params: *const u8,
    params_len: usize,
    payload: *const u8,
    payload_len: usize,
    blocks: *const *mut MoltBlock,
    nblocks: usize,
    names: *const c_char,
    names_len: usize,
    trace: *const c_char,
    trace_len: usize,
    codec: i32,
    accept: i32,
    flags: u32,
    timeout_ns: i64,
    reply: *mut MoltReply,
) -> i32 {
    // SAFETY: the C caller promises valid pointers for the time of the call.
    unsafe {
        let called = guarded(|| {
            let arguments = arguments(
                entry,
                entry_len,
                params,
                params_len,
                payload,
                payload_len,
                blocks,
                nblocks,
                names,
                names_len,
                trace,
                trace_len,
                codec,
                accept,
                flags,
                timeout_ns,
            )?;
            let client = (*client).0.clone();
            arguments.with_request(|request| client.call(request))
        });
        finish(called, reply)
    }
}

/// The same for a payload of bytes with nothing beside it: what most calls are, with half of the arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_call_bytes(
    client: *mut MoltClient,
    entry: *const c_char,
    entry_len: usize,
    payload: *const u8,
    payload_len: usize,
    codec: i32,
    flags: u32,
    timeout_ns: i64,
    reply: *mut MoltReply,
) -> i32 {
    // SAFETY: the C caller promises valid pointers for the time of the call.
    unsafe {
        let called = guarded(|| {
            let (entry, payload) = (bytes(entry.cast(), entry_len), bytes(payload, payload_len));
            let (codec, accept) = (codec as u8, codec as u8);
            let blocks = Vec::new();
            let arguments = Arguments {
                entry,
                params: &[],
                payload,
                blocks,
                names: None,
                trace: None,
                codec,
                accept,
                flags,
                timeout_ns,
            };
            let client = (*client).0.clone();
            arguments.with_request(|request| client.call(request))
        });
        finish(called, reply)
    }
}

/// Waits on for an interrupted call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_wait(client: *mut MoltClient, reply: *mut MoltReply) -> i32 {
    // SAFETY: `pending` was set by molt_call or molt_wait and is taken once.
    unsafe {
        let pending = std::mem::replace(&mut (*reply).pending, ptr::null_mut());
        let called = guarded(|| {
            if pending.is_null() {
                return Err(Failure::new(Outcome::Internal, "molt_wait without a pending call"));
            }
            (*client).0.resume(Box::from_raw(pending.cast::<Pending>()))
        });
        finish(called, reply)
    }
}

/// Takes an interrupted call back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_cancel(client: *mut MoltClient, reply: *mut MoltReply) {
    // SAFETY: as for molt_wait.
    unsafe {
        let pending = std::mem::replace(&mut (*reply).pending, ptr::null_mut());
        if !pending.is_null() {
            let pending = Box::from_raw(pending.cast::<Pending>());
            let _ = guarded(|| {
                (*client).0.cancel(pending);
                Ok(())
            });
        }
    }
}
