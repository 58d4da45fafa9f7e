//! Bytes of a mapping that nothing may touch. A mapping is as large as its pages, so a read beyond a table's end is no
//! fault by itself; under the address sanitizer these bytes are poisoned, and it is.

use std::ops::Range;

use molt_ipc_shm::mapping::SharedMapping;

/// Poisoned until dropped.
pub struct Guard {
    map: SharedMapping,
    ranges: Vec<Range<usize>>,
}

impl Guard {
    /// Nothing of `map` may be touched but `allowed` (in order, apart from each other).
    pub fn all_but(map: &SharedMapping, allowed: &[Range<usize>]) -> Self {
        let mut from = 0;
        let mut ranges = Vec::new();
        for part in allowed {
            ranges.push(from..part.start);
            from = part.end;
        }
        ranges.push(from..map.len());
        let guard = Self { map: map.clone(), ranges };
        guard.each(sanitizer::poison);
        guard
    }

    fn each(&self, change: fn(*const u8, usize)) {
        for range in self.ranges.iter().filter(|range| !range.is_empty()) {
            change(self.map.readable(range.start, range.len()), range.len());
            change(self.map.writable(range.start, range.len()), range.len());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The next mapping may get these addresses.
        self.each(sanitizer::unpoison);
    }
}

/// `make fuzz` compiles with `--cfg fuzzing` and the address sanitizer.
#[cfg(fuzzing)]
mod sanitizer {
    unsafe extern "C" {
        fn __asan_poison_memory_region(at: *const u8, len: usize);
        fn __asan_unpoison_memory_region(at: *const u8, len: usize);
    }

    pub fn poison(at: *const u8, len: usize) {
        // SAFETY: marks bytes of a mapping that the caller holds; nothing is read or written.
        unsafe { __asan_poison_memory_region(at, len) }
    }

    pub fn unpoison(at: *const u8, len: usize) {
        // SAFETY: as above.
        unsafe { __asan_unpoison_memory_region(at, len) }
    }
}

#[cfg(not(fuzzing))]
mod sanitizer {
    pub fn poison(_: *const u8, _: usize) {}
    pub fn unpoison(_: *const u8, _: usize) {}
}
