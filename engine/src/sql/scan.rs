//! Tables in memory as DataFusion sees them: a provider for the planner and a leaf for the run, joined by a slot.
//!
//! A kept plan outlives the request that it was made for, so its leaves hold no rows: a leaf reads, when a run starts, what
//! lies in its slot. Rows are never copied: a leaf hands out slices of the batches it was given.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, DataFusionError, Result as DfResult, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};

use super::stop::StopCell;

/// Rows of one table, as given: buffers may point into shared memory.
#[derive(Debug, Clone)]
pub struct TableData {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Sum of the batches' rows.
    pub rows: usize,
}

impl TableData {
    /// Counts the rows; copies nothing. Fails where a batch has not the columns of `schema`.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self, String> {
        for (index, batch) in batches.iter().enumerate() {
            let fits = batch.num_columns() == schema.fields().len()
                && batch
                    .columns()
                    .iter()
                    .zip(schema.fields())
                    .all(|(column, field)| column.data_type() == field.data_type());
            if !fits {
                return Err(format!("batch {index} has not the columns of the table's schema"));
            }
        }
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        Ok(Self { schema, batches, rows })
    }

    /// Bytes of the column buffers, each counted as large as it was allocated.
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

/// The tables of a run, by name.
pub type Tables = BTreeMap<String, Arc<TableData>>;

/// Where a leaf finds the rows of this run.
#[derive(Debug, Default)]
pub struct TableSlot {
    data: Mutex<Option<Arc<TableData>>>,
}

impl TableSlot {
    /// Puts the rows in for a run, or takes them out after it, so that a kept plan holds nobody's memory.
    pub fn set(&self, data: Option<Arc<TableData>>) {
        *self.data.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = data;
    }

    fn get(&self) -> DfResult<Arc<TableData>> {
        let data = self.data.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        data.ok_or_else(|| DataFusionError::Internal("a scan ran without rows in its slot".into()))
    }
}

/// What the planner may know about a table.
#[derive(Debug, Clone)]
pub struct TableFacts {
    pub schema: SchemaRef,
    pub statistics: Statistics,
    /// Partitions that the scan offers: 1 or the number of threads.
    pub partitions: usize,
}

impl TableFacts {
    /// Facts about `data`. In a plan that is kept they are estimates (`exact` false): an exact row count would be folded
    /// into the plan as the answer of `count(*)`.
    pub fn of(data: &TableData, partitions: usize, exact: bool) -> Self {
        let precision = |value| if exact { Precision::Exact(value) } else { Precision::Inexact(value) };
        let column_statistics = (0..data.schema.fields().len())
            .map(|column| {
                let nulls = data.batches.iter().map(|batch| batch.column(column).logical_null_count()).sum();
                ColumnStatistics { null_count: precision(nulls), ..ColumnStatistics::new_unknown() }
            })
            .collect();
        Self {
            schema: Arc::clone(&data.schema),
            statistics: Statistics {
                num_rows: precision(data.rows),
                total_byte_size: precision(data.bytes()),
                column_statistics,
            },
            partitions,
        }
    }
}

/// The table as the planner sees it.
#[derive(Debug)]
pub struct SlotTable {
    pub facts: TableFacts,
    pub slot: Arc<TableSlot>,
    pub stop: Arc<StopCell>,
}

impl TableProvider for SlotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.facts.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // The signature that #[async_trait] gives the method; nothing here waits.
    fn scan<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        _state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _filters: &'d [Expr],
        _limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'e>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
        Self: 'e,
    {
        let scan = SlotScan::new(self, projection.cloned()).map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>);
        Box::pin(std::future::ready(scan))
    }
}

/// The leaf of a plan: reads its slot when the run starts.
#[derive(Debug)]
pub struct SlotScan {
    projection: Option<Vec<usize>>,
    statistics: Arc<Statistics>,
    slot: Arc<TableSlot>,
    stop: Arc<StopCell>,
    properties: Arc<PlanProperties>,
}

impl SlotScan {
    fn new(table: &SlotTable, projection: Option<Vec<usize>>) -> DfResult<Self> {
        let schema = match &projection {
            Some(columns) => Arc::new(table.facts.schema.project(columns)?),
            None => Arc::clone(&table.facts.schema),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(table.facts.partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let mut statistics = table.facts.statistics.clone();
        if let Some(columns) = &projection {
            // The share of the bytes that the columns read would have if all columns were equally wide.
            let width = statistics.column_statistics.len().max(1);
            statistics.total_byte_size =
                statistics.total_byte_size.to_inexact().map(|bytes| bytes * columns.len() / width);
            statistics.column_statistics =
                columns.iter().map(|column| statistics.column_statistics[*column].clone()).collect();
        }
        Ok(Self {
            projection,
            statistics: Arc::new(statistics),
            slot: Arc::clone(&table.slot),
            stop: Arc::clone(&table.stop),
            properties: Arc::new(properties),
        })
    }
}

impl DisplayAs for SlotScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SlotScan: columns={:?}", self.schema().fields().iter().map(|field| field.name()).collect::<Vec<_>>())
    }
}

impl ExecutionPlan for SlotScan {
    fn name(&self) -> &str {
        "SlotScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self) // a leaf without state of its own
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let data = self.slot.get()?;
        let pieces = Pieces::new(
            data,
            partition,
            self.properties.partitioning.partition_count(),
            context.session_config().batch_size(),
        );
        let (schema, projection, stop) = (self.schema(), self.projection.clone(), Arc::clone(&self.stop));
        let labelled = Arc::clone(&schema);
        let stream = futures::stream::iter(pieces.map(move |piece| {
            stop.check()?;
            let columns = match &projection {
                Some(columns) => columns.iter().map(|column| Arc::clone(piece.column(*column))).collect(),
                None => piece.columns().to_vec(),
            };
            let rows = RecordBatchOptions::new().with_row_count(Some(piece.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&labelled), columns, &rows)?)
        }));
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, stream))))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        match args.partition() {
            Some(_) if self.properties.partitioning.partition_count() > 1 => {
                Ok(Arc::new(Statistics::new_unknown(&self.schema())))
            }
            _ => Ok(Arc::clone(&self.statistics)),
        }
    }
}

/// One partition's share of the rows, in order, as slices of at most two DataFusion batches.
struct Pieces {
    data: Arc<TableData>,
    batch: usize,
    /// Rows of `batch` that are done.
    offset: usize,
    left: usize,
    piece: usize,
}

impl Pieces {
    /// Partition `partition` of `partitions` gets one run of consecutive rows.
    fn new(data: Arc<TableData>, partition: usize, partitions: usize, batch_size: usize) -> Self {
        let bound = |part: usize| (data.rows as u128 * part as u128 / partitions.max(1) as u128) as usize;
        let (mut skip, left) = (bound(partition), bound(partition + 1) - bound(partition));
        let mut batch = 0;
        while batch < data.batches.len() && skip >= data.batches[batch].num_rows() {
            skip -= data.batches[batch].num_rows();
            batch += 1;
        }
        Self { data, batch, offset: skip, left, piece: batch_size.max(1) }
    }
}

impl Iterator for Pieces {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        while self.left > 0 {
            let batch = self.data.batches.get(self.batch)?;
            let here = (batch.num_rows() - self.offset).min(self.left);
            if here == 0 {
                (self.batch, self.offset) = (self.batch + 1, 0);
                continue;
            }
            // A tail shorter than a piece goes along: 10,000 rows are one piece, not 8,192 and a remnant.
            let take = if here <= 2 * self.piece { here } else { self.piece };
            let slice = if take == batch.num_rows() { batch.clone() } else { batch.slice(self.offset, take) };
            self.offset += take;
            self.left -= take;
            return Some(slice);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    fn table(sizes: &[usize]) -> Arc<TableData> {
        let mut next = 0_i64;
        let batches: Vec<RecordBatch> = sizes
            .iter()
            .map(|size| {
                let values: ArrayRef = Arc::new(Int64Array::from_iter_values(next..next + *size as i64));
                next += *size as i64;
                RecordBatch::try_from_iter([("x", values)]).unwrap()
            })
            .collect();
        let schema =
            RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![0_i64])) as ArrayRef)]).unwrap().schema();
        Arc::new(TableData::new(schema, batches).unwrap())
    }

    #[test]
    fn partitions_share_out_every_row_once_in_order_and_copy_none() {
        for sizes in [&[][..], &[0, 0], &[5], &[3, 0, 40, 1], &[100, 7, 7]] {
            let data = table(sizes);
            for partitions in 1..5 {
                let mut seen = Vec::new();
                for partition in 0..partitions {
                    for piece in Pieces::new(Arc::clone(&data), partition, partitions, 8) {
                        assert!(piece.num_rows() <= 16 && piece.num_rows() > 0);
                        let values = piece.column(0).as_primitive::<Int64Type>();
                        let start = values.values().as_ptr() as usize;
                        assert!(data.batches.iter().any(|batch| {
                            let whole = batch.column(0).as_primitive::<Int64Type>().values();
                            (whole.as_ptr() as usize..=whole.as_ptr() as usize + 8 * whole.len()).contains(&start)
                        }));
                        seen.extend(values.values().iter().copied());
                    }
                }
                assert_eq!(seen, (0..data.rows as i64).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_batch_that_is_not_of_the_schema_is_refused() {
        let data = table(&[3]);
        let other: ArrayRef = Arc::new(arrow_array::StringArray::from(vec!["a"]));
        let batch = RecordBatch::try_from_iter([("x", other)]).unwrap();
        assert!(TableData::new(Arc::clone(&data.schema), vec![batch]).unwrap_err().contains("batch 0"));
    }
}
