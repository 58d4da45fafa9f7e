//! The mapped bytes, and the only ways to touch them.
//!
//! Everything above this file is safe code: it names places by offset, and this file checks that they lie inside the
//! mapping. Memory that another process may write is never behind a Rust reference, except as an atomic; plain bytes are
//! copied in and out through raw pointers.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memmap2::{MmapOptions, MmapRaw};

use crate::failpoint::{Moment, half, pass};
use crate::word::{Word32, Word64};

/// A segment's bytes in this process, mapped twice by clients: writable, and read-only for what Python gets to see.
#[derive(Debug)]
pub struct Mapping {
    bytes: MmapRaw,
    /// Read-only twin: results are shown to Python through it, so that a stray write faults instead of corrupting.
    view: Option<MmapRaw>,
}

impl Mapping {
    /// Maps the whole file for reading and writing.
    pub fn new(file: &File) -> std::io::Result<Self> {
        Ok(Self { bytes: MmapOptions::new().map_raw(file)?, view: None })
    }

    /// Maps the whole file for reading and writing, and once more for reading alone.
    pub fn with_view(file: &File) -> std::io::Result<Self> {
        Ok(Self { bytes: MmapOptions::new().map_raw(file)?, view: Some(MmapOptions::new().map_raw_read_only(file)?) })
    }

    /// Maps the whole file for reading alone: for a tool that looks and must change nothing. A store through it faults.
    pub fn read_only(file: &File) -> std::io::Result<Self> {
        Ok(Self { bytes: MmapOptions::new().map_raw_read_only(file)?, view: None })
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn check(&self, offset: usize, len: usize, align: usize) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len()) && offset.is_multiple_of(align),
            "place {offset}+{len} (alignment {align}) lies outside a mapping of {} bytes",
            self.len()
        );
    }

    /// The 64-bit word at `offset`.
    #[inline]
    pub fn u64(&self, offset: usize) -> &Word64 {
        self.check(offset, 8, 8);
        // SAFETY: in bounds and aligned (checked; the base is page-aligned), mapped for as long as `self` lives, writable
        // unless made by `read_only` (then a store faults, and a load of a word this small is an ordinary load), every process touches this word only as an atomic, and a `Word64` is an atomic and nothing else (transparent).
        unsafe { &*self.bytes.as_mut_ptr().add(offset).cast::<Word64>() }
    }

    /// The 32-bit word at `offset`.
    #[inline]
    pub fn u32(&self, offset: usize) -> &Word32 {
        self.check(offset, 4, 4);
        // SAFETY: as for `u64`.
        unsafe { &*self.bytes.as_mut_ptr().add(offset).cast::<Word32>() }
    }

    /// Copies bytes into the mapping.
    #[inline]
    #[track_caller]
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.check(offset, from.len(), 1);
        let (to, half) = (self.bytes.as_mut_ptr().wrapping_add(offset), half(from.len()));
        pass(Moment::Before);
        // SAFETY: in bounds (checked), and `half` lies inside `from`; `from` is private memory, so the ranges cannot
        // overlap; raw pointers only, no reference to shared bytes is made.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), to, half);
            pass(Moment::Halfway);
            std::ptr::copy_nonoverlapping(from.as_ptr().add(half), to.add(half), from.len() - half);
        }
        pass(Moment::After);
    }

    /// Copies bytes out of the mapping: what is then checked and used is the copy, which no peer can change.
    #[inline]
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len(), 1);
        // SAFETY: as for `write`, with the directions swapped.
        unsafe { std::ptr::copy_nonoverlapping(self.bytes.as_ptr().add(offset), into.as_mut_ptr(), into.len()) }
    }

    /// Eight plain bytes in one load: what is checked is what is used, whatever a peer stores meanwhile.
    #[inline]
    pub fn load_once(&self, offset: usize) -> u64 {
        self.u64(offset).load(Ordering::Relaxed)
    }

    /// Appends `len` bytes of the mapping to `into`, without zeroing them first.
    #[inline]
    pub fn read_to_vec(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        self.check(offset, len, 1);
        into.reserve(len);
        // SAFETY: in bounds (checked); `reserve` made room for `len` bytes beyond the vector's end, and all of them are
        // written before the length says so.
        unsafe {
            std::ptr::copy_nonoverlapping(self.bytes.as_ptr().add(offset), into.as_mut_ptr().add(into.len()), len);
            into.set_len(into.len() + len);
        }
    }

    /// Copies bytes from one place of the mapping to another.
    #[track_caller]
    pub fn copy_within(&self, from: usize, to: usize, len: usize) {
        self.check(from, len, 1);
        self.check(to, len, 1);
        // Halves of ranges that overlap would not be the same copy.
        let half = if from.abs_diff(to) < len { 0 } else { half(len) };
        let (from, to) = (self.bytes.as_ptr().wrapping_add(from), self.bytes.as_mut_ptr().wrapping_add(to));
        pass(Moment::Before);
        // SAFETY: both in bounds (checked), and `half` lies inside them; `copy` allows them to overlap; raw pointers only.
        unsafe {
            std::ptr::copy(from, to, half);
            pass(Moment::Halfway);
            std::ptr::copy(from.add(half), to.add(half), len - half);
        }
        pass(Moment::After);
    }

    /// Sets bytes of the mapping to zero.
    #[track_caller]
    pub fn zero(&self, offset: usize, len: usize) {
        self.check(offset, len, 1);
        let (to, half) = (self.bytes.as_mut_ptr().wrapping_add(offset), half(len));
        pass(Moment::Before);
        // SAFETY: in bounds (checked), and `half` lies inside; raw pointers only.
        unsafe {
            std::ptr::write_bytes(to, 0, half);
            pass(Moment::Halfway);
            std::ptr::write_bytes(to.add(half), 0, len - half);
        }
        pass(Moment::After);
    }

    /// Where `offset` lies in this process, writable. For bytes that this process owns (a block it has claimed). What is
    /// stored through the pointer passes no failpoint: whoever stores says so.
    #[inline]
    #[track_caller]
    pub fn writable(&self, offset: usize, len: usize) -> *mut u8 {
        self.check(offset, len, 1);
        pass(Moment::Before);
        self.bytes.as_mut_ptr().wrapping_add(offset)
    }

    /// Where `offset` lies in this process, for reading: in the read-only twin where there is one.
    #[inline]
    pub fn readable(&self, offset: usize, len: usize) -> *const u8 {
        self.check(offset, len, 1);
        self.view.as_ref().unwrap_or(&self.bytes).as_ptr().wrapping_add(offset)
    }

    /// The addresses of `readable` memory, first and one past the last.
    pub fn readable_range(&self) -> std::ops::Range<usize> {
        let start = self.readable(0, 0) as usize;
        start..start + self.len()
    }

    /// Offset of an address that `readable` or `writable` gave.
    pub fn offset_of(&self, address: usize) -> Option<usize> {
        [self.view.as_ref(), Some(&self.bytes)]
            .into_iter()
            .flatten()
            .find_map(|map| address.checked_sub(map.as_ptr() as usize).filter(|offset| *offset < map.len()))
    }
}

/// A mapping that several owners keep alive: the session, and every table somebody still looks at.
pub type SharedMapping = Arc<Mapping>;
