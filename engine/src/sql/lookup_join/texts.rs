//! Keys that are texts: a hash table from each of them to its row.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArrayType};
use arrow_schema::DataType;
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::execution::memory_pool::MemoryReservation;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Most rows of a table: its slots then lie in a core's cache. Of more rows each look waits for memory, one after the other,
/// where a hash join goes through a batch step by step and has many of them on the way at a time.
const MOST: usize = 1 << 14;

/// Rows by their texts, each of which stands for one row at most.
#[derive(Debug)]
pub struct Texts {
    keys: ArrayRef,
    rows: HashTable<u32>,
    /// Drawn anew for each table, so that texts that are slow in one are not in the next.
    hashes: RandomState,
}

impl Texts {
    /// `None`: a text comes twice, or there are too many, or there is no memory for the table.
    pub fn new(keys: &ArrayRef, memory: &MemoryReservation) -> DfResult<Option<Self>> {
        if keys.len() > MOST {
            return Ok(None);
        }
        let rows = HashTable::with_capacity(keys.len());
        let bytes = rows.allocation_size() + keys.to_data().get_slice_memory_size()?;
        if memory.try_grow(bytes).is_err() {
            return Ok(None);
        }
        let mut texts = Self { keys: Arc::clone(keys), rows, hashes: RandomState::default() };
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
        let hash = |text: &str| self.hashes.hash_one(text.as_bytes());
        for row in (0..own.len()).filter(|row| own.is_valid(*row)) {
            let text = own.value(row);
            let is_it = |other: &u32| own.value(*other as usize) == text;
            match self.rows.entry(hash(text), is_it, |other| hash(own.value(*other as usize))) {
                Entry::Occupied(_) => return false,
                Entry::Vacant(free) => free.insert(row as u32),
            };
        }
        true // null is equal to nothing
    }

    fn found<'a>(&self, own: impl StringArrayType<'a> + Copy, keys: impl StringArrayType<'a> + Copy) -> Vec<u32> {
        let place = |text: &str| {
            let hash = self.hashes.hash_one(text.as_bytes());
            self.rows.find(hash, |row| own.value(*row as usize) == text).map_or(0, |row| row + 1)
        };
        (0..keys.len()).map(|at| place(keys.value(at))).collect()
    }
}
