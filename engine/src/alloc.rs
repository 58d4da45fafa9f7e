//! The worker's allocator: mimalloc, counting per thread what a request takes.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

use mimalloc::MiMalloc;

/// mimalloc that counts.
pub struct Counting;

thread_local! {
    static TAKEN: Cell<Taken> = const { Cell::new(Taken { allocs: 0, bytes: 0 }) };
}

/// What this thread has taken from the allocator since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Allocations.
    pub allocs: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Taken {
    /// The count now.
    pub fn now() -> Self {
        TAKEN.get()
    }

    /// The count since an earlier one.
    pub fn since(self, earlier: Self) -> Self {
        Self { allocs: self.allocs - earlier.allocs, bytes: self.bytes - earlier.bytes }
    }
}

fn count(bytes: usize) {
    // A thread that is ending has no counter any more; its allocations belong to no request.
    let _ = TAKEN.try_with(|taken| {
        let Taken { allocs, bytes: before } = taken.get();
        taken.set(Taken { allocs: allocs + 1, bytes: before + bytes as u64 });
    });
}

// SAFETY: every call is handed on to mimalloc unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}
