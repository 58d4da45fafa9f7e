//! Tables: placed in the arena, read where they lie.

use std::ffi::{c_char, c_void};
use std::ptr;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_schema::ffi::FFI_ArrowSchema;
use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::Failure;

use crate::hold::{self, Hold, TableHold};

use super::replies::MoltReply;
use super::{MoltBlock, MoltClient, MoltTable, give, guarded};

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
