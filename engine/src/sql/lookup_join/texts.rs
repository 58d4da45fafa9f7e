//! Keys that are texts: a hash table from each of them to its row.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArrayType};
use arrow_schema::DataType;
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::execution::memory_pool::MemoryReservation;
use foldhash::fast::RandomState;

/// Most rows of a table: its slots then lie in a core's cache. Of more rows each look waits for memory, one after the other,
/// where a hash join goes through a batch step by step and has many of them on the way at a time.
const MOST: usize = 1 << 14;

/// Whether a type is one of texts.
pub fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Rows by their texts, each of which stands for one row at most.
#[derive(Debug)]
pub struct Texts {
    keys: ArrayRef,
    /// A power of two, half of them free at least: a text is in the first free slot from that of its hash on.
    slots: Vec<Slot>,
    /// Drawn anew for each table: nobody can choose texts that all have one slot.
    hashes: RandomState,
}

/// A text's row and one, 0 where there is none; and the upper half of its hash, so that other texts are hardly ever read.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    row: u32,
    hash: u32,
}

impl Texts {
    /// `None`: a text comes twice, or there are too many, or there is no memory for the table.
    pub fn new(keys: &ArrayRef, memory: &MemoryReservation) -> DfResult<Option<Self>> {
        if keys.len() > MOST {
            return Ok(None);
        }
        let count = (2 * keys.len()).next_power_of_two();
        let bytes = count * size_of::<Slot>() + keys.to_data().get_slice_memory_size()?;
        if memory.try_grow(bytes).is_err() {
            return Ok(None);
        }
        let slots = vec![Slot::default(); count];
        let mut texts = Self { keys: Arc::clone(keys), slots, hashes: RandomState::default() };
        let each_once = match keys.data_type() {
            DataType::Utf8 => texts.fill(keys.as_string::<i32>()),
            DataType::LargeUtf8 => texts.fill(keys.as_string::<i64>()),
            DataType::Utf8View => texts.fill(keys.as_string_view()),
            other => return internal_err!("keys of type {other} are no texts"),
        };
        Ok(each_once.then_some(texts))
    }

    /// For each of `keys`, which have the type of the table's, its row and one; 0: there is none.
    pub fn places(&self, keys: &ArrayRef) -> DfResult<Vec<u32>> {
        Ok(match keys.data_type() {
            DataType::Utf8 => self.found(self.keys.as_string::<i32>(), keys.as_string::<i32>()),
            DataType::LargeUtf8 => self.found(self.keys.as_string::<i64>(), keys.as_string::<i64>()),
            DataType::Utf8View => self.found(self.keys.as_string_view(), keys.as_string_view()),
            other => return internal_err!("keys of type {other} are no texts"),
        })
    }

    /// Whether each text came once.
    fn fill<'a>(&mut self, own: impl StringArrayType<'a> + Copy) -> bool {
        for row in (0..own.len()).filter(|row| own.is_valid(*row)) {
            let text = own.value(row);
            let (at, hash) = self.slot(own, text);
            if self.slots[at].row != 0 {
                return false;
            }
            self.slots[at] = Slot { row: row as u32 + 1, hash };
        }
        true // null is equal to nothing
    }

    fn found<'a>(&self, own: impl StringArrayType<'a> + Copy, keys: impl StringArrayType<'a> + Copy) -> Vec<u32> {
        (0..keys.len()).map(|at| self.slots[self.slot(own, keys.value(at)).0].row).collect()
    }

    /// The slot that a text has, or would have, with what is kept of its hash.
    #[inline]
    fn slot<'a>(&self, own: impl StringArrayType<'a> + Copy, text: &str) -> (usize, u32) {
        let mut hasher = self.hashes.build_hasher();
        hasher.write(text.as_bytes());
        let hash = hasher.finish();
        let (last, upper) = (self.slots.len() - 1, (hash >> 32) as u32);
        let mut at = hash as usize & last;
        loop {
            let slot = self.slots[at];
            if slot.row == 0 || (slot.hash == upper && own.value(slot.row as usize - 1) == text) {
                return (at, upper);
            }
            at = (at + 1) & last;
        }
    }
}
