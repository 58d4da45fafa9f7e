//! Tables of every kind of column, and shared memory to place them in.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryViewBuilder, FixedSizeBinaryBuilder, Int32Builder, ListBuilder, MapBuilder, StringBuilder,
    StringDictionaryBuilder, StringViewBuilder,
};
use arrow_array::types::{Int8Type, Int32Type, UInt16Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, DictionaryArray,
    DurationMillisecondArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, LargeListArray, LargeStringArray, NullArray, RecordBatch, StringArray, StructArray,
    Time64NanosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt8Array, UInt64Array,
};
use arrow_buffer::alloc::Allocation;
use arrow_buffer::i256;
use arrow_schema::{DataType, Field, Schema};
use molt_ipc_shm::arena::Arena;
use molt_ipc_shm::block::Blocks;
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::mapping::{Mapping, SharedMapping};
use molt_ipc_shm::table::{Encoded, Table, TableFault, read};

/// Every third value is missing.
fn some<T>(rows: usize, value: impl Fn(usize) -> T) -> impl Iterator<Item = Option<T>> {
    (0..rows).map(move |row| (row % 3 != 1).then(|| value(row)))
}

/// A column of each kind.
pub fn columns(rows: usize) -> Vec<(&'static str, ArrayRef)> {
    let text = |row: usize| format!("row {row} {}", "x".repeat(row % 40));
    let mut lists = ListBuilder::new(Int32Builder::new());
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    let mut views = StringViewBuilder::new();
    let mut binary_views = BinaryViewBuilder::new();
    let mut fixed = FixedSizeBinaryBuilder::new(5);
    let mut words = StringDictionaryBuilder::<UInt16Type>::new();
    for row in 0..rows {
        (0..row % 5).for_each(|item| lists.values().append_option((item % 2 == 0).then_some(item as i32)));
        lists.append(row % 7 != 0);
        (0..row % 3).for_each(|item| {
            maps.keys().append_value(format!("k{item}"));
            maps.values().append_value(row as i32);
        });
        maps.append(true).expect("keys and values of one length");
        views.append_option((row % 3 != 1).then(|| text(row)));
        binary_views.append_value(text(row).as_bytes());
        fixed.append_value([row as u8; 5]).expect("five bytes");
        words.append_option((row % 4 != 2).then(|| ["north", "south", "east", "west"][row % 4]));
    }
    let inner = StructArray::from(vec![
        (
            Arc::new(Field::new("a", DataType::Int64, true)),
            Arc::new(Int64Array::from_iter(some(rows, |row| row as i64))) as ArrayRef,
        ),
        (
            Arc::new(Field::new("b", DataType::Utf8, true)),
            Arc::new(StringArray::from_iter(some(rows, text))) as ArrayRef,
        ),
    ]);
    let fields =
        vec![Field::new("inner", inner.data_type().clone(), true), Field::new("flag", DataType::Boolean, true)];
    let nested = StructArray::new(
        fields.into(),
        vec![Arc::new(inner), Arc::new(BooleanArray::from_iter(some(rows, |row| row % 2 == 0)))],
        None,
    );
    let keys = Int8Array::from_iter((0..rows).map(|row| (row % 5 != 0).then_some((row % 3) as i8)));
    let numbers = DictionaryArray::<Int8Type>::new(keys, Arc::new(Decimal128Array::from_iter_values([1, 22, 333])));
    let pairs = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|row| (row % 6 != 0).then(|| vec![Some(row as i32), None])),
        2,
    );
    let large_lists = LargeListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|row| (row % 6 != 0).then(|| vec![Some(row as i32); row % 4])),
    );
    let odd = [f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE, 1e308];
    let named: Vec<(&str, ArrayRef)> = vec![
        ("i8", Arc::new(Int8Array::from_iter(some(rows, |row| row as i8)))),
        ("i16", Arc::new(Int16Array::from_iter_values((0..rows).map(|row| row as i16)))),
        ("i32", Arc::new(Int32Array::from_iter(some(rows, |row| row as i32)))),
        ("i64", Arc::new(Int64Array::from_iter_values((0..rows).map(|row| i64::MIN + row as i64)))),
        ("u8", Arc::new(UInt8Array::from_iter(some(rows, |row| row as u8)))),
        ("u64", Arc::new(UInt64Array::from_iter_values((0..rows).map(|row| u64::MAX - row as u64)))),
        ("f32", Arc::new(Float32Array::from_iter(some(rows, |row| row as f32 / 3.0)))),
        ("f64", Arc::new(Float64Array::from_iter_values((0..rows).map(|row| odd[row % 5])))),
        ("bool", Arc::new(BooleanArray::from_iter(some(rows, |row| row % 7 == 0)))),
        ("utf8", Arc::new(StringArray::from_iter(some(rows, text)))),
        ("large_utf8", Arc::new(LargeStringArray::from_iter(some(rows, text)))),
        ("binary", Arc::new(BinaryArray::from_iter(some(rows, |row| text(row).into_bytes())))),
        ("fixed", Arc::new(fixed.finish())),
        ("utf8_view", Arc::new(views.finish())),
        ("binary_view", Arc::new(binary_views.finish())),
        ("null", Arc::new(NullArray::new(rows))),
        (
            "decimal128",
            Arc::new(
                Decimal128Array::from_iter(some(rows, |row| row as i128 * 12_345))
                    .with_precision_and_scale(38, 4)
                    .expect("a decimal"),
            ),
        ),
        ("decimal256", Arc::new(Decimal256Array::from_iter(some(rows, |row| i256::from_i128(row as i128))))),
        (
            "timestamp_tz",
            Arc::new(TimestampMicrosecondArray::from_iter(some(rows, |row| row as i64)).with_timezone("Europe/Berlin")),
        ),
        ("timestamp_ns", Arc::new(TimestampNanosecondArray::from_iter(some(rows, |row| row as i64 - 500)))),
        ("date", Arc::new(Date32Array::from_iter(some(rows, |row| row as i32 - 300)))),
        ("time", Arc::new(Time64NanosecondArray::from_iter(some(rows, |row| row as i64)))),
        ("duration", Arc::new(DurationMillisecondArray::from_iter(some(rows, |row| row as i64)))),
        ("dictionary", Arc::new(words.finish())),
        ("dictionary_of_decimals", Arc::new(numbers)),
        ("list", Arc::new(lists.finish())),
        ("large_list", Arc::new(large_lists)),
        ("pairs", Arc::new(pairs)),
        ("map", Arc::new(maps.finish())),
        ("struct", Arc::new(nested)),
    ];
    named
}

/// Shared memory with a read-only view, as a client has it, and room for tables.
pub struct Place {
    pub map: SharedMapping,
    pub owner: Arc<dyn Allocation>,
}

impl Place {
    pub fn new(len: usize) -> Self {
        let names = super::Names::new();
        let path = names.path();
        std::fs::write(&path, vec![0; len.max(1)]).expect("an object");
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("an object");
        let map = Arc::new(Mapping::with_view(&file).expect("a mapping"));
        Self { owner: Arc::new(map.clone()), map }
    }

    pub fn read(&self, offset: usize, len: usize) -> Result<Table, TableFault> {
        read(&self.map, offset, len, &self.owner)
    }
}

pub fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Schema::new_with_metadata(fields, HashMap::from([("made".to_owned(), "here".to_owned())]));
    RecordBatch::try_new(Arc::new(schema), columns.iter().map(|(_, column)| column.clone()).collect()).expect("a batch")
}

/// The stream as bytes, encoded as the client encodes it.
pub fn encoded(batches: &[RecordBatch]) -> Vec<u8> {
    let table = Encoded::new(&batches[0].schema(), batches.iter().cloned().map(Ok)).expect("a table");
    let blocks = Blocks::new(arena(table.len()), u64::MAX);
    let block = blocks.allocate(table.len()).expect("room");
    table.write_to(&block);
    let mut bytes = vec![0; table.len()];
    block.mapping().read(block.offset(), &mut bytes);
    bytes
}

pub fn arena(len: usize) -> Arena {
    let small = Geometry { channels: 1, sessions: 1, entries: 1, ..Geometry::for_arena(len as u64) };
    Arena::new(super::bytes(small.total_bytes()), small, 1)
}

/// Writes the batches at `offset` and reads them there.
pub fn placed(batches: &[RecordBatch], offset: usize) -> (Place, Table) {
    let bytes = encoded(batches);
    let place = Place::new(offset + bytes.len());
    place.map.write(offset, &bytes);
    let table = place.read(offset, bytes.len()).expect("a table");
    (place, table)
}
