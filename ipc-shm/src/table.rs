//! Arrow tables in the arena: placed with one copy, read with none.
//!
//! A table lies there as a standard Arrow IPC stream (schema, dictionaries, record batches, end), uncompressed, every
//! buffer at a multiple of 64: any Arrow implementation can read it. Reading builds arrays whose buffers point into the
//! mapping, one allocation per column buffer with its tight length, so that memory accounting sees columns, not messages.
//!
//! Everything that decides where to look is copied out before it is checked (a message's metadata), the data are
//! validated in full (offsets, UTF-8, dictionary keys), and a panic in the decoder becomes an error.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, make_array};
use arrow_buffer::alloc::Allocation;
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::{ArrayData, UnsafeFlag};
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{RecordBatchDecoder, read_dictionary_impl};
use arrow_ipc::writer::StreamEncoder;
use arrow_ipc::{MessageHeader, MetadataVersion, root_as_message};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};

use crate::block::Block;
use crate::mapping::Mapping;

mod valid;

/// A table that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Arrow table of {len} bytes cannot be read at byte {at}: {what}")]
pub struct TableFault {
    /// Bytes of the table.
    pub len: usize,
    /// Where reading stopped.
    pub at: usize,
    /// Why.
    pub what: String,
}

/// A table read in place.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
    /// Bytes of buffers that could not be used where they lie (misaligned in a foreign body): 0 for what we placed.
    pub copied_bytes: u64,
}

/// Metadata of one message is a few hundred bytes a column; more than this is no table.
const METADATA_MOST: usize = 16 << 20;
/// Rows of one batch. Columns of the null type have rows without bytes, so the bytes bound nothing.
const ROWS_MOST: i64 = i32::MAX as i64;
const CONTINUATION: u32 = u32::MAX;

/// Reads the IPC stream at `offset`, validating it in full. `owner` keeps the bytes alive for as long as an array points
/// to them.
pub fn read(map: &Arc<Mapping>, offset: usize, len: usize, owner: &Arc<dyn Allocation>) -> Result<Table, TableFault> {
    read_with(map, offset, len, owner, UnsafeFlag::new())
}

/// The same for a table that the worker has validated or written itself, as it says in the answer's head: its data are
/// not gone through again, so opening takes the same time whatever its size.
pub(crate) fn read_valid(
    map: &Arc<Mapping>,
    offset: usize,
    len: usize,
    owner: &Arc<dyn Allocation>,
) -> Result<Table, TableFault> {
    let mut skip_validation = UnsafeFlag::new();
    // SAFETY: the worker marks only what it has read in full through `read` or encoded from valid arrays, and the bytes
    // are its own since then. A client rests on its worker for this, as spec/tables.md says.
    unsafe { skip_validation.set(true) };
    read_with(map, offset, len, owner, skip_validation)
}

fn read_with(
    map: &Arc<Mapping>,
    offset: usize,
    len: usize,
    owner: &Arc<dyn Allocation>,
    skip_validation: UnsafeFlag,
) -> Result<Table, TableFault> {
    let mut reader = Reader {
        map,
        offset,
        len,
        owner,
        skip_validation,
        at: 0,
        dictionaries: HashMap::new(),
        schema: None,
        copied: 0,
    };
    let batches = match catch_unwind(AssertUnwindSafe(|| reader.read())) {
        Ok(result) => result,
        Err(_) => Err("the decoder gave up on it".to_owned()),
    };
    let at = reader.at;
    let fault = |what: String| TableFault { len, at, what };
    let batches = batches.map_err(fault)?;
    let schema = reader.schema.ok_or_else(|| fault("it has no schema".into()))?;
    Ok(Table { schema, batches, copied_bytes: reader.copied })
}

struct Reader<'a> {
    map: &'a Arc<Mapping>,
    offset: usize,
    len: usize,
    owner: &'a Arc<dyn Allocation>,
    skip_validation: UnsafeFlag,
    at: usize,
    dictionaries: HashMap<i64, ArrayRef>,
    schema: Option<SchemaRef>,
    copied: u64,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<Vec<RecordBatch>, String> {
        let mut batches = Vec::new();
        while let Some(metadata) = self.metadata()? {
            let message = root_as_message(&metadata).map_err(|error| format!("its metadata: {error}"))?;
            let body_len = usize::try_from(message.bodyLength()).map_err(|_| "a negative body length".to_owned())?;
            if body_len > self.len - self.at {
                return Err(format!("a body of {body_len} bytes, {} are left", self.len - self.at));
            }
            let body = self.in_place(self.at, body_len);
            let arrow = |error: ArrowError| error.to_string();
            match (message.header_type(), self.schema.clone()) {
                (MessageHeader::Schema, None) => {
                    let schema = message.header_as_schema().ok_or("an empty schema")?;
                    self.schema = Some(Arc::new(fb_to_schema(schema)));
                }
                (MessageHeader::DictionaryBatch, Some(schema)) => {
                    let batch = message.header_as_dictionary_batch().ok_or("an empty dictionary")?;
                    refuse_compressed(batch.data().ok_or("a dictionary without data")?)?;
                    let (seen, id, skip) = (&mut self.dictionaries, batch.id(), self.skip_validation.clone());
                    read_dictionary_impl(&body, batch, &schema, seen, &message.version(), false, skip)
                        .map_err(arrow)?;
                    let values = self.dictionaries.get(&id).ok_or("a dictionary that was not kept")?.to_data();
                    self.count_copied(&values);
                    let tight = make_array(self.tighten(&values));
                    self.dictionaries.insert(id, tight);
                }
                (MessageHeader::RecordBatch, Some(schema)) => {
                    let batch = message.header_as_record_batch().ok_or("an empty batch")?;
                    refuse_compressed(batch)?;
                    if !(0..=ROWS_MOST).contains(&batch.length()) {
                        return Err(format!("a batch of {} rows, at most {ROWS_MOST} are read", batch.length()));
                    }
                    let batch = self.batch(&body, batch, &schema, message.version()).map_err(arrow)?;
                    batches.push(self.placed(batch)?);
                }
                (MessageHeader::Schema, Some(_)) => return Err("a second schema".into()),
                (_, None) => return Err("data before the schema".into()),
                (other, Some(_)) => return Err(format!("a message of kind {}", other.0)),
            }
            self.at += body_len;
        }
        Ok(batches)
    }

    /// The rows of one message, valid.
    fn batch(
        &self,
        body: &Buffer,
        message: arrow_ipc::RecordBatch<'_>,
        schema: &SchemaRef,
        version: MetadataVersion,
    ) -> Result<RecordBatch, ArrowError> {
        let decode = |skip_validation: UnsafeFlag| {
            RecordBatchDecoder::try_new(body, message, Arc::clone(schema), &self.dictionaries, &version)?
                .with_skip_validation(skip_validation)
                .read_record_batch()
        };
        if !self.skip_validation.get() && valid::is_flat(schema) {
            let mut later = UnsafeFlag::new();
            // SAFETY: columns of flat types are made of buffers whose lengths are checked, and no value of theirs is read
            // before `is_valid` has judged all of them.
            unsafe { later.set(true) };
            // Whatever is wrong is found once more below, and said in arrow's words.
            if let Ok(Ok(batch)) = catch_unwind(AssertUnwindSafe(|| decode(later)))
                && valid::is_valid(&batch)
            {
                return Ok(batch);
            }
        }
        decode(self.skip_validation.clone())
    }

    /// The next message's metadata, copied; `None` at the end.
    fn metadata(&mut self) -> Result<Option<Vec<u8>>, String> {
        let word = |reader: &mut Self| {
            let mut bytes = [0; 4];
            if reader.len - reader.at < bytes.len() {
                return Err(format!("it ends after {} bytes, within a message", reader.len));
            }
            reader.map.read(reader.offset + reader.at, &mut bytes);
            reader.at += bytes.len();
            Ok(u32::from_le_bytes(bytes))
        };
        if self.at == self.len && self.schema.is_some() {
            return Ok(None); // some writers leave the end marker out
        }
        let mut metadata_len = word(self)?;
        if metadata_len == CONTINUATION {
            metadata_len = word(self)?;
        }
        let metadata_len = metadata_len as usize;
        if metadata_len == 0 {
            return Ok(None);
        }
        if metadata_len > METADATA_MOST || metadata_len > self.len - self.at {
            return Err(format!("metadata of {metadata_len} bytes, {} are left", self.len - self.at));
        }
        let mut metadata = Vec::new();
        self.map.read_to_vec(self.offset + self.at, metadata_len, &mut metadata);
        self.at += metadata_len;
        Ok(Some(metadata))
    }

    /// A buffer that is the mapped bytes themselves.
    fn in_place(&self, at: usize, len: usize) -> Buffer {
        self.buffer(self.map.readable(self.offset + at, len), len)
    }

    fn buffer(&self, start: *const u8, len: usize) -> Buffer {
        let Some(start) = NonNull::new(start.cast_mut()).filter(|_| len > 0) else { return Buffer::from(&[]) };
        // SAFETY: the bytes lie inside the mapping (`readable` checked it; `tighten` passes parts of such a buffer), and
        // `owner` keeps the mapping and the block's claim for as long as the buffer lives. That the peer does not write
        // them meanwhile is the promise that spec/tables.md states: they are read in place, after validation.
        unsafe { Buffer::from_custom_allocation(start, len, self.owner.clone()) }
    }

    fn is_placed(&self, buffer: &Buffer) -> bool {
        let start = self.map.readable(self.offset, self.len) as usize;
        (start..start + self.len).contains(&(buffer.as_ptr() as usize))
    }

    /// Gives every buffer of a batch an allocation of its own length.
    fn placed(&mut self, batch: RecordBatch) -> Result<RecordBatch, String> {
        let columns: Vec<ArrayRef> = batch
            .columns()
            .iter()
            .map(|column| {
                let data = column.to_data();
                self.count_copied(&data);
                make_array(self.tighten(&data))
            })
            .collect();
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(|error| error.to_string())
    }

    fn tighten(&self, data: &ArrayData) -> ArrayData {
        let tight = |buffer: &Buffer| {
            if self.is_placed(buffer) { self.buffer(buffer.as_ptr(), buffer.len()) } else { buffer.clone() }
        };
        let nulls = data.nulls().map(|nulls| {
            let bits = BooleanBuffer::new(tight(nulls.buffer()), nulls.offset(), nulls.len());
            // SAFETY: the same bits at the same place, so the count is the same.
            unsafe { NullBuffer::new_unchecked(bits, nulls.null_count()) }
        });
        let builder = data
            .clone()
            .into_builder()
            .nulls(nulls)
            .buffers(data.buffers().iter().map(tight).collect())
            .child_data(data.child_data().iter().map(|child| self.tighten(child)).collect());
        // SAFETY: `data` was validated, and every buffer has the same address and length as before.
        unsafe { builder.build_unchecked() }
    }

    fn count_copied(&mut self, data: &ArrayData) {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        let elsewhere = data.buffers().iter().chain(nulls).filter(|buffer| !self.is_placed(buffer));
        self.copied += elsewhere.map(|buffer| buffer.len() as u64).sum::<u64>();
        // A dictionary's values were counted when their own message was read.
        if !matches!(data.data_type(), DataType::Dictionary(..)) {
            data.child_data().iter().for_each(|child| self.count_copied(child));
        }
    }
}

/// Compressed buffers state how large they become, and the decoder believes them: four bytes could ask for all memory.
fn refuse_compressed(batch: arrow_ipc::RecordBatch<'_>) -> Result<(), String> {
    match batch.compression() {
        None => Ok(()),
        Some(_) => Err("its buffers are compressed; hint: write the stream without compression".into()),
    }
}

/// Whether a column of this type may have runs beside its rows: on the top, or in a struct or union.
fn holds_runs(kind: &DataType) -> bool {
    match kind {
        DataType::RunEndEncoded(..) => true,
        DataType::Struct(fields) => fields.iter().any(|field| holds_runs(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| holds_runs(field.data_type())),
        _ => false,
    }
}

/// A table encoded as a list of buffers that still are the source's own: writing it into a block is the one copy.
#[derive(Debug)]
pub struct Encoded {
    buffers: Vec<Buffer>,
    len: usize,
}

impl Encoded {
    /// Encodes without copying column data.
    pub fn new(
        schema: &Schema,
        batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
    ) -> Result<Self, ArrowError> {
        let mut encoder = StreamEncoder::try_new(schema)?;
        let mut buffers = Vec::new();
        // Of runs, arrow-ipc 59 writes a slice without rows as no reader takes it: one run, which ends at 0.
        let runs = schema.fields().iter().any(|field| holds_runs(field.data_type()));
        for batch in batches {
            let batch = batch?;
            if !runs || batch.num_rows() > 0 {
                buffers.extend(encoder.encode(&batch)?);
            }
        }
        buffers.extend(encoder.finish()?);
        let len = buffers.iter().map(Buffer::len).sum();
        Ok(Self { buffers, len })
    }

    /// Bytes of the whole stream.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte (never, for a table).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the stream into a block of [`Encoded::len`] bytes.
    pub fn write_to(&self, block: &Block) {
        let mut at = 0;
        for buffer in &self.buffers {
            block.write(at, buffer);
            at += buffer.len();
        }
    }
}
