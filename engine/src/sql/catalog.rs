//! Tables that the worker itself holds: loaded from files at start, usable by name in every statement.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;
use std::sync::{Arc, RwLock};

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use datafusion::arrow::csv;
use datafusion::arrow::json;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::scan::TableData;

/// Rows read from the start of a CSV or JSON file to find its columns' types.
const INFERENCE_ROWS: usize = 10_000;
/// Rows per batch.
const BATCH_ROWS: usize = 64 * 1024;

/// What loading a table came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedTable {
    pub rows: usize,
    /// Bytes of its column buffers.
    pub bytes: usize,
}

/// Named tables. Each is immutable: replacing one leaves the old rows to the runs that began with them.
#[derive(Debug, Default)]
pub struct Catalog {
    tables: RwLock<BTreeMap<String, Arc<TableData>>>,
}

impl Catalog {
    /// The table of that name.
    pub fn get(&self, name: &str) -> Option<Arc<TableData>> {
        self.tables.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(name).cloned()
    }

    /// The names of all tables, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tables.read().unwrap_or_else(|poisoned| poisoned.into_inner()).keys().cloned().collect()
    }

    /// Adds or replaces a table.
    pub fn put(&self, name: &str, data: TableData) -> LoadedTable {
        let loaded = LoadedTable { rows: data.rows, bytes: data.bytes() };
        self.tables.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(name.to_string(), Arc::new(data));
        loaded
    }

    /// Reads a file whole into a table. Its extension says what it is.
    pub fn load(&self, name: &str, path: &Path) -> Result<LoadedTable, String> {
        let (schema, batches) =
            read(path).map_err(|reason| format!("table \"{name}\": cannot load {}: {reason}", path.display()))?;
        let data = TableData::new(schema, batches).map_err(|reason| format!("table \"{name}\": {reason}"))?;
        Ok(self.put(name, data))
    }
}

type Contents = (SchemaRef, Vec<RecordBatch>);

fn read(path: &Path) -> Result<Contents, String> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let reader: fn(File) -> Result<Contents, ArrowError> = match extension.as_str() {
        "csv" => read_csv,
        "parquet" => read_parquet,
        "json" | "jsonl" | "ndjson" => read_json_lines,
        "arrow" | "ipc" | "feather" => read_arrow,
        _ => {
            return Err(format!(
                "unknown extension \"{extension}\"; known are csv, parquet, json, jsonl, ndjson, arrow, ipc, feather"
            ));
        }
    };
    let file = File::open(path).map_err(|error| error.to_string())?;
    reader(file).map_err(|error| error.to_string())
}

fn read_csv(mut file: File) -> Result<Contents, ArrowError> {
    let format = csv::reader::Format::default().with_header(true);
    let (schema, _) = format.infer_schema(&mut file, Some(INFERENCE_ROWS))?;
    file.rewind()?;
    let reader =
        csv::ReaderBuilder::new(Arc::new(schema)).with_format(format).with_batch_size(BATCH_ROWS).build(file)?;
    collect(reader)
}

fn read_json_lines(file: File) -> Result<Contents, ArrowError> {
    let mut file = BufReader::new(file);
    let (schema, _) = json::reader::infer_json_schema_from_seekable(&mut file, Some(INFERENCE_ROWS))?;
    let reader = json::ReaderBuilder::new(Arc::new(schema)).with_batch_size(BATCH_ROWS).build(file)?;
    collect(reader)
}

fn read_parquet(file: File) -> Result<Contents, ArrowError> {
    collect(ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS).build()?)
}

/// An Arrow file, or, as the same extensions are used for both, a stream.
fn read_arrow(mut file: File) -> Result<Contents, ArrowError> {
    match arrow_ipc::reader::FileReader::try_new(&mut file, None) {
        Ok(reader) => collect(reader),
        Err(not_a_file) => {
            file.rewind()?;
            match arrow_ipc::reader::StreamReader::try_new(BufReader::new(file), None) {
                Ok(reader) => collect(reader),
                Err(_) => Err(not_a_file),
            }
        }
    }
}

fn collect(reader: impl RecordBatchReader) -> Result<Contents, ArrowError> {
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<RecordBatch>, ArrowError>>()?;
    Ok((schema, batches))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use arrow_array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn sample() -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let names: ArrayRef = Arc::new(StringArray::from(vec!["ann", "bob", "cyd"]));
        RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap()
    }

    /// A folder of its own per test, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("molt-catalog-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            File::create(&path).unwrap().write_all(bytes).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn every_format_gives_the_same_rows() {
        let folder = Folder::new("formats");
        let (mut arrow, mut stream, mut parquet) = (Vec::new(), Vec::new(), Vec::new());
        let batch = sample();
        let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut arrow, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut stream, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut writer = datafusion::parquet::arrow::ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let lines = b"{\"id\":1,\"name\":\"ann\"}\n{\"id\":2,\"name\":\"bob\"}\n{\"id\":3,\"name\":\"cyd\"}\n";
        let catalog = Catalog::default();
        for (file, bytes) in [
            ("t.arrow", &arrow[..]),
            ("s.feather", &stream[..]),
            ("t.parquet", &parquet[..]),
            ("t.csv", b"id,name\n1,ann\n2,bob\n3,cyd\n"),
            ("t.JSONL", lines),
        ] {
            let loaded = catalog.load("t", &folder.file(file, bytes)).unwrap();
            assert!(loaded.rows == 3 && loaded.bytes > 0, "{file}");
            let data = catalog.get("t").unwrap();
            assert_eq!(data.batches.len(), 1, "{file}");
            assert_eq!(data.batches[0].columns(), batch.columns(), "{file}");
        }
        assert_eq!(catalog.names(), ["t"]);
    }

    #[test]
    fn an_error_names_table_and_file() {
        let folder = Folder::new("errors");
        let catalog = Catalog::default();
        for (path, expected) in [
            (folder.0.join("missing.csv"), "No such file"),
            (folder.file("t.xlsx", b""), "unknown extension \"xlsx\""),
            (folder.file("t.parquet", b"not parquet"), ""),
            (folder.file("t.arrow", b"not arrow at all"), ""),
            (folder.file("t.csv", b"id,name\n1\n"), ""),
        ] {
            let error = catalog.load("orders", &path).unwrap_err();
            assert!(error.starts_with("table \"orders\": cannot load "), "{error}");
            assert!(error.contains(path.to_str().unwrap()) && error.contains(expected), "{error}");
        }
        assert!(catalog.names().is_empty());
    }
}
