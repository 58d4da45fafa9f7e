//! The mapped bytes in a model: the places that a scenario touches, and no others.
//!
//! A word is loom's atomic. A plain byte is what the language says it is: two threads that touch it with nothing that
//! orders them are a race, and the model ends there. So a missing Acquire or Release is found even where the stale value
//! would have happened to be right, and where no stale value could be read at all (a consumer that still copies what a
//! producer already overwrites).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;

use crate::failpoint::{Moment, half, pass};
use crate::word::{Word32, Word64};

/// Plain bytes, eight by eight.
#[derive(Debug)]
struct Plain(UnsafeCell<u64>);

// SAFETY: every access goes through loom's cell, which ends the model if two of them are not ordered.
unsafe impl Sync for Plain {}

/// The places of a scenario.
#[derive(Debug, Default)]
pub struct Mapping {
    words: BTreeMap<usize, Word64>,
    halves: BTreeMap<usize, Word32>,
    plain: BTreeMap<usize, Plain>,
}

impl Mapping {
    /// A mapping with these words of 64 bits, these of 32, and plain bytes in these ranges; all of them zero.
    pub fn of(words: &[usize], halves: &[usize], plain: &[Range<usize>]) -> Self {
        let bytes = plain.iter().flat_map(|range| range.clone().step_by(8));
        Self {
            words: words.iter().map(|at| (*at, Word64::new(0))).collect(),
            halves: halves.iter().map(|at| (*at, Word32::new(0))).collect(),
            plain: bytes.map(|at| (at, Plain(UnsafeCell::new(0)))).collect(),
        }
    }

    /// The 64-bit word at `offset`.
    pub fn u64(&self, offset: usize) -> &Word64 {
        self.words.get(&offset).unwrap_or_else(|| panic!("the scenario has no word at {offset}"))
    }

    /// The 32-bit word at `offset`.
    pub fn u32(&self, offset: usize) -> &Word32 {
        self.halves.get(&offset).unwrap_or_else(|| panic!("the scenario has no half word at {offset}"))
    }

    fn plain(&self, offset: usize) -> &Plain {
        self.plain.get(&offset).unwrap_or_else(|| panic!("the scenario has no plain bytes at {offset}"))
    }

    /// Writes bytes that begin at a multiple of eight; the rest of the last eight stays.
    fn put(&self, offset: usize, from: &[u8]) {
        assert!(offset.is_multiple_of(8), "a model writes whole words");
        for (index, bytes) in from.chunks(8).enumerate() {
            // SAFETY: loom has checked that nobody else touches the cell now, and the pointer does not leave the closure.
            self.plain(offset + index * 8).0.with_mut(|word| unsafe {
                let mut new = (*word).to_le_bytes();
                new[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_le_bytes(new);
            });
        }
    }

    /// Copies bytes into the mapping.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let half = half(from.len()) / 8 * 8;
        pass(Moment::Before);
        self.put(offset, &from[..half]);
        pass(Moment::Halfway);
        self.put(offset + half, &from[half..]);
        pass(Moment::After);
    }

    /// Copies bytes out of the mapping.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        for (index, bytes) in into.chunks_mut(8).enumerate() {
            let word = self.load_once(offset + index * 8).to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
    }

    /// Eight plain bytes in one load.
    pub fn load_once(&self, offset: usize) -> u64 {
        // SAFETY: loom has checked that nobody writes the cell now, and the pointer does not leave the closure.
        self.plain(offset).0.with(|word| unsafe { *word })
    }

    /// Appends `len` bytes of the mapping to `into`.
    pub fn read_to_vec(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        let from = into.len();
        into.resize(from + len, 0);
        self.read(offset, &mut into[from..]);
    }

    /// Sets bytes to zero, words as well.
    pub fn zero(&self, offset: usize, len: usize) {
        pass(Moment::Before);
        for at in (offset..offset + len).step_by(8) {
            match self.words.get(&at) {
                Some(word) => word.store(0, Ordering::Relaxed),
                None => self.put(at, &[0; 8]),
            }
        }
        pass(Moment::After);
    }
}

/// A mapping that several owners keep alive.
pub type SharedMapping = Arc<Mapping>;
