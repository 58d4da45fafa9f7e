//! The build side of a lookup join: from keys to rows, by an array where they are integers.

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Date32Type};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array, downcast_integer};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::DataType;
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::execution::memory_pool::MemoryReservation;

use super::texts::Texts;

/// Keys within so narrow a range are looked up in an array however few there are of them: a quarter of a megabyte.
const NARROW: u64 = 1 << 16;
/// Slots for each row, where the range is wider.
const SLOTS_A_ROW: u64 = 8;

/// Whether keys of a type can be looked up.
pub fn is_key(data_type: &DataType) -> bool {
    data_type.is_integer() || *data_type == DataType::Date32 || data_type.is_string()
}

/// Rows by their keys, each of which stands for one row at most.
#[derive(Debug)]
pub struct Table {
    pub rows: RecordBatch,
    slots: Slots,
    _memory: MemoryReservation,
}

/// Where the row of a key is.
#[derive(Debug)]
pub enum Slots {
    /// For each integer from the least on, its row and one; 0: there is none. The last slot is that of all other keys.
    Integers {
        least: u64,
        slots: Vec<u32>,
    },
    Texts(Texts),
}

/// What a batch of the probe side has found.
pub struct Found {
    /// Rows of the table.
    pub table: UInt32Array,
    /// The batch's rows that belong to them; `None`: all, one by one.
    pub probe: Option<UInt32Array>,
}

impl Slots {
    /// `None`: integers are too far apart, or a key comes twice, or there is no memory for the slots.
    pub fn new(keys: &ArrayRef, memory: &MemoryReservation) -> DfResult<Option<Self>> {
        if keys.data_type().is_string() {
            return Ok(Texts::new(keys, memory)?.map(Self::Texts));
        }
        macro_rules! slots {
            ($t:ty) => {
                slots::<$t>(keys, memory)?
            };
        }
        let slots = downcast_integer! {
            keys.data_type() => (slots),
            DataType::Date32 => slots::<Date32Type>(keys, memory)?,
            other => return internal_err!("a lookup join has no keys of type {other}"),
        };
        Ok(slots.map(|(least, slots)| Self::Integers { least, slots }))
    }
}

impl Table {
    /// The rows whose keys `slots` was made of. They count in `memory`, both of them.
    pub fn new(rows: RecordBatch, slots: Slots, memory: MemoryReservation) -> Self {
        Self { rows, slots, _memory: memory }
    }

    /// The rows that a batch's keys lead to. With `keep_all`, every row of the batch has one; it is null where none is found.
    pub fn find(&self, keys: &ArrayRef, keep_all: bool) -> DfResult<Found> {
        let mut places = match &self.slots {
            Slots::Integers { least, slots } => integer_places(*least, slots, keys)?,
            Slots::Texts(texts) => texts.places(keys)?,
        };
        if let Some(nulls) = keys.nulls().filter(|nulls| nulls.null_count() > 0) {
            for (place, valid) in places.iter_mut().zip(nulls) {
                *place = if valid { *place } else { 0 };
            }
        }
        let misses = places.iter().filter(|place| **place == 0).count();
        if misses == 0 {
            places.iter_mut().for_each(|place| *place -= 1);
            return Ok(Found { table: UInt32Array::from(places), probe: None });
        }
        if keep_all {
            let found = BooleanBuffer::collect_bool(places.len(), |row| places[row] != 0);
            places.iter_mut().for_each(|place| *place = place.saturating_sub(1));
            return Ok(Found { table: UInt32Array::new(places.into(), Some(NullBuffer::new(found))), probe: None });
        }
        // Written for every row, and kept where there is something: a branch that is taken at random costs more.
        let (mut table, mut probe, mut hits) = (vec![0; places.len()], vec![0; places.len()], 0);
        for (row, place) in places.iter().enumerate() {
            (table[hits], probe[hits]) = (place.wrapping_sub(1), row as u32);
            hits += usize::from(*place != 0);
        }
        table.truncate(hits);
        probe.truncate(hits);
        Ok(Found { table: UInt32Array::from(table), probe: Some(UInt32Array::from(probe)) })
    }
}

fn integer_places(least: u64, slots: &[u32], keys: &ArrayRef) -> DfResult<Vec<u32>> {
    macro_rules! places {
        ($t:ty) => {
            places::<$t>(least, slots, keys)
        };
    }
    Ok(downcast_integer! {
        keys.data_type() => (places),
        DataType::Date32 => places::<Date32Type>(least, slots, keys),
        other => return internal_err!("a lookup join has no keys of type {other}"),
    })
}

fn places<T: ArrowPrimitiveType>(least: u64, slots: &[u32], keys: &ArrayRef) -> Vec<u32>
where
    T::Native: Key,
{
    let last = slots.len() - 1;
    let place = |key: &T::Native| {
        let at = usize::try_from(key.wide().wrapping_sub(least)).unwrap_or(usize::MAX);
        slots[at.min(last)]
    };
    keys.as_primitive::<T>().values().iter().map(place).collect()
}

/// The least key, and the slots from there on.
fn slots<T: ArrowPrimitiveType>(keys: &ArrayRef, memory: &MemoryReservation) -> DfResult<Option<(u64, Vec<u32>)>>
where
    T::Native: Key,
{
    let keys = keys.as_primitive::<T>();
    let (Some(least), Some(greatest)) = (keys.iter().flatten().min(), keys.iter().flatten().max()) else {
        return Ok(Some((0, vec![0]))); // no row has a key
    };
    let (least, rows) = (least.wide(), keys.len() as u64);
    let range = greatest.wide().wrapping_sub(least);
    if range >= NARROW.max(rows.saturating_mul(SLOTS_A_ROW)) || rows >= u64::from(u32::MAX) {
        return Ok(None);
    }
    let count = range as usize + 2;
    if memory.try_grow(count * size_of::<u32>()).is_err() {
        return Ok(None);
    }
    let mut slots = vec![0; count];
    for (row, key) in keys.iter().enumerate() {
        let Some(key) = key else { continue }; // null is equal to nothing
        let slot = &mut slots[key.wide().wrapping_sub(least) as usize];
        if *slot != 0 {
            return Ok(None);
        }
        *slot = row as u32 + 1;
    }
    Ok(Some((least, slots)))
}

/// Integers as 64 bits, so that the difference to a lesser one is how far apart they are.
trait Key: Copy + Ord {
    fn wide(self) -> u64;
}

macro_rules! keys {
    ($($t:ty),+) => {
        $(impl Key for $t {
            #[inline]
            fn wide(self) -> u64 {
                self as i64 as u64
            }
        })+
    };
}

keys!(i8, i16, i32, i64, u8, u16, u32, u64);
