//! Forks: what the process calls around them.

use std::ffi::c_char;

use molt_ipc_shm::client::forks;

use super::{MoltClient, guarded, report};

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

/// In a forked child: closes the inherited sockets, forgets the rest.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_forked(client: *mut MoltClient) {
    if !client.is_null() {
        // SAFETY: made by molt_client_new in the parent, given back once in this process.
        let client = unsafe { Box::from_raw(client) };
        client.0.forked();
        std::mem::forget(client);
    }
}
