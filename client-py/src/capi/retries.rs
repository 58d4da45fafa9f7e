//! The part of the C ABI by which a client spares a worker that is in trouble: the retry budget, and a look from outside.

use std::ffi::c_char;

use molt_ipc_shm::client::Failure;

use super::session::address;
use super::{MoltClient, guarded};

/// What has become of a client's requests: counters that only grow.
#[repr(C)]
pub struct MoltRetries {
    /// Handed to a worker, those that were sent again included.
    pub sent: u64,
    /// Sent again because they never ran.
    pub moved: u64,
    /// Sent again though they may have run.
    pub again: u64,
    /// Not sent again for want of budget.
    pub refused: u64,
}

/// Asks whether an event loop may send a request again; molt_call asks for itself. `lost`: nonzero for one that may have run,
/// which spends the budget. Nonzero: it may.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_may_send_again(client: *mut MoltClient, lost: i32) -> i32 {
    // SAFETY: the C caller promises a valid pointer.
    let budget = unsafe { &(*client).0 }.retries();
    if lost == 0 {
        budget.count_moved();
        return 1;
    }
    i32::from(budget.may_run_again())
}

/// Writes the counters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_count_retries(client: *mut MoltClient, out: *mut MoltRetries) {
    // SAFETY: the C caller promises valid pointers.
    unsafe {
        let counted = (*client).0.retries().counted();
        let (sent, moved, again, refused) = (counted.sent, counted.moved, counted.again, counted.refused);
        *out = MoltRetries { sent, moved, again, refused };
    }
}

/// Whether a worker serves there and looks at its requests, told from its segment alone, without a wait. 0: no. 1: yes.
/// 2: only the worker could tell, since its segment has no name. Arguments as in molt_client_new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn molt_serves(shm: *const c_char, socket: *const c_char) -> i32 {
    let look = || -> Result<i32, Failure> {
        // SAFETY: as the C caller promises.
        let address = unsafe { address(shm, socket) }?;
        Ok(address.serves().map_or(2, i32::from))
    };
    guarded(look).unwrap_or(0)
}
