//! Blocks: writable bytes in the arena.

use std::ffi::c_char;

use molt_ipc_shm::client::ClientBlock;

use crate::hold;

use super::{MoltBlock, MoltClient, give, guarded};

/// Writable bytes in the arena of a worker that serves. Waits for nobody: see molt_seek.
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
        let block = guarded(|| hold::present(&(*client).0)?.block(len as usize).map(MoltBlock));
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
