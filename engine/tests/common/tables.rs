//! Tables as a client places them, and as it reads them.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::reader::StreamReader;
use molt_ipc_shm::Codec;
use molt_ipc_shm::client::{Client, ClientBlock, Payload};
use molt_ipc_shm::table::Encoded;
use serde_json::{Value, json};

use super::ask::{Answer, Ask};

/// A block with these bytes in the client's part of the arena.
pub fn block(client: &Client, bytes: &[u8]) -> Arc<ClientBlock> {
    let block = client.session().unwrap().block(bytes.len()).unwrap();
    block.block().write(0, bytes);
    block
}

/// A table as the client library places it: 64-byte aligned, uncompressed.
pub fn placed(client: &Client, batch: &RecordBatch) -> Arc<ClientBlock> {
    let encoded = Encoded::new(&batch.schema(), [Ok(batch.clone())]).unwrap();
    let block = client.session().unwrap().block(encoded.len()).unwrap();
    encoded.write_to(block.block());
    block
}

/// Regions and amounts.
pub fn orders(rows: &[(&str, f64)]) -> RecordBatch {
    let regions: ArrayRef = Arc::new(rows.iter().map(|(region, _)| Some(*region)).collect::<StringArray>());
    let amounts: ArrayRef = Arc::new(rows.iter().map(|(_, amount)| *amount).collect::<Float64Array>());
    RecordBatch::try_from_iter([("region", regions), ("amount", amounts)]).unwrap()
}

/// One column `x` of the numbers from 0.
pub fn numbers(count: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    RecordBatch::try_from_iter([("x", numbers)]).unwrap()
}

/// The batches of an answer in Arrow.
pub fn batches(answer: &Answer) -> Vec<RecordBatch> {
    assert_eq!(answer.head.codec, molt_ipc_shm::Codec::Arrow as u8, "{}", answer.message);
    let bytes = answer.bytes();
    StreamReader::try_new(bytes.as_slice(), None).unwrap().collect::<Result<_, _>>().unwrap()
}

/// One text and one number a row, of an answer in Arrow with two such columns.
pub fn pairs(answer: &Answer) -> Vec<(String, f64)> {
    let pair = |batch: &RecordBatch, row| {
        let texts = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        let numbers = batch.column(1).as_any().downcast_ref::<Float64Array>().unwrap();
        (texts.value(row).to_owned(), numbers.value(row))
    };
    batches(answer).iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| pair(batch, row))).collect()
}

/// The only number of an answer in Arrow: one row, one column of 64-bit integers.
pub fn count(answer: &Answer) -> i64 {
    let batches = batches(answer);
    batches[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0)
}

/// The params that name a table.
pub fn named(name: &str) -> Value {
    json!({"name": name})
}

/// Puts a table that lies in extents of its own, as the client library does.
pub fn put(client: &Client, name: &str, batch: &RecordBatch) -> Answer {
    let encoded = Encoded::new(&batch.schema(), [Ok(batch.clone())]).unwrap();
    let block = client.session().unwrap().block_of_own_extents(encoded.len()).unwrap();
    encoded.write_to(block.block());
    put_block(client, name, &block)
}

/// The same of bytes that lie there.
pub fn put_block(client: &Client, name: &str, block: &Arc<ClientBlock>) -> Answer {
    let ask = Ask::of("molt.put").params(named(name)).payload(Codec::Arrow as u8, Payload::Block(block));
    ask.accept(Codec::MsgPack).call(client)
}

/// The table of that name, to be read in place.
pub fn table(client: &Client, name: &str) -> Answer {
    Ask::of("molt.table").params(named(name)).accept(Codec::Arrow).call(client)
}

/// What there is.
pub fn listed(client: &Client) -> Vec<Value> {
    Ask::of("molt.tables").accept(Codec::MsgPack).value(client)
}
