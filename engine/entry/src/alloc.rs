//! Counts what an entry allocates, per call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Plain cells without a destructor: an allocator may be called before and after everything else of a thread.
    static ALLOCS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

/// The allocator of a library of entries, declared by [`export!`](crate::export): the system's, with a count per
/// thread. A count costs about a nanosecond, and what a call took on its own thread is exact.
#[derive(Debug, Default)]
pub struct CountingAllocator;

/// Allocations and bytes of the current thread since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub allocs: u64,
    pub bytes: u64,
}

impl Taken {
    /// The counters now. They stand still where [`CountingAllocator`] is not the global allocator.
    pub fn now() -> Self {
        Self { allocs: ALLOCS.get(), bytes: BYTES.get() }
    }

    /// What was taken since `earlier`, on the same thread.
    pub fn since(earlier: Taken) -> Self {
        let now = Self::now();
        Self { allocs: now.allocs - earlier.allocs, bytes: now.bytes - earlier.bytes }
    }
}

fn count(bytes: usize) {
    ALLOCS.set(ALLOCS.get() + 1);
    BYTES.set(BYTES.get() + bytes as u64);
}

// SAFETY: every method forwards to System, whose contract is the same; counting allocates nothing and cannot unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size.saturating_sub(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}
