//! Replies, and the arguments of requests: what calls and event loops share.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::slice;

use molt_ipc_shm::client::Failure;
use molt_ipc_shm::{Outcome, TraceContext};

use crate::hold::{Arguments, Hold};

use super::{MoltBlock, bytes};

/// How a request ended.
#[repr(C)]
pub struct MoltReply {
    /// 0 ok, else an outcome.
    pub outcome: i32,
    /// HTTP status that an entry chose, or 0.
    pub status: i32,
    /// Codec of data when ok.
    pub codec: i32,
    /// Bit 0: the request was sent a second time.
    pub flags: i32,
    /// The request's number.
    pub id: u64,
    /// Ok: the body; else the message, UTF-8. (`char` is what cffi unpacks to bytes at once.)
    pub data: *const c_char,
    /// Bytes of data.
    pub len: u64,
    /// Else: details, MsgPack, or NULL.
    pub details: *const c_char,
    /// Bytes of details.
    pub details_len: u64,
    /// Keeps data alive; goes back once through molt_reply_free.
    pub hold: *mut c_void,
    /// A call that a signal interrupted.
    pub pending: *mut c_void,
    /// Bytes that the entry allocated.
    pub alloc_bytes: u64,
    /// Bytes of tables that could not be read in place.
    pub copied_bytes: u64,
    /// Microseconds between commit and start.
    pub queue_us: u32,
    /// Microseconds of running.
    pub exec_us: u32,
    /// Allocations of the entry.
    pub allocs: u32,
    /// Requests that waited when this one was taken.
    pub queue_depth: u32,
    /// Plans that SQL made for it.
    pub plans: u32,
    /// Milliseconds since the rows were published of the oldest of the worker's own tables that it read, and 1 more; 0: it
    /// read none.
    pub table_age: u32,
}

/// Writes a finished call into `reply`.
pub(super) unsafe fn fill(
    reply: *mut MoltReply,
    id: u64,
    result: Result<(molt_ipc_shm::client::Reply, bool), Failure>,
) {
    // SAFETY: the C caller promises a writable reply.
    let reply = unsafe { &mut *reply };
    let (hold, again) = match result {
        Ok((answer, again)) => (Hold::Reply(answer), again),
        Err(failure) => (Hold::Failure(failure), false),
    };
    *reply = MoltReply {
        outcome: Outcome::Internal as i32,
        status: 0,
        codec: 0,
        flags: i32::from(again),
        id,
        data: ptr::null(),
        len: 0,
        details: ptr::null(),
        details_len: 0,
        hold: ptr::null_mut(),
        pending: ptr::null_mut(),
        alloc_bytes: 0,
        copied_bytes: 0,
        queue_us: 0,
        exec_us: 0,
        allocs: 0,
        queue_depth: 0,
        plans: 0,
        table_age: 0,
    };
    match &hold {
        Hold::Reply(answer) => {
            reply.outcome = answer.outcome as i32;
            reply.status = answer.head.status as i32;
            reply.codec = answer.head.codec as i32;
            reply.id = answer.head.id;
            reply.alloc_bytes = answer.head.alloc_bytes;
            reply.copied_bytes = answer.head.copied_bytes;
            reply.queue_us = answer.head.queue_us;
            reply.exec_us = answer.head.exec_us;
            reply.allocs = answer.head.allocs;
            reply.queue_depth = answer.head.queue_depth as u32;
            reply.plans = answer.head.plans as u32;
            reply.table_age = answer.head.table_age_ms().map_or(0, |age| age.saturating_add(1));
        }
        Hold::Failure(failure) => reply.outcome = failure.outcome as i32,
    }
    // The bytes do not move when the hold is boxed: they lie in the arena or on the heap.
    let (data, len) = hold.bytes();
    let text = if reply.outcome == Outcome::Ok as i32 { len } else { hold.text_len().min(len) };
    reply.data = data.cast();
    reply.len = text as u64;
    if text < len {
        reply.details = data.wrapping_add(text).cast();
        reply.details_len = (len - text) as u64;
    }
    let own = hold.own_details();
    if !own.is_empty() {
        reply.details = own.as_ptr().cast();
        reply.details_len = own.len() as u64;
    }
    reply.hold = Box::into_raw(Box::new(hold)).cast();
}

/// Reads the arguments that molt_call and molt_loop_submit share.
#[expect(clippy::too_many_arguments, reason = "one flat list of C arguments: no struct to fill on the hot path")]
pub(super) unsafe fn arguments<'a>(
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
) -> Result<Arguments<'a>, Failure> {
    let blocks = if nblocks == 0 {
        Vec::new()
    } else {
        // SAFETY: the C caller promises `nblocks` valid pointers.
        unsafe { slice::from_raw_parts(blocks, nblocks) }
            .iter()
            // SAFETY: the same.
            .map(|block| unsafe { (**block).0.clone() })
            .collect()
    };
    // SAFETY: the C caller promises the lengths.
    let (entry, params, payload, names, trace) = unsafe {
        (
            bytes(entry.cast(), entry_len),
            bytes(params, params_len),
            bytes(payload, payload_len),
            bytes(names.cast(), names_len),
            bytes(trace.cast(), trace_len),
        )
    };
    let names = (!names.is_empty()).then(|| std::str::from_utf8(names)).transpose();
    let names = names.map_err(|_| Failure::new(Outcome::InvalidInput, "a table's name is not UTF-8"))?;
    let (codec, accept) = (codec as u8, accept as u8);
    // By the standard, a traceparent that is none is as if there were none.
    let trace = std::str::from_utf8(trace).ok().and_then(TraceContext::parse);
    Ok(Arguments { entry, params, payload, blocks, names, trace, codec, accept, flags, timeout_ns })
}

/// Lets go of what a reply keeps alive. Safe to call twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_reply_free(reply: *mut MoltReply) {
    // SAFETY: `hold` was made by `fill` and is taken once.
    unsafe {
        let hold = std::mem::replace(&mut (*reply).hold, ptr::null_mut());
        if !hold.is_null() {
            drop(Box::from_raw(hold.cast::<Hold>()));
        }
    }
}
