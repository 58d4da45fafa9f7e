//! Numbers for groups, in the order in which they are seen: by an array where keys are integers close together, as ids and
//! days are, by a hash table otherwise.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use arrow_schema::{DataType, SchemaRef};
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Most slots of the array: eight megabytes.
const SLOTS: usize = 1 << 21;

/// The groups that were seen so far.
pub struct Groups {
    schema: SchemaRef,
    /// While it serves.
    dense: Option<Dense>,
    hashed: Option<Box<dyn GroupValues>>,
}

/// Keys from `base` on, each with its group's number and one; 0: not seen.
struct Dense {
    base: i128,
    slots: Vec<u32>,
    null: u32,
    /// The key of each group.
    keys: Vec<Option<i64>>,
}

macro_rules! by_type {
    ($data_type:expr, $call:ident $(, $argument:expr)*) => {
        match $data_type {
            DataType::Int8 => $call::<Int8Type>($($argument),*),
            DataType::Int16 => $call::<Int16Type>($($argument),*),
            DataType::Int32 => $call::<Int32Type>($($argument),*),
            DataType::Int64 => $call::<Int64Type>($($argument),*),
            DataType::UInt8 => $call::<UInt8Type>($($argument),*),
            DataType::UInt16 => $call::<UInt16Type>($($argument),*),
            DataType::UInt32 => $call::<UInt32Type>($($argument),*),
            DataType::Date32 => $call::<Date32Type>($($argument),*),
            other => return internal_err!("groups of type {other} have no array"),
        }
    };
}

impl Groups {
    pub fn new(schema: SchemaRef) -> DfResult<Self> {
        let dense = match schema.fields().as_ref() {
            [field] => matches!(
                field.data_type(),
                DataType::Int8
                    | DataType::Int16
                    | DataType::Int32
                    | DataType::Int64
                    | DataType::UInt8
                    | DataType::UInt16
                    | DataType::UInt32
                    | DataType::Date32
            ),
            _ => false,
        };
        let mut groups = Self { schema, dense: None, hashed: None };
        match dense {
            true => groups.dense = Some(Dense { base: 0, slots: Vec::new(), null: 0, keys: Vec::new() }),
            false => groups.hashed = Some(groups.hash_table()?),
        }
        Ok(groups)
    }

    fn hash_table(&self) -> DfResult<Box<dyn GroupValues>> {
        new_group_values(Arc::clone(&self.schema), &GroupOrdering::None)
    }

    /// The group of each row; gives how many groups there are.
    pub fn number(&mut self, columns: &[ArrayRef], numbers: &mut Vec<usize>) -> DfResult<usize> {
        if let Some(dense) = &mut self.dense {
            let key = &columns[0];
            if by_type!(key.data_type(), number, dense, key, numbers) {
                return Ok(dense.keys.len());
            }
            let keys = by_type!(key.data_type(), keys, &dense.keys);
            let mut hashed = self.hash_table()?;
            // Numbers stay what they are: a hash table counts as an array does.
            hashed.intern(&[keys], numbers)?;
            (self.dense, self.hashed) = (None, Some(hashed));
        }
        let Some(hashed) = &mut self.hashed else { return internal_err!("groups without a table") };
        hashed.intern(columns, numbers)?;
        Ok(hashed.len())
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        let dense = self.dense.as_ref().map_or(0, |dense| {
            dense.slots.capacity() * size_of::<u32>() + dense.keys.capacity() * size_of::<Option<i64>>()
        });
        dense + self.hashed.as_ref().map_or(0, |hashed| hashed.size())
    }
}

impl Dense {
    /// Makes room for keys from `low` to `high`; `false`: they are too far apart.
    fn reach(&mut self, low: i128, high: i128) -> bool {
        if self.slots.is_empty() {
            self.base = low;
        }
        let end = self.base + self.slots.len() as i128;
        let (from, to) = (self.base.min(low), end.max(high + 1));
        if to - from > SLOTS as i128 {
            return false;
        }
        if from < self.base {
            // Twice as many each time: keys that fall do not move all slots with every batch.
            let missing = (self.base - from) as usize;
            let more = missing.max(self.slots.len()).min(SLOTS - (to - self.base) as usize);
            self.slots.splice(0..0, std::iter::repeat_n(0, more));
            self.base -= more as i128;
        }
        let count = (to - self.base) as usize;
        if count > self.slots.len() {
            self.slots.resize(count, 0);
        }
        true
    }
}

fn number<T: ArrowPrimitiveType>(dense: &mut Dense, keys: &ArrayRef, numbers: &mut Vec<usize>) -> bool
where
    T::Native: Whole,
{
    let keys = keys.as_primitive::<T>();
    let has_nulls = keys.null_count() > 0;
    let bounds = match has_nulls {
        true => keys.iter().flatten().min().zip(keys.iter().flatten().max()),
        false => keys.values().iter().copied().min().zip(keys.values().iter().copied().max()),
    };
    if let Some((low, high)) = bounds
        && !dense.reach(i128::from(low.whole()), i128::from(high.whole()))
    {
        return false;
    }
    numbers.clear();
    numbers.reserve(keys.len());
    let base = dense.base as i64; // distances are right whether or not it fits
    for (row, key) in keys.values().iter().enumerate() {
        let (slot, key) = match has_nulls && keys.is_null(row) {
            true => (&mut dense.null, None),
            false => (&mut dense.slots[key.whole().wrapping_sub(base) as usize], Some(key.whole())),
        };
        if *slot == 0 {
            dense.keys.push(key);
            *slot = dense.keys.len() as u32;
        }
        numbers.push(*slot as usize - 1);
    }
    true
}

fn keys<T: ArrowPrimitiveType>(keys: &[Option<i64>]) -> ArrayRef
where
    T::Native: Whole,
{
    Arc::new(PrimitiveArray::<T>::from_iter(keys.iter().map(|key| key.map(T::Native::back))))
}

/// Integers as 64 bits, and back.
trait Whole: Copy + Ord {
    fn whole(self) -> i64;
    fn back(whole: i64) -> Self;
}

macro_rules! whole {
    ($($t:ty),+) => {
        $(impl Whole for $t {
            #[inline]
            fn whole(self) -> i64 {
                self as i64
            }

            fn back(whole: i64) -> Self {
                whole as $t
            }
        })+
    };
}

whole!(i8, i16, i32, i64, u8, u16, u32);
