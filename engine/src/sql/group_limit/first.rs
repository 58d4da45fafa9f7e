//! The rows that are among the first of their groups so far.

use std::collections::BinaryHeap;

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{interleave_record_batch, take_record_batch};
use datafusion::common::Result as DfResult;

use super::groups::Groups;
use super::keys::Keys;

/// Rows to a batch of those that are kept.
const KEPT_ROWS: usize = 1 << 16;

/// What a limit does with batches, whatever its keys are.
pub trait Keep: Send {
    /// Takes a batch: its rows, what they are grouped by, and what they are ordered by within a group.
    fn add(&mut self, batch: &RecordBatch, groups: &[ArrayRef], order: &[ArrayRef]) -> DfResult<()>;

    /// Rows that are kept.
    fn len(&self) -> usize;

    /// Bytes that it takes, about.
    fn bytes(&self) -> usize;

    /// The rows that are kept, in the order in which they came, that many to a batch.
    fn take(&mut self, rows: usize) -> DfResult<Vec<RecordBatch>>;
}

/// Keeps the first `most` rows of each group; of two with one key, the one that came first.
pub struct First<K: Keys> {
    most: usize,
    keys: K,
    /// `None`: all rows are one group.
    groups: Option<Groups>,
    /// The group of each row of a batch.
    numbers: Vec<usize>,
    /// The rows of each group, the last of them on top.
    heaps: Vec<BinaryHeap<Place<K::Key>>>,
    /// The key on top of each heap that is full: most rows end here, without a look at the heap.
    limits: Vec<K::Limit>,
    /// Rows that were kept when they came, as copies: an input's batch may be far larger than what is kept of it.
    kept: Vec<RecordBatch>,
    kept_rows: usize,
    kept_bytes: usize,
    /// Rows that are kept still.
    live: usize,
    keys_bytes: usize,
}

/// Where a row lies. Rows are compared by their keys, then by when they came.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place<K> {
    key: K,
    batch: u32,
    row: u32,
}

impl<K: Keys> First<K> {
    pub fn new(most: usize, groups: Option<Groups>, keys: K) -> Self {
        Self {
            most,
            keys,
            groups,
            numbers: Vec::new(),
            heaps: Vec::new(),
            limits: Vec::new(),
            kept: Vec::new(),
            kept_rows: 0,
            kept_bytes: 0,
            live: 0,
            keys_bytes: 0,
        }
    }

    /// Lets go of rows that are kept no more, and tells those that are where they lie now.
    fn compact(&mut self, rows: usize) -> DfResult<()> {
        // The number of each row among those that are kept still. A heap keeps its order: of two rows, the one that came first
        // also comes first among those that are left.
        let mut numbers: Vec<Vec<u32>> = self.kept.iter().map(|batch| vec![0; batch.num_rows()]).collect();
        for place in self.heaps.iter().flatten() {
            numbers[place.batch as usize][place.row as usize] = 1;
        }
        let mut lie: Vec<(usize, usize)> = Vec::with_capacity(self.live);
        for (batch, numbers) in numbers.iter_mut().enumerate() {
            for (row, number) in numbers.iter_mut().enumerate().filter(|(_, number)| **number == 1) {
                *number = lie.len() as u32;
                lie.push((batch, row));
            }
        }
        let from: Vec<&RecordBatch> = self.kept.iter().collect();
        let kept = lie.chunks(rows).map(|lie| interleave_record_batch(&from, lie)).collect::<Result<Vec<_>, _>>()?;
        for heap in &mut self.heaps {
            let mut places = std::mem::take(heap).into_vec();
            for place in &mut places {
                let number = numbers[place.batch as usize][place.row as usize];
                (place.batch, place.row) = (number / rows as u32, number % rows as u32);
            }
            *heap = BinaryHeap::from(places);
        }
        self.kept_rows = self.live;
        self.kept_bytes = kept.iter().map(RecordBatch::get_array_memory_size).sum();
        self.kept = kept;
        Ok(())
    }
}

impl<K: Keys> Keep for First<K> {
    fn add(&mut self, batch: &RecordBatch, groups: &[ArrayRef], order: &[ArrayRef]) -> DfResult<()> {
        let count = match &mut self.groups {
            Some(values) => values.number(groups, &mut self.numbers)?,
            None => {
                self.numbers.clear();
                self.numbers.resize(batch.num_rows(), 0);
                1
            }
        };
        self.heaps.resize_with(count, BinaryHeap::new);
        self.limits.resize(count, K::OPEN);
        self.keys.load(order)?;
        let mut accepted: Vec<u32> = Vec::new();
        for (row, group) in self.numbers.iter().enumerate() {
            let limit = &mut self.limits[*group];
            if !self.keys.is_before(row, limit) {
                continue;
            }
            let key = self.keys.key(row);
            self.keys_bytes += K::bytes_beside(&key);
            let place = Place { key, batch: self.kept.len() as u32, row: accepted.len() as u32 };
            accepted.push(row as u32);
            let heap = &mut self.heaps[*group];
            if heap.len() < self.most {
                heap.push(place);
                self.live += 1;
            } else if let Some(mut last) = heap.peek_mut() {
                self.keys_bytes -= K::bytes_beside(&last.key);
                *last = place;
            }
            if let (true, Some(last)) = (heap.len() == self.most, heap.peek()) {
                *limit = K::limit(&last.key);
            }
        }
        if !accepted.is_empty() {
            self.kept_rows += accepted.len();
            let rows = take_record_batch(batch, &UInt32Array::from(accepted))?;
            self.kept_bytes += rows.get_array_memory_size();
            self.kept.push(rows);
        }
        if self.kept_rows > 2 * self.live + KEPT_ROWS {
            self.compact(KEPT_ROWS)?;
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.live
    }

    fn bytes(&self) -> usize {
        let group = size_of::<BinaryHeap<Place<K::Key>>>() + size_of::<K::Limit>();
        self.groups.as_ref().map_or(0, Groups::size)
            + self.heaps.capacity() * group
            + self.live * size_of::<Place<K::Key>>()
            + 2 * self.keys_bytes // of a heap's last key there is a second one
            + self.kept_bytes
    }

    fn take(&mut self, rows: usize) -> DfResult<Vec<RecordBatch>> {
        self.compact(rows)?;
        (self.heaps, self.limits, self.groups) = (Vec::new(), Vec::new(), None);
        (self.live, self.kept_rows, self.kept_bytes, self.keys_bytes) = (0, 0, 0, 0);
        Ok(std::mem::take(&mut self.kept))
    }
}
