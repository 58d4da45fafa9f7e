//! Files read whole into a table: CSV, Parquet, JSON lines, Arrow.

use std::fs::File;
use std::io::{BufReader, Read, Result as IoResult, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use datafusion::arrow::csv;
use datafusion::arrow::json;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::disk::parquet_files;
use super::loading::Loading;
use super::stop::Stopped;

/// Rows read from the start of a CSV or JSON file to find its columns' types.
const INFERENCE_ROWS: usize = 10_000;
/// Rows per batch.
const BATCH_ROWS: usize = 64 * 1024;

/// A file's columns and rows.
pub type Contents = (SchemaRef, Vec<RecordBatch>);

/// Why a file did not become a table.
#[derive(Debug, PartialEq)]
pub enum LoadError {
    Stopped(Stopped),
    /// In words, with table and file.
    Unreadable(String),
}

/// Reads a file whole, or all Parquet files of a folder. Its extension says what it is.
pub fn read_file(name: &str, path: &Path, loading: &Loading) -> Result<Contents, LoadError> {
    read(path, loading).map_err(|error| match error {
        LoadError::Unreadable(reason) => {
            LoadError::Unreadable(format!("table \"{name}\": cannot load {}: {reason}", path.display()))
        }
        stopped => stopped,
    })
}

fn read(path: &Path, loading: &Loading) -> Result<Contents, LoadError> {
    let said = |reason: String| LoadError::Unreadable(reason);
    if path.is_dir() {
        return read_folder(path, loading);
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let reader: fn(Counted, &Loading) -> Result<Contents, ArrowError> = match extension.as_str() {
        "csv" => read_csv,
        "parquet" => read_parquet,
        "json" | "jsonl" | "ndjson" => read_json_lines,
        "arrow" | "ipc" | "feather" => read_arrow,
        _ => {
            return Err(said(format!(
                "unknown extension \"{extension}\"; known are csv, parquet, json, jsonl, ndjson, arrow, ipc, feather, and a \
                 folder of parquet files"
            )));
        }
    };
    let file = File::open(path).map_err(|error| said(error.to_string()))?;
    loading.expect(file.metadata().map_or(0, |metadata| metadata.len()));
    reader(Counted::new(file), loading).map_err(load_error)
}

fn load_error(error: ArrowError) -> LoadError {
    if let ArrowError::ExternalError(source) = &error
        && let Some(stopped) = source.downcast_ref::<Stopped>()
    {
        return LoadError::Stopped(*stopped);
    }
    LoadError::Unreadable(error.to_string())
}

/// All files of a folder, one after the other. They have the same columns.
fn read_folder(folder: &Path, loading: &Loading) -> Result<Contents, LoadError> {
    let paths = parquet_files(folder).map_err(LoadError::Unreadable)?;
    let sizes = paths.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
    loading.expect(sizes.sum());
    let (mut schema, mut all, mut before) = (None::<SchemaRef>, Vec::new(), 0);
    for path in paths {
        let said = |reason: String| LoadError::Unreadable(format!("{}: {reason}", path.display()));
        let file = File::open(&path).map_err(|error| said(error.to_string()))?;
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        let (columns, batches) = parquet(file, len, before, loading).map_err(|error| match load_error(error) {
            LoadError::Unreadable(reason) => said(reason),
            stopped => stopped,
        })?;
        if schema.get_or_insert_with(|| Arc::clone(&columns)).fields() != columns.fields() {
            return Err(said("its columns are not those of the first file".into()));
        }
        all.extend(batches);
        before += len;
    }
    // There is a first file, or there was no list of them.
    schema.map(|schema| (schema, all)).ok_or_else(|| LoadError::Unreadable("no file".into()))
}

fn read_csv(mut file: Counted, loading: &Loading) -> Result<Contents, ArrowError> {
    let format = csv::reader::Format::default().with_header(true);
    let (schema, _) = format.infer_schema(&mut file, Some(INFERENCE_ROWS))?;
    file.rewind()?;
    let read = file.count();
    let reader =
        csv::ReaderBuilder::new(Arc::new(schema)).with_format(format).with_batch_size(BATCH_ROWS).build(file)?;
    collect(reader, loading, |_| read.load(Ordering::Relaxed))
}

fn read_json_lines(file: Counted, loading: &Loading) -> Result<Contents, ArrowError> {
    let read = file.count();
    let mut file = BufReader::new(file);
    let (schema, _) = json::reader::infer_json_schema_from_seekable(&mut file, Some(INFERENCE_ROWS))?;
    let reader = json::ReaderBuilder::new(Arc::new(schema)).with_batch_size(BATCH_ROWS).build(file)?;
    collect(reader, loading, |_| read.load(Ordering::Relaxed))
}

fn read_parquet(file: Counted, loading: &Loading) -> Result<Contents, ArrowError> {
    let len = file.file.metadata()?.len();
    parquet(file.file, len, 0, loading)
}

/// A Parquet file of `len` bytes; `before` bytes of the load are read already.
fn parquet(file: File, len: u64, before: u64, loading: &Loading) -> Result<Contents, ArrowError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS);
    let rows = builder.metadata().file_metadata().num_rows().max(1) as u128;
    let reader = builder.build()?;
    collect(reader, loading, |read| before + (u128::from(len) * read as u128 / rows) as u64)
}

/// An Arrow file, or, as the same extensions are used for both, a stream.
fn read_arrow(mut file: Counted, loading: &Loading) -> Result<Contents, ArrowError> {
    let read = file.count();
    let bytes = |_| read.load(Ordering::Relaxed);
    match arrow_ipc::reader::FileReader::try_new(&mut file, None) {
        Ok(reader) => collect(reader, loading, bytes),
        Err(not_a_file) => {
            file.rewind()?;
            match arrow_ipc::reader::StreamReader::try_new(BufReader::new(file), None) {
                Ok(reader) => collect(reader, loading, bytes),
                Err(_) => Err(not_a_file),
            }
        }
    }
}

/// All batches; `bytes` tells how many bytes are behind that many rows.
fn collect(
    reader: impl RecordBatchReader,
    loading: &Loading,
    bytes: impl Fn(usize) -> u64,
) -> Result<Contents, ArrowError> {
    let schema = reader.schema();
    let (mut batches, mut rows) = (Vec::new(), 0);
    for batch in reader {
        let batch: RecordBatch = batch?;
        rows += batch.num_rows();
        loading.read(batch.num_rows(), bytes(rows)).map_err(|stopped| ArrowError::ExternalError(Box::new(stopped)))?;
        batches.push(batch);
    }
    Ok((schema, batches))
}

/// A file that knows how far it was read.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Counted {
    fn new(file: File) -> Self {
        Self { file, read: Arc::default() }
    }

    fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let read = self.file.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Seek for Counted {
    /// What is read again counts once.
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        let place = self.file.seek(to)?;
        self.read.store(place, Ordering::Relaxed);
        Ok(place)
    }
}
