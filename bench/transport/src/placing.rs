//! S4: placing a table in the arena, against a plain copy of as many bytes into memory that is as warm.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow_schema::ArrowError;
use molt_ipc_shm::table::Encoded;
use serde::Serialize;

use crate::peer::{Place, Tried};
use crate::peers::molt;
use crate::server::Server;
use crate::timing::median;

/// Medians over the rounds.
#[derive(Debug, Serialize)]
pub struct Placing {
    /// Bytes of the table in the arena.
    pub bytes: usize,
    /// Bytes a second: schema and batches written as Arrow IPC into a block of the arena.
    pub table_gb_per_s: f64,
    /// Bytes a second: `copy_from_slice` into private memory that was written before.
    pub memcpy_gb_per_s: f64,
    /// Their ratio: the median of the rounds' ratios.
    pub ratio: f64,
    /// The least and the largest ratio of a round.
    pub ratio_from: f64,
    /// See `ratio_from`.
    pub ratio_to: f64,
    /// Rounds.
    pub rounds: usize,
}

/// A table of two columns.
fn table(bytes: usize) -> Tried<RecordBatch> {
    let rows = bytes / 16;
    let numbers: ArrayRef = Arc::new((0..rows as i64).collect::<Int64Array>());
    let amounts: ArrayRef = Arc::new((0..rows).map(|row| row as f64 * 0.25).collect::<Float64Array>());
    Ok(RecordBatch::try_from_iter([("number", numbers), ("amount", amounts)])?)
}

/// Times both in turn.
pub fn measure(place: &Place, bytes: usize, rounds: usize) -> Tried<Placing> {
    eprintln!("placing: a table of {bytes} bytes");
    let place = Place { size: bytes, folder: place.folder.join("placing"), ..place.clone() };
    std::fs::create_dir_all(&place.folder)?;
    let _server = Server::start(&molt::Molt, &place, &[])?;
    let client = molt::attach(&place)?;
    let batch = table(bytes)?;
    let source = vec![1_u8; bytes];
    let mut target = vec![2_u8; bytes];
    let (mut tables, mut copies, mut placed) = (Vec::new(), Vec::new(), 0);
    // One round more: in the first one the arena's pages are touched for the first time.
    for round in 0..=rounds.max(1) {
        let began = Instant::now();
        let encoded = Encoded::new(&batch.schema(), [Ok::<_, ArrowError>(batch.clone())])?;
        let block = client.session()?.block(encoded.len())?;
        encoded.write_to(block.block());
        let table = began.elapsed();
        let began = Instant::now();
        target.copy_from_slice(black_box(&source));
        black_box(&mut target);
        let copy = began.elapsed();
        placed = block.block().len();
        if round > 0 {
            tables.push(placed as f64 / table.as_secs_f64() / 1e9);
            copies.push(bytes as f64 / copy.as_secs_f64() / 1e9);
        }
    }
    let ratios: Vec<f64> = tables.iter().zip(&copies).map(|(table, copy)| table / copy).collect();
    Ok(Placing {
        bytes: placed,
        ratio_from: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratio_to: ratios.iter().copied().fold(0.0, f64::max),
        ratio: median(ratios),
        table_gb_per_s: median(tables),
        memcpy_gb_per_s: median(copies),
        rounds,
    })
}
