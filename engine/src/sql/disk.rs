//! Tables that stay on disk: Parquet files that a run reads as it goes, so that a table may be larger than memory.
//!
//! What is kept of a file is its footer. A run reads the columns that its statement names, out of the row groups that its
//! conditions leave, a batch at a time. A file that is not the one that was loaded any more is an error: its footer would
//! describe other bytes.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, ParquetFileMetrics, RowGroupAccessPlanFilter};
use datafusion::logical_expr::ColumnarValue;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;

use super::monotone::{judged_by_bounds, without_floats};
use super::stop::StopCell;

/// A table in one Parquet file, or in all that lie in and below a folder.
#[derive(Debug)]
pub struct DiskTable {
    files: Vec<DiskFile>,
    schema: SchemaRef,
    pub rows: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes of the columns once they are decompressed.
    pub decoded_bytes: usize,
}

#[derive(Debug)]
struct DiskFile {
    path: PathBuf,
    identity: Identity,
    footer: ArrowReaderMetadata,
}

/// What tells one file from another under the same name.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The Parquet files of a table: `path` itself, or those in and below it, in the order of their names. Files and folders
/// whose name begins with a dot or an underscore are others' notes.
pub fn parquet_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut folders) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        let said = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(said)? {
            let entry = entry.map_err(said)?;
            let (name, path) = (entry.file_name(), entry.path());
            if name.to_string_lossy().starts_with(['.', '_']) {
                continue;
            }
            if entry.file_type().map_err(said)?.is_dir() {
                folders.push(path);
            } else if is_parquet(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() { Err("no .parquet file is in this folder".into()) } else { Ok(found) }
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

impl DiskTable {
    /// Reads the footers.
    pub fn open(path: &Path) -> Result<Self, String> {
        if !path.is_dir() && !is_parquet(path) {
            return Err("a table that stays on disk is a .parquet file, or a folder of such".into());
        }
        let mut files: Vec<DiskFile> = Vec::new();
        for path in parquet_files(path)? {
            let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let file = File::open(&path).map_err(|error| said(&error))?;
            let identity = Identity::of(&file.metadata().map_err(|error| said(&error))?);
            let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| said(&error))?;
            if let Some(first) = files.first() {
                same_columns(first.footer.schema(), footer.schema()).map_err(|what| said(&what))?;
            }
            files.push(DiskFile { path, identity, footer });
        }
        let schema = Arc::clone(files[0].footer.schema());
        let groups = || files.iter().flat_map(|file| file.footer.metadata().row_groups());
        let rows = groups().map(|group| group.num_rows() as usize).sum();
        let decoded_bytes = groups().map(|group| group.total_byte_size() as usize).sum();
        let bytes = files.iter().map(|file| file.identity.len).sum();
        Ok(Self { files, schema, rows, bytes, decoded_bytes })
    }

    /// The columns, the same in all files.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// One partition's share: row groups that may have rows for `condition`, by file, about as many rows to each partition.
    fn share(&self, partition: usize, partitions: usize, condition: Option<&Arc<dyn PhysicalExpr>>) -> Vec<Share> {
        let kept: Vec<Vec<usize>> = self.files.iter().map(|file| file.row_groups(condition)).collect();
        let rows_of = |file: &DiskFile, group: usize| file.footer.metadata().row_group(group).num_rows() as u128;
        let pairs = || self.files.iter().zip(&kept);
        let all: u128 =
            pairs().map(|(file, groups)| groups.iter().map(|group| rows_of(file, *group)).sum::<u128>()).sum();
        let (mut before, mut shares) = (0_u128, Vec::new());
        for (index, (file, groups)) in pairs().enumerate() {
            let mut own = Vec::new();
            for group in groups {
                if before * partitions as u128 / all.max(1) == partition as u128 {
                    own.push(*group);
                }
                before += rows_of(file, *group);
            }
            if !own.is_empty() {
                shares.push(Share { file: index, row_groups: own });
            }
        }
        shares
    }
}

/// Row groups of one file.
#[derive(Debug)]
struct Share {
    file: usize,
    row_groups: Vec<usize>,
}

impl DiskFile {
    fn row_groups(&self, condition: Option<&Arc<dyn PhysicalExpr>>) -> Vec<usize> {
        let metadata = self.footer.metadata();
        let all = ParquetAccessPlan::new_all(metadata.num_row_groups());
        let schema = self.footer.schema();
        let predicate = condition
            .and_then(|condition| without_floats(condition, schema))
            .and_then(|condition| judged_by_bounds(&condition, schema))
            .and_then(|condition| PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).build(condition));
        let mut filter = RowGroupAccessPlanFilter::new(all);
        if let Some(predicate) = predicate {
            let metrics = ParquetFileMetrics::new(0, "", &ExecutionPlanMetricsSet::new());
            let (parquet, groups) = (self.footer.parquet_schema(), metadata.row_groups());
            filter.prune_by_statistics(schema, parquet, groups, &predicate, &metrics);
        }
        filter.row_group_indexes().collect()
    }

    fn open(&self) -> DfResult<File> {
        let said = |what: String| DataFusionError::External(format!("{}: {what}", self.path.display()).into());
        let file = File::open(&self.path).map_err(|error| said(error.to_string()))?;
        let identity = Identity::of(&file.metadata().map_err(|error| said(error.to_string()))?);
        if identity != self.identity {
            return Err(said("it is another file than the one that was loaded; hint: load the table again".into()));
        }
        Ok(file)
    }
}

fn same_columns(first: &SchemaRef, other: &SchemaRef) -> Result<(), String> {
    let columns = |schema: &SchemaRef| -> Vec<_> {
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    let (first, other) = (columns(first), columns(other));
    match first.iter().zip(&other).find(|(one, other)| one != other) {
        Some(((name, kind), (other, other_kind))) => Err(format!(
            "column \"{other}\" ({other_kind}) stands where the first file has \"{name}\" ({kind}); all files have the same \
             columns"
        )),
        None if first.len() != other.len() => {
            Err(format!("it has {} columns, the first file has {}", other.len(), first.len()))
        }
        None => Ok(()),
    }
}

/// The condition with what this run's parameters are: an expression of columns and values.
pub fn with_run_values(condition: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> DfResult<Arc<dyn PhysicalExpr>> {
    let nothing = RecordBatch::new_empty(Arc::clone(schema));
    Arc::clone(condition)
        .transform_down(|expr| match expr.downcast_ref::<ScalarFunctionExpr>() {
            Some(function) if function.args().is_empty() => match expr.evaluate(&nothing)? {
                ColumnarValue::Scalar(value) => Ok(Transformed::yes(Arc::new(Literal::new(value)) as _)),
                ColumnarValue::Array(_) => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        })
        .data()
}

/// One partition of a scan.
pub struct DiskScan {
    table: Arc<DiskTable>,
    shares: std::vec::IntoIter<Share>,
    reader: Option<ParquetRecordBatchReader>,
    /// Columns wanted, in this order; `None`: all.
    projection: Option<Vec<usize>>,
    schema: SchemaRef,
    batch_size: usize,
    stop: Arc<StopCell>,
}

impl DiskScan {
    /// The rows of `partition`, in batches of `schema`: the columns of `projection`.
    #[expect(clippy::too_many_arguments, reason = "what a scan is made of; there is one caller")]
    pub fn new(
        table: Arc<DiskTable>,
        partition: usize,
        partitions: usize,
        condition: Option<&Arc<dyn PhysicalExpr>>,
        projection: Option<Vec<usize>>,
        schema: SchemaRef,
        batch_size: usize,
        stop: Arc<StopCell>,
    ) -> DfResult<Self> {
        let condition = condition.map(|condition| with_run_values(condition, table.schema())).transpose()?;
        let shares = table.share(partition, partitions, condition.as_ref()).into_iter();
        Ok(Self { table, shares, reader: None, projection, schema, batch_size, stop })
    }

    fn open(&self, share: Share) -> DfResult<ParquetRecordBatchReader> {
        let file = &self.table.files[share.file];
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.open()?, file.footer.clone());
        let builder = builder.with_batch_size(self.batch_size).with_row_groups(share.row_groups);
        let builder = match &self.projection {
            Some(columns) => {
                let mask = ProjectionMask::roots(file.footer.parquet_schema(), columns.iter().copied());
                builder.with_projection(mask)
            }
            None => builder,
        };
        Ok(builder.build()?)
    }

    /// The columns in the order wanted: a reader gives them in the file's.
    fn arranged(&self, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let columns: Vec<ArrayRef> = match &self.projection {
            None => batch.columns().to_vec(),
            Some(wanted) => {
                let mut read = wanted.clone();
                read.sort_unstable();
                read.dedup();
                let place = |column: &usize| read.binary_search(column).unwrap_or_default();
                wanted.iter().map(|column| Arc::clone(batch.column(place(column)))).collect()
            }
        };
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)?)
    }

    fn next_batch(&mut self) -> DfResult<Option<RecordBatch>> {
        loop {
            self.stop.check()?;
            if let Some(batch) = self.reader.as_mut().and_then(Iterator::next) {
                return self.arranged(&batch?).map(Some);
            }
            match self.shares.next() {
                Some(share) => self.reader = Some(self.open(share)?),
                None => return Ok(None),
            }
        }
    }
}

impl Iterator for DiskScan {
    type Item = DfResult<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}
