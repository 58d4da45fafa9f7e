//! What rows are ordered by, as keys that are compared by themselves: the row with the lower key comes first.

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, downcast_integer, downcast_temporal};
use arrow_schema::DataType;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result as DfResult;

/// The keys of one batch after the other. Their order is the one in which DataFusion sorts.
pub trait Keys: Send {
    type Key: Ord + Send;
    /// A key that a row has to be before, or none yet.
    type Limit: Clone + Send;

    /// The limit that every row is before.
    const OPEN: Self::Limit;

    /// Takes the columns of the next batch; what follows is about its rows.
    fn load(&mut self, columns: &[ArrayRef]) -> DfResult<()>;

    /// Whether a row comes before that key.
    fn is_before(&self, row: usize, limit: &Self::Limit) -> bool;

    fn limit(key: &Self::Key) -> Self::Limit;

    fn key(&self, row: usize) -> Self::Key;

    /// Bytes that a key has beside its own size.
    fn bytes_beside(key: &Self::Key) -> usize;
}

/// Keys of one column whose values have at most 64 bits: where the nulls go, then the value's bits in the values' order.
#[derive(Debug)]
pub struct FixedKeys {
    options: SortOptions,
    keys: Vec<u128>,
}

impl FixedKeys {
    /// `None`: the type has values of another kind.
    pub fn new(data_type: &DataType, options: SortOptions) -> Option<Self> {
        macro_rules! fits {
            ($t:ty) => {
                true
            };
        }
        let fits = downcast_integer! {
            data_type => (fits),
            DataType::Float32 | DataType::Float64 => true,
            _ => downcast_temporal! { data_type => (fits), _ => false },
        };
        fits.then_some(Self { options, keys: Vec::new() })
    }

    fn fill<T: ArrowPrimitiveType>(&mut self, column: &ArrayRef)
    where
        T::Native: OrderedBits,
    {
        const VALUE: u128 = 1 << 64;
        let column = column.as_primitive::<T>();
        let null = if self.options.nulls_first { 0 } else { 2 << 64 };
        let turned = if self.options.descending { u64::MAX } else { 0 };
        let key = |value: T::Native| VALUE | u128::from(value.ordered_bits() ^ turned);
        self.keys.clear();
        match column.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => self.keys.extend(column.values().iter().map(|value| key(*value))),
            Some(_) => self.keys.extend(column.iter().map(|value| value.map_or(null, key))),
        }
    }
}

impl Keys for FixedKeys {
    type Key = u128;
    type Limit = u128;

    const OPEN: u128 = u128::MAX; // above the key of a null that goes last

    fn load(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        let column = &columns[0];
        macro_rules! fill {
            ($t:ty) => {
                self.fill::<$t>(column)
            };
        }
        downcast_integer! {
            column.data_type() => (fill),
            DataType::Float32 => self.fill::<Float32Type>(column),
            DataType::Float64 => self.fill::<Float64Type>(column),
            other => downcast_temporal! {
                other => (fill),
                _ => return datafusion::common::internal_err!("a group limit has no keys of type {other}"),
            },
        }
        Ok(())
    }

    #[inline]
    fn is_before(&self, row: usize, limit: &u128) -> bool {
        self.keys[row] < *limit
    }

    fn limit(key: &u128) -> u128 {
        *key
    }

    fn key(&self, row: usize) -> u128 {
        self.keys[row]
    }

    fn bytes_beside(_: &u128) -> usize {
        0
    }
}

/// Bits that are in the order of the values as unsigned integers; floats in IEEE 754's total order, as Arrow sorts them.
trait OrderedBits: Copy {
    fn ordered_bits(self) -> u64;
}

macro_rules! ordered_integers {
    ($($t:ty => $offset:expr),+) => {
        $(impl OrderedBits for $t {
            fn ordered_bits(self) -> u64 {
                (self as i64 as u64) ^ $offset
            }
        })+
    };
}

const SIGN: u64 = 1 << 63;
ordered_integers!(i8 => SIGN, i16 => SIGN, i32 => SIGN, i64 => SIGN, u8 => 0, u16 => 0, u32 => 0, u64 => 0);

impl OrderedBits for f64 {
    fn ordered_bits(self) -> u64 {
        let bits = self.to_bits();
        if bits & SIGN == 0 { bits | SIGN } else { !bits }
    }
}

impl OrderedBits for f32 {
    fn ordered_bits(self) -> u64 {
        let bits = self.to_bits();
        u64::from(if bits & (1 << 31) == 0 { bits | (1 << 31) } else { !bits })
    }
}

/// Keys of any columns, as Arrow's row format.
#[derive(Debug)]
pub struct RowKeys {
    converter: RowConverter,
    rows: Option<Rows>,
}

impl RowKeys {
    pub fn new(fields: Vec<SortField>) -> DfResult<Self> {
        Ok(Self { converter: RowConverter::new(fields)?, rows: None })
    }

    fn row(&self, row: usize) -> &[u8] {
        self.rows.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

impl Keys for RowKeys {
    type Key = Box<[u8]>;
    type Limit = Option<Box<[u8]>>;

    const OPEN: Option<Box<[u8]>> = None;

    fn load(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        match &mut self.rows {
            Some(rows) => {
                rows.clear();
                self.converter.append(rows, columns)?;
            }
            None => self.rows = Some(self.converter.convert_columns(columns)?),
        }
        Ok(())
    }

    fn is_before(&self, row: usize, limit: &Option<Box<[u8]>>) -> bool {
        limit.as_ref().is_none_or(|limit| *self.row(row) < **limit)
    }

    fn limit(key: &Box<[u8]>) -> Option<Box<[u8]>> {
        Some(key.clone())
    }

    fn key(&self, row: usize) -> Box<[u8]> {
        self.row(row).into()
    }

    fn bytes_beside(key: &Box<[u8]>) -> usize {
        key.len()
    }
}
