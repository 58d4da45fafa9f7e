//! Tables of every kind of column: placed once, read where they lie, equal to what went in.

mod common;

use std::sync::Arc;

use arrow_array::builder::{Int32Builder, StructBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
};
use arrow_buffer::alloc::Allocation;
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, Schema};
use common::tables::{Place, arena, batch, columns, encoded, placed};
use common::worker::ThreadWorker;
use common::{call, request, until};
use molt_ipc_shm::block::Blocks;
use molt_ipc_shm::client::{Payload, Request};
use molt_ipc_shm::mapping::SharedMapping;
use molt_ipc_shm::table::{Encoded, Table, read};

const ROWS: usize = 1000;

/// Bytes of buffers outside the mapping; a dictionary's values count once, whoever shares them.
fn elsewhere(data: &ArrayData, mapped: &std::ops::Range<usize>, seen: &mut Vec<usize>) -> u64 {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    let own = data.buffers().iter().chain(nulls).filter(|buffer| !buffer.is_empty()).map(|buffer| {
        let at = buffer.as_ptr() as usize;
        let counts = !mapped.contains(&at) && !seen.contains(&at);
        seen.push(at);
        if counts { buffer.len() as u64 } else { 0 }
    });
    let own: u64 = own.sum();
    own + data.child_data().iter().map(|child| elsewhere(child, mapped, seen)).sum::<u64>()
}

fn elsewhere_of(table: &Table, place: &Place) -> u64 {
    let (mapped, mut seen) = (place.map.readable_range(), Vec::new());
    let columns = table.batches.iter().flat_map(|batch| batch.columns());
    columns.map(|column| elsewhere(&column.to_data(), &mapped, &mut seen)).sum()
}

/// Faults 45-46: every kind of column: equal, in place, nothing copied, and no larger than its own bytes.
#[test]
fn every_kind_of_column_is_read_where_it_lies() {
    for (name, column) in columns(ROWS) {
        let batch = batch(&[(name, column.clone())]);
        let (place, table) = placed(std::slice::from_ref(&batch), 4096);
        assert_eq!(table.batches, std::slice::from_ref(&batch), "{name}");
        assert_eq!(*table.schema, *batch.schema(), "{name}, metadata included");
        assert_eq!((table.copied_bytes, elsewhere_of(&table, &place)), (0, 0), "{name}");
        let found = table.batches[0].column(0);
        found.to_data().validate_full().unwrap_or_else(|error| panic!("{name}: {error}"));
        // Tight: a column does not report its neighbours' bytes. Views and dictionaries keep a builder's spare room.
        let (size, own) = (found.get_array_memory_size(), column.get_array_memory_size());
        assert!(size <= own + 512, "{name}: {size} bytes where the source has {own}");
    }
}

#[test]
fn a_wide_table_of_several_batches_is_the_sum_of_its_columns() {
    let columns = columns(ROWS);
    let whole = batch(&columns);
    // Sliced inputs, the first and the last row included, an empty slice in between.
    let slices: Vec<RecordBatch> = [(0, 1), (1, 330), (331, 0), (331, 668), (999, 1)]
        .iter()
        .map(|(from, rows)| whole.slice(*from, *rows))
        .collect();
    let (place, table) = placed(&slices, 64);
    assert_eq!(table.batches, slices);
    assert_eq!((table.copied_bytes, elsewhere_of(&table, &place)), (0, 0));
    let size: usize = table.batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let bytes = place.map.len();
    assert!(size < 2 * bytes + 64 * 1024, "{size} bytes reported of a table of {bytes}");
}

/// Fault 47.
#[test]
fn tables_without_rows_batches_or_columns_are_tables() {
    let whole = batch(&columns(ROWS));
    let empty = RecordBatch::new_empty(whole.schema());
    let (_place, table) = placed(std::slice::from_ref(&empty), 0);
    assert_eq!(table.batches, [empty]);
    let rows_only = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(42)),
    );
    let (_place, table) = placed(&[rows_only.expect("rows without columns")], 0);
    assert_eq!(table.batches[0].num_rows(), 42);
    let none = Encoded::new(&whole.schema(), []).expect("a table");
    assert!(!none.is_empty());
    let blocks = Blocks::new(arena(none.len()), u64::MAX);
    let block = blocks.allocate(none.len()).expect("room");
    none.write_to(&block);
    let owner: Arc<dyn Allocation> = Arc::new(());
    let table = read(block.mapping(), block.offset(), block.len(), &owner).expect("a table");
    assert!(table.batches.is_empty() && table.schema == whole.schema());
}

/// What a foreign writer left misaligned is copied once and counted to the byte; the rest is read in place.
#[test]
fn misaligned_foreign_bytes_are_copied_and_counted() {
    let mut all = columns(ROWS);
    all.push(("everything", Arc::new(StructArray::from(batch(&all)))));
    for (name, column) in &all {
        let bytes = encoded(&[batch(&[(name, column.clone())])]);
        for shift in [1, 4, 8] {
            let place = Place::new(bytes.len() + 128);
            place.map.write(64 + shift, &bytes);
            let table = place.read(64 + shift, bytes.len()).unwrap_or_else(|fault| panic!("{name} + {shift}: {fault}"));
            assert_eq!(table.batches[0].column(0), column, "{name} + {shift}");
            assert_eq!(
                table.copied_bytes,
                elsewhere_of(&table, &place),
                "{name} + {shift}: counted and really elsewhere"
            );
        }
    }
    let (place, table) = placed(&[batch(&[("i64", Arc::new(Int64Array::from(vec![7; 100])) as ArrayRef)])], 4);
    assert_eq!((table.copied_bytes, elsewhere_of(&table, &place)), (800, 800));
}

/// The bytes outlive everything but the arrays that point to them.
#[test]
fn an_array_keeps_its_bytes_alive() {
    struct Guard(Arc<std::sync::atomic::AtomicBool>, #[expect(dead_code, reason = "held")] SharedMapping);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Release);
        }
    }
    let bytes = encoded(&[batch(&columns(ROWS))]);
    let place = Place::new(bytes.len());
    place.map.write(0, &bytes);
    let gone = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let owner: Arc<dyn Allocation> = Arc::new(Guard(gone.clone(), place.map.clone()));
    let table = read(&place.map, 0, bytes.len(), &owner).expect("a table");
    drop((owner, place));
    let last = table.batches[0].column_by_name("utf8").expect("a column").slice(3, 5);
    drop(table);
    assert!(!gone.load(std::sync::atomic::Ordering::Acquire));
    assert_eq!(last.as_any().downcast_ref::<StringArray>().expect("text").value(0), "row 3 xxx");
    drop(last);
    assert!(gone.load(std::sync::atomic::Ordering::Acquire), "and no longer");
}

/// The whole way: placed by a client, read by the worker in the arena, nothing copied, all given back.
#[test]
fn tables_of_a_request_are_read_in_the_arena() {
    let worker = ThreadWorker::start();
    let client = worker.client();
    let session = client.session().expect("a session");
    let whole = batch(&columns(ROWS));
    let (first, second) = (encoded(&[whole.slice(0, 400)]), encoded(&[whole.slice(400, 600), whole.clone()]));
    let place = |bytes: &[u8]| {
        let block = session.block(bytes.len()).expect("room");
        block.block().write(0, bytes);
        block
    };
    let tables = [("orders", place(&first)), ("more", place(&second))];
    let rows = 2000 * whole.num_columns();
    for _ in 0..20 {
        let request = Request { payload: Payload::Tables(&tables), codec: 4, ..request("table", &[]) };
        let reply = call(&client, &request).expect("an answer");
        assert_eq!(String::from_utf8(reply.to_vec()).expect("text"), format!("{rows} 0 true"));
    }
    drop((tables, session));
    until("all is given back", || worker.report().arena.used_bytes == 0);
}

#[test]
fn lists_of_lists_of_dictionaries_in_structs_are_read_in_place() {
    let words: DictionaryArray<Int32Type> = (0..ROWS).map(|row| ["a", "b", "c"][row % 3]).collect();
    let mut builder = StructBuilder::from_fields(vec![Field::new("n", DataType::Int32, true)], ROWS);
    (0..ROWS).for_each(|row| {
        builder.field_builder::<Int32Builder>(0).expect("a column").append_value(row as i32);
        builder.append(row % 9 != 0);
    });
    let structs: ArrayRef = Arc::new(builder.finish());
    let item = |array: &ArrayRef| Arc::new(Field::new_list_field(array.data_type().clone(), true));
    let lengths = |n: usize| arrow_buffer::OffsetBuffer::from_lengths(std::iter::repeat_n(ROWS / n, n));
    let inner: ArrayRef = Arc::new(ListArray::new(item(&structs), lengths(100), structs.clone(), None));
    let outer: ArrayRef = Arc::new(ListArray::new(
        item(&inner),
        arrow_buffer::OffsetBuffer::from_lengths(std::iter::repeat_n(10, 10)),
        inner.clone(),
        None,
    ));
    let words: ArrayRef = Arc::new(words);
    let listed: ArrayRef = Arc::new(ListArray::new(item(&words), lengths(10), words.clone(), None));
    let batch = batch(&[("outer", outer), ("words", listed)]);
    let slices = [batch.slice(2, 5), batch.slice(0, 1)];
    let (place, table) = placed(&slices, 0);
    assert_eq!(table.batches, slices);
    assert_eq!((table.copied_bytes, elsewhere_of(&table, &place)), (0, 0));
}
