//! The C ABI, every function of it. Plain C types only: the generator of the Python declarations reads this file.
//!
//! Conventions: a constructor returns NULL on failure and then tells `*outcome` and `err` (NUL-terminated UTF-8, cut at
//! `err_cap`). Pointers that a function hands out belong to the caller until the function named for it takes them back.
//! Every function may be called from any thread; what belongs to one event loop says so.
#![allow(clippy::missing_safety_doc, reason = "one rule for all, above: pointers are valid, as C callers promise")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_schema::ffi::FFI_ArrowSchema;
use molt_ipc_shm::client::{Called, Client, ClientBlock, Failure, LOOK_WITHIN, Pending, Submitted, forks};
use molt_ipc_shm::stat::Report;
use molt_ipc_shm::{Address, Outcome};

use crate::hold::{self, Arguments, Hold, LoopHold, TableHold};

/// A client: one session of this process with one worker.
pub struct MoltClient(pub(crate) Arc<Client>);
/// Writable bytes in the arena.
pub struct MoltBlock(Arc<ClientBlock>);
/// An event loop's channel.
pub struct MoltLoop(LoopHold);
/// A table read in place.
pub struct MoltTable(TableHold);

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
}

const INTERRUPTED: i32 = 1;

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
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Failure::new(Outcome::Internal, "molt_accel's native library failed inside; please report it"))
    })
}

unsafe fn name<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller promises a NUL-terminated string.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Failure::new(Outcome::InvalidInput, "a name is not UTF-8"))
}

/// Where a worker is found: by name, by socket, or both. Either may be NULL, not both.
pub(crate) unsafe fn address(shm: *const c_char, socket: *const c_char) -> Result<Address, Failure> {
    // SAFETY: the caller promises NUL-terminated strings, or NULL.
    let text = |text: *const c_char| if text.is_null() { Ok(None) } else { unsafe { name(text) }.map(Some) };
    Address::of(text(shm)?, text(socket)?.map(PathBuf::from))
        .ok_or_else(|| Failure::new(Outcome::InvalidInput, "neither a segment's name nor a socket is given"))
}

/// The version of this ABI.
#[unsafe(no_mangle)]
pub extern "C" fn molt_abi_version() -> u32 {
    5
}

/// Attaches to the segment of that name. `socket` may be NULL; with it, `shm` may be: the worker is then found by its socket
/// alone, and hands its segment over if that has no name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_attach(
    shm: *const c_char,
    socket: *const c_char,
    wait_ms: u64,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> *mut MoltClient {
    let attach = || {
        // SAFETY: as the C caller promises.
        let address = unsafe { address(shm, socket) }?;
        Ok(MoltClient(Arc::new(Client::attach_to(address, Duration::from_millis(wait_ms))?)))
    };
    // SAFETY: as the C caller promises.
    unsafe { give(guarded(attach), outcome, err, err_cap) }
}

/// Ends the session; replies, tables and blocks still held stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_close(client: *mut MoltClient) {
    if !client.is_null() {
        // SAFETY: made by molt_attach, given back once.
        let client = unsafe { Box::from_raw(client) };
        client.0.close();
    }
}

/// Before a fork, in the thread that forks: asks the worker to keep for the child what this process holds. Nonzero: a worker
/// did not; `err` says why, the fork may go on, and molt_fork_in_parent and molt_fork_in_child are needed all the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_fork_before(outcome: *mut i32, err: *mut c_char, err_cap: usize) -> i32 {
    match guarded(forks::before) {
        Ok(()) => 0,
        Err(failure) => {
            // SAFETY: as the C caller promises.
            unsafe { report(&failure, outcome, err, err_cap) };
            1
        }
    }
}

/// After a fork, in the parent: what was kept is the child's alone.
#[unsafe(no_mangle)]
pub extern "C" fn molt_fork_in_parent() {
    forks::in_parent();
}

/// After a fork, in the child: closes the inherited sockets, keeps what the worker keeps for it.
#[unsafe(no_mangle)]
pub extern "C" fn molt_fork_in_child() {
    forks::in_child();
}

/// Looks for the worker's successor, for a tenth of a second at most and without any other effect. 0: there is a session.
/// 1: not yet, look again. 2: nobody serves and nobody is about to, see `*outcome` and `err`.
/// `absent_ms`, `restart_ms`: how long to look where nobody, or somebody, is about to serve.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_reattach(
    client: *mut MoltClient,
    absent_ms: u64,
    restart_ms: u64,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> i32 {
    // SAFETY: the C caller promises valid pointers for the time of the call.
    unsafe {
        let client = (*client).0.clone();
        let (absent, restart) = (Duration::from_millis(absent_ms), Duration::from_millis(restart_ms));
        match guarded(|| client.reattach(absent, restart)) {
            Ok(found) => i32::from(!found),
            Err(failure) => {
                report(&failure, outcome, err, err_cap);
                2
            }
        }
    }
}

/// Whether there is a session whose worker serves. Waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_is_attached(client: *mut MoltClient) -> i32 {
    // SAFETY: the C caller promises a valid pointer.
    i32::from(unsafe { (*client).0.present() }.is_some())
}

/// In a forked child: closes the inherited sockets, forgets the rest.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_forked(client: *mut MoltClient) {
    if !client.is_null() {
        // SAFETY: made by molt_attach in the parent, given back once in this process.
        let client = unsafe { Box::from_raw(client) };
        client.0.forked();
        std::mem::forget(client);
    }
}

/// Writes a finished call into `reply`.
unsafe fn fill(reply: *mut MoltReply, id: u64, result: Result<(molt_ipc_shm::client::Reply, bool), Failure>) {
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

/// Reads the arguments that molt_call and molt_loop_submit share.
#[expect(clippy::too_many_arguments, reason = "one flat list of C arguments: no struct to fill on the hot path")]
unsafe fn arguments<'a>(
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
    let (entry, params, payload, names) = unsafe {
        (
            bytes(entry.cast(), entry_len),
            bytes(params, params_len),
            bytes(payload, payload_len),
            bytes(names.cast(), names_len),
        )
    };
    let names = (!names.is_empty()).then(|| std::str::from_utf8(names)).transpose();
    let names = names.map_err(|_| Failure::new(Outcome::InvalidInput, "a table's name is not UTF-8"))?;
    let (codec, accept) = (codec as u8, accept as u8);
    Ok(Arguments { entry, params, payload, blocks, names, codec, accept, flags, timeout_ns })
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
            let arguments =
                Arguments { entry, params: &[], payload, blocks, names: None, codec, accept, flags, timeout_ns };
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

/// A channel for one event loop, used by that loop's thread alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_loop_open(
    client: *mut MoltClient,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> *mut MoltLoop {
    // SAFETY: the C caller promises valid pointers.
    unsafe {
        let client = (*client).0.clone();
        give(guarded(|| LoopHold::open(client).map(MoltLoop)), outcome, err, err_cap)
    }
}

/// Readable when there is something to poll.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_loop_fd(channel: *mut MoltLoop) -> i32 {
    // SAFETY: the C caller promises a valid pointer.
    unsafe { (*channel).0.fd() }
}

/// 0: submitted under `*id`. 1: no room now. 2: refused, see `*outcome` and `err`. 3: the worker is gone, nothing was
/// sent: see molt_reattach.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_loop_submit(
    channel: *mut MoltLoop,
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
    codec: i32,
    accept: i32,
    flags: u32,
    timeout_ns: i64,
    id: *mut u64,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> i32 {
    // SAFETY: the C caller promises valid pointers for the time of the call.
    unsafe {
        let submitted = guarded(|| {
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
                codec,
                accept,
                flags,
                timeout_ns,
            )?;
            Ok(arguments.with_request(|request| (*channel).0.submit(request)))
        });
        match submitted {
            Ok(Submitted::Id(number)) => {
                *id = number;
                0
            }
            Ok(Submitted::Full) => 1,
            Ok(Submitted::Gone(failure)) => {
                report(&failure, outcome, err, err_cap);
                3
            }
            Ok(Submitted::Refused(failure)) | Err(failure) => {
                report(&failure, outcome, err, err_cap);
                2
            }
        }
    }
}

/// Answers, time-outs and losses that are ready, at most `max`; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_loop_poll(channel: *mut MoltLoop, out: *mut MoltReply, max: i32) -> i32 {
    // SAFETY: the C caller promises `max` writable replies.
    unsafe {
        let ready = guarded(|| Ok((*channel).0.poll(max.max(0) as usize))).unwrap_or_default();
        let count = ready.len();
        for (index, (id, result)) in ready.into_iter().enumerate() {
            fill(out.add(index), id, result.map(|reply| (reply, false)));
        }
        count as i32
    }
}

/// Takes a request back: its reply never comes out of poll.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_loop_cancel(channel: *mut MoltLoop, id: u64) {
    // SAFETY: the C caller promises a valid pointer.
    unsafe { (*channel).0.cancel(id) }
}

/// Gives the channel back; cancels what is in flight.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_loop_close(channel: *mut MoltLoop) {
    if !channel.is_null() {
        // SAFETY: made by molt_loop_open, given back once.
        unsafe { Box::from_raw(channel) }.0.close();
    }
}

/// Writable bytes in the arena.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_block_new(
    client: *mut MoltClient,
    len: u64,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> *mut MoltBlock {
    // SAFETY: the C caller promises valid pointers.
    unsafe {
        let block = guarded(|| (*client).0.session()?.block(len as usize).map(MoltBlock));
        give(block, outcome, err, err_cap)
    }
}

/// Where the block lies.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_block_data(block: *mut MoltBlock) -> *mut u8 {
    // SAFETY: the C caller promises a valid pointer.
    unsafe { (*block).0.address() }
}

/// Shortens the block to the bytes that were really written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_block_resize(block: *mut MoltBlock, len: u64) {
    // SAFETY: the C caller promises a valid pointer.
    unsafe {
        ClientBlock::truncate(&mut (*block).0, len as usize);
    }
}

/// Drops this reference; a request in flight keeps its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_block_free(block: *mut MoltBlock) {
    if !block.is_null() {
        // SAFETY: made by this library, given back once.
        drop(unsafe { Box::from_raw(block) });
    }
}

/// Places the batches of an ArrowArrayStream in the arena: one copy. Takes the stream over. `own_extents`: not 0 for a
/// table that is to become resident.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_table_place(
    client: *mut MoltClient,
    arrow_array_stream: *mut c_void,
    own_extents: i32,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> *mut MoltBlock {
    // SAFETY: the C caller promises a valid stream, which is moved out of its place (its release becomes NULL).
    unsafe {
        let stream = FFI_ArrowArrayStream::from_raw(arrow_array_stream.cast());
        give(guarded(|| hold::place(&(*client).0, stream, own_extents != 0).map(MoltBlock)), outcome, err, err_cap)
    }
}

/// Reads a reply's table where it lies. Takes the reply's hold over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_table_open(
    reply: *mut MoltReply,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> *mut MoltTable {
    // SAFETY: `hold` was made by `fill` and is taken once.
    unsafe {
        let held = std::mem::replace(&mut (*reply).hold, ptr::null_mut());
        let table = guarded(|| {
            if held.is_null() {
                return Err(Failure::new(Outcome::Internal, "this reply was let go of already"));
            }
            match *Box::from_raw(held.cast::<Hold>()) {
                Hold::Reply(answer) => TableHold::open(answer).map(MoltTable),
                Hold::Failure(failure) => Err(failure),
            }
        });
        give(table, outcome, err, err_cap)
    }
}

/// Writes a stream over the table; may be called many times. 0: done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_table_stream(table: *mut MoltTable, out_arrow_array_stream: *mut c_void) -> i32 {
    // SAFETY: the C caller promises room for a stream.
    unsafe {
        match guarded(|| Ok((*table).0.stream())) {
            Ok(stream) => {
                ptr::write(out_arrow_array_stream.cast::<FFI_ArrowArrayStream>(), stream);
                0
            }
            Err(failure) => failure.outcome as i32,
        }
    }
}

/// Writes the table's schema. 0: done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_table_schema(table: *mut MoltTable, out_arrow_schema: *mut c_void) -> i32 {
    // SAFETY: the C caller promises room for a schema.
    unsafe {
        match FFI_ArrowSchema::try_from(&*(*table).0.table.schema) {
            Ok(schema) => {
                ptr::write(out_arrow_schema.cast::<FFI_ArrowSchema>(), schema);
                0
            }
            Err(_) => Outcome::Internal as i32,
        }
    }
}

/// Rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_table_rows(table: *mut MoltTable) -> u64 {
    // SAFETY: the C caller promises a valid pointer.
    unsafe { (*table).0.table.batches.iter().map(|batch| batch.num_rows() as u64).sum() }
}

/// Bytes in the arena.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_table_nbytes(table: *mut MoltTable) -> u64 {
    // SAFETY: the C caller promises a valid pointer.
    unsafe { (*table).0.nbytes as u64 }
}

/// Where the first data buffer lies, and the mapping it must lie in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_table_address(table: *mut MoltTable, mapped_from: *mut u64, mapped_to: *mut u64) -> u64 {
    // SAFETY: the C caller promises valid pointers.
    unsafe {
        let table = &(*table).0;
        *mapped_from = table.mapped.start as u64;
        *mapped_to = table.mapped.end as u64;
        table.first_address() as u64
    }
}

/// Lets go of the table; streams made from it keep the bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_table_free(table: *mut MoltTable) {
    if !table.is_null() {
        // SAFETY: made by molt_table_open, given back once.
        drop(unsafe { Box::from_raw(table) });
    }
}

/// PyCapsule_GetPointer, as Python told it: 0 until then.
static CAPSULE_POINTER: AtomicUsize = AtomicUsize::new(0);

/// Tells where PyCapsule_GetPointer is. Once, before the first capsule.
#[unsafe(no_mangle)]
pub extern "C" fn molt_capsule_setup(py_capsule_get_pointer: *mut c_void) {
    CAPSULE_POINTER.store(py_capsule_get_pointer as usize, Ordering::Release);
}

unsafe fn capsule_content(capsule: *mut c_void, kind: &CStr) -> *mut c_void {
    let function = CAPSULE_POINTER.load(Ordering::Acquire);
    if function == 0 {
        return ptr::null_mut();
    }
    // SAFETY: molt_capsule_setup was given the address of PyCapsule_GetPointer, which has this signature; a capsule's
    // destructor runs with the interpreter's lock held.
    unsafe {
        let get: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void = std::mem::transmute(function);
        get(capsule, kind.as_ptr())
    }
}

/// Room for a stream, zeroed.
#[unsafe(no_mangle)]
pub extern "C" fn molt_stream_alloc() -> *mut c_void {
    Box::into_raw(Box::new(FFI_ArrowArrayStream::empty())).cast()
}

/// Room for a schema, zeroed.
#[unsafe(no_mangle)]
pub extern "C" fn molt_schema_alloc() -> *mut c_void {
    Box::into_raw(Box::new(FFI_ArrowSchema::empty())).cast()
}

/// The destructor of a capsule named "arrow_array_stream".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_stream_capsule_free(capsule: *mut c_void) {
    // SAFETY: Python calls it once, for a capsule whose content molt_stream_alloc made; dropping releases what is left.
    unsafe {
        let stream = capsule_content(capsule, c"arrow_array_stream");
        if !stream.is_null() {
            drop(Box::from_raw(stream.cast::<FFI_ArrowArrayStream>()));
        }
    }
}

/// The destructor of a capsule named "arrow_schema".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_schema_capsule_free(capsule: *mut c_void) {
    // SAFETY: as for streams.
    unsafe {
        let schema = capsule_content(capsule, c"arrow_schema");
        if !schema.is_null() {
            drop(Box::from_raw(schema.cast::<FFI_ArrowSchema>()));
        }
    }
}

/// What molt-shm-stat --json prints, read from the segment itself: that of `client`, or, if that is NULL, the one found by
/// `shm` and `socket` as in molt_attach. Goes back through molt_string_free.
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
