//! A library whose table says another version of the ABI: a worker must look at nothing else of it.

use molt_entry::abi::{ABI_VERSION, EntryTable};

/// The version that the table says.
pub const OTHER: u32 = ABI_VERSION + 1;

#[unsafe(no_mangle)]
pub extern "C" fn molt_entries_v1() -> *const EntryTable {
    // The pointer is one that crashes whoever follows it.
    static TABLE: EntryTable =
        EntryTable { abi_version: OTHER, reserved: 0, entries: std::ptr::dangling(), count: usize::MAX };
    &raw const TABLE
}
