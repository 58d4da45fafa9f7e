//! A table into the arena, and read where it lies.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::ArrowError;
use molt_ipc_shm::table::{self, Encoded};

use crate::Arguments;
use crate::call::Pair;

const ROWS: usize = 10_000;

fn batch() -> RecordBatch {
    let numbers: ArrayRef = Arc::new((0..ROWS as i64).collect::<Int64Array>());
    let amounts: ArrayRef = Arc::new((0..ROWS).map(|row| row as f64 * 0.25).collect::<Float64Array>());
    let regions = ["north", "south", "east", "west"];
    let regions: ArrayRef = Arc::new((0..ROWS).map(|row| Some(regions[row % 4])).collect::<StringArray>());
    RecordBatch::try_from_iter([("number", numbers), ("amount", amounts), ("region", regions)]).expect("a table")
}

/// Encodes it and writes it into a block.
pub fn place(arguments: &Arguments) {
    let pair = Pair::start();
    let session = pair.client.session().expect("a session");
    let batch = batch();
    crate::walk(arguments, || {
        let encoded = Encoded::new(&batch.schema(), [Ok::<_, ArrowError>(batch.clone())]).expect("an encoding");
        let block = session.block(encoded.len()).expect("room");
        encoded.write_to(block.block());
    });
}

/// Opens it in place, with all checks.
pub fn read(arguments: &Arguments) {
    let pair = Pair::start();
    let session = pair.client.session().expect("a session");
    let batch = batch();
    let encoded = Encoded::new(&batch.schema(), [Ok::<_, ArrowError>(batch.clone())]).expect("an encoding");
    let block = session.block(encoded.len()).expect("room");
    encoded.write_to(block.block());
    let owner: Arc<dyn arrow_buffer::alloc::Allocation> = block.clone();
    let (offset, len) = (block.block().offset(), block.block().len());
    crate::walk(arguments, || {
        let table = table::read(block.block().mapping(), offset, len, &owner).expect("a table");
        assert_eq!(table.batches[0].num_rows(), ROWS);
    });
}
