//! Tables in memory as DataFusion sees them: a provider for the planner and a leaf for the run, joined by a slot.
//!
//! A kept plan outlives the request that it was made for, so its leaves hold no rows: a leaf reads, when a run starts, what
//! lies in its slot. Rows are never copied: a leaf hands out slices of the batches it was given.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use datafusion::arrow::array::{MutableArrayData, make_array};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{ColumnStatistics, DFSchema, DataFusionError, Result as DfResult, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, create_physical_expr};
use datafusion::physical_plan::coop::{CooperativeExec, cooperative};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};

use super::disk::{DiskScan, DiskTable, with_run_values};
use super::pieces::Pieces;
use super::stop::StopCell;
use super::zones::{Stretch, ZONE_ROWS, ZoneMaps};

/// Smaller tables are read whole: judging a condition takes longer.
const ZONED_ROWS: usize = 4 * ZONE_ROWS;

/// Rows of one table, as given: buffers may point into shared memory.
#[derive(Debug, Clone)]
pub struct TableData {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Sum of the batches' rows; of a table on disk, of its files'.
    pub rows: usize,
    /// Where the rows are read from when there are no batches in memory.
    pub disk: Option<Arc<DiskTable>>,
    /// What is known of its values, for conditions; a table that serves one request has none.
    pub zones: Option<Arc<ZoneMaps>>,
}

impl TableData {
    /// A table whose rows stay where they are.
    pub fn on_disk(disk: DiskTable) -> Self {
        let (schema, rows) = (Arc::clone(disk.schema()), disk.rows);
        Self { schema, batches: Vec::new(), rows, disk: Some(Arc::new(disk)), zones: None }
    }

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
        Ok(Self { schema, batches, rows, disk: None, zones: None })
    }

    /// The same for a table that stays: what its columns hold is looked at once, and serves every condition from then on.
    pub fn with_zones(self) -> Self {
        if self.disk.is_some() || self.rows < ZONED_ROWS {
            return self;
        }
        let zones = ZoneMaps::new(Arc::clone(&self.schema), self.batches.clone(), ZONE_ROWS);
        Self { zones: Some(Arc::new(zones)), ..self }
    }

    /// Whether a scan that knows a condition reads less for it.
    pub fn is_pruned(&self) -> bool {
        self.disk.is_some() || self.zones.is_some()
    }

    /// Bytes of the column buffers, each counted as large as it was allocated; on disk, as large as they will be.
    pub fn bytes(&self) -> usize {
        if let Some(disk) = &self.disk {
            return disk.decoded_bytes;
        }
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
        // Files may be others by the time that they are read.
        let exact = exact && data.disk.is_none();
        let precision = |value| if exact { Precision::Exact(value) } else { Precision::Inexact(value) };
        let column_statistics = (0..data.schema.fields().len())
            .map(|column| {
                if data.disk.is_some() {
                    return ColumnStatistics::new_unknown();
                }
                let nulls = data.batches.iter().map(|batch| batch.column(column).logical_null_count()).sum();
                let mut known = ColumnStatistics { null_count: precision(nulls), ..ColumnStatistics::new_unknown() };
                // Plans that are kept do not depend on what was asked before them.
                if let (true, Some(zones)) = (exact, &data.zones)
                    && let Some((least, greatest)) = zones.extremes(column)
                {
                    (known.min_value, known.max_value) = (Precision::Exact(least), Precision::Exact(greatest));
                }
                known
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
        filters: &'d [Expr],
        _limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'e>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
        Self: 'e,
    {
        let scan =
            SlotScan::new(self, projection.cloned(), filters).map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>);
        Box::pin(std::future::ready(scan))
    }
}

/// The leaf of a plan: reads its slot when the run starts.
#[derive(Debug)]
pub struct SlotScan {
    projection: Option<Vec<usize>>,
    /// What the rows that matter fulfil, in terms of the whole table: where no such row is, nothing need be read.
    condition: Option<Arc<dyn PhysicalExpr>>,
    /// What of the table the condition leaves in this run: judged by the first partition, for all.
    kept: Mutex<Option<Option<Vec<Stretch>>>>,
    /// Slices are copied: their reader holds many of them, and each would count as large as the batch that it is cut from.
    own_slices: bool,
    statistics: Arc<Statistics>,
    slot: Arc<TableSlot>,
    stop: Arc<StopCell>,
    properties: Arc<PlanProperties>,
}

impl SlotScan {
    fn new(table: &SlotTable, projection: Option<Vec<usize>>, filters: &[Expr]) -> DfResult<Self> {
        let condition = match conjunction(filters.iter().cloned()) {
            Some(filter) => {
                let columns = DFSchema::try_from(Arc::clone(&table.facts.schema))?;
                Some(create_physical_expr(
                    &filter,
                    &columns,
                    &ExecutionProps::new(),
                    &PhysicalPlanningContext::default(),
                )?)
            }
            None => None,
        };
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
        if condition.is_some() {
            statistics = statistics.to_inexact(); // it may read less than there is
        }
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
            condition,
            kept: Mutex::default(),
            own_slices: false,
            statistics: Arc::new(statistics),
            slot: Arc::clone(&table.slot),
            stop: Arc::clone(&table.stop),
            properties: Arc::new(properties),
        })
    }
}

impl SlotScan {
    /// The same leaf for another run, or whose slices have memory of their own.
    fn copied(&self, own_slices: bool) -> Self {
        Self {
            projection: self.projection.clone(),
            condition: self.condition.clone(),
            kept: Mutex::default(),
            own_slices,
            statistics: Arc::clone(&self.statistics),
            slot: Arc::clone(&self.slot),
            stop: Arc::clone(&self.stop),
            properties: Arc::clone(&self.properties),
        }
    }

    /// This run's rows; `None`: they are read from a disk.
    pub fn in_memory(&self) -> DfResult<Option<Arc<TableData>>> {
        Ok(Some(self.slot.get()?).filter(|data| data.disk.is_none()))
    }

    /// The table's column that a column of the scan is.
    pub fn of_table(&self, column: usize) -> usize {
        self.projection.as_ref().map_or(column, |columns| columns[column])
    }

    /// The stretches of `data` to read; `None`: all.
    fn kept(&self, data: &TableData) -> DfResult<Option<Vec<Stretch>>> {
        let (Some(zones), Some(condition)) = (&data.zones, &self.condition) else { return Ok(None) };
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(match &*kept {
            Some(kept) => kept.clone(),
            None => {
                let condition = with_run_values(condition, &data.schema)?;
                kept.insert(zones.kept(&condition, &|| self.stop.check())?).clone()
            }
        })
    }
}

/// Gives sorts slices with memory of their own. A sort counts each of its batches by itself until it spills, and counts a
/// slice as large as the buffers that it lies in: a table that came as one batch would count as often as it has slices.
pub fn own_slices_for_sorts(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    plan.transform_down(|node| match node.downcast_ref::<SortExec>() {
        Some(sort) if sort.fetch().is_none() => {
            let input = with_own_slices(Arc::clone(sort.input()))?;
            Ok(Transformed::yes(
                node.replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?,
            ))
        }
        _ => Ok(Transformed::no(node)),
    })
    .data()
}

/// As far down as rows are only handed on.
fn with_own_slices(node: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    if let Some(scan) = node.downcast_ref::<SlotScan>() {
        return Ok(Arc::new(scan.copied(true)));
    }
    let hands_on = node.is::<ProjectionExec>()
        || node.is::<FilterExec>()
        || node.is::<RepartitionExec>()
        || node.is::<CooperativeExec>()
        || node.is::<UnionExec>();
    if !hands_on {
        return Ok(node);
    }
    let children: Vec<_> = node.children().into_iter().cloned().map(with_own_slices).collect::<DfResult<_>>()?;
    node.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// A copy that counts as large as it is.
pub fn owned(slice: &ArrayRef) -> DfResult<ArrayRef> {
    let data = slice.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(make_array(copy.freeze()))
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
        Ok(self)
    }

    /// Without what the condition left in this run.
    fn reset_state(self: Arc<Self>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.copied(self.own_slices)))
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let data = self.slot.get()?;
        if let Some(disk) = &data.disk {
            let scan = DiskScan::new(
                Arc::clone(disk),
                partition,
                self.properties.partitioning.partition_count(),
                self.condition.as_ref(),
                self.projection.clone(),
                self.schema(),
                context.session_config().batch_size(),
                Arc::clone(&self.stop),
            )?;
            let stream = RecordBatchStreamAdapter::new(self.schema(), futures::stream::iter(scan));
            return Ok(Box::pin(cooperative(stream)));
        }
        let kept = self.kept(&data)?;
        let pieces = Pieces::new(
            data,
            kept,
            partition,
            self.properties.partitioning.partition_count(),
            context.session_config().batch_size(),
        );
        let (schema, projection, stop) = (self.schema(), self.projection.clone(), Arc::clone(&self.stop));
        let own_slices = self.own_slices;
        let labelled = Arc::clone(&schema);
        let stream = futures::stream::iter(pieces.map(move |(piece, is_slice)| {
            stop.check()?;
            let mut columns: Vec<ArrayRef> = match &projection {
                Some(columns) => columns.iter().map(|column| Arc::clone(piece.column(*column))).collect(),
                None => piece.columns().to_vec(),
            };
            if own_slices && is_slice {
                columns = columns.iter().map(owned).collect::<DfResult<_>>()?;
            }
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

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_batch_that_is_not_of_the_schema_is_refused() {
        let schema =
            RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![0_i64])) as ArrayRef)]).unwrap().schema();
        let other: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let batch = RecordBatch::try_from_iter([("x", other)]).unwrap();
        assert!(TableData::new(schema, vec![batch]).unwrap_err().contains("batch 0"));
    }
}
