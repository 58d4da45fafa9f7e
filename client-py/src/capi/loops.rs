//! Channels of event loops: many requests in flight, no thread that waits.

use std::ffi::c_char;

use molt_ipc_shm::client::Submitted;

use crate::hold::{self, Look, LoopHold};

use super::replies::{MoltReply, arguments, fill};
use super::session::nanoseconds;
use super::{MoltBlock, MoltChannel, MoltClient, MoltLoop, give, guarded, report};

/// One event loop's way to the worker, used by that loop's thread alone. It has no channel yet: see molt_loop_submit.
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
        give(guarded(|| LoopHold::new(client).map(MoltLoop)), outcome, err, err_cap)
    }
}

/// Looks for a worker, then for a channel to it, each for `slice_ns` at most: in a thread, since an event loop must not wait. 0: `*channel` is there, for molt_loop_adopt. The rest is as for molt_seek.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_channel_seek(
    client: *mut MoltClient,
    absent_ns: i64,
    restart_ns: i64,
    slice_ns: i64,
    channel: *mut *mut MoltChannel,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> i32 {
    // SAFETY: the C caller promises valid pointers for the time of the call.
    unsafe {
        let client = (*client).0.clone();
        let look = || Ok(hold::seek(&client, nanoseconds(absent_ns), nanoseconds(restart_ns), nanoseconds(slice_ns)));
        let (code, why) = match guarded(look) {
            Ok(Look::Found(found)) => {
                *channel = Box::into_raw(Box::new(MoltChannel(*found)));
                return 0;
            }
            Ok(Look::NotYet(why)) => (1, why),
            Ok(Look::Nobody(why)) | Err(why) => (2, why),
        };
        report(&why, outcome, err, err_cap);
        code
    }
}

/// Has an event loop send by that channel from now on, and takes the channel over. 0: done, else see `*outcome` and `err`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_loop_adopt(
    event_loop: *mut MoltLoop,
    channel: *mut MoltChannel,
    outcome: *mut i32,
    err: *mut c_char,
    err_cap: usize,
) -> i32 {
    // SAFETY: made by molt_channel_seek, given once; the loop is valid.
    unsafe {
        let MoltChannel(channel) = *Box::from_raw(channel);
        match guarded(|| (*event_loop).0.adopt(channel).map(drop)) {
            Ok(()) => 0,
            Err(failure) => {
                report(&failure, outcome, err, err_cap);
                1
            }
        }
    }
}

/// Gives a channel back that no event loop has taken over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_channel_close(channel: *mut MoltChannel) {
    if !channel.is_null() {
        // SAFETY: made by molt_channel_seek, given back once.
        unsafe { Box::from_raw(channel) }.0.close();
    }
}

/// Readable when there is something to poll.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_loop_fd(channel: *mut MoltLoop) -> i32 {
    // SAFETY: the C caller promises a valid pointer.
    unsafe { (*channel).0.fd() }
}

/// 0: submitted under `*id`. 1: no room now. 2: refused, see `*outcome` and `err`. 3: there is no channel to a
/// worker that serves, nothing was sent: see molt_channel_seek.
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
    trace: *const c_char,
    trace_len: usize,
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
                trace,
                trace_len,
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
