//! Joins by a key that one side has once: the usual join with a dimension.
//!
//! DataFusion's hash join is made for every join. Where one side is collected whole and has each key once, a batch of the
//! other side finds one row or none for each of its own, and where it finds them all its columns go on as they are. Integers
//! close together are looked up in an array, without a branch (`table`), texts in a hash table (`texts`). Whether the keys allow
//! that shows only when they are there, so [`LookupJoinExec`] has the general join with it and hands over to that one.

use std::fmt;
use std::sync::{Arc, Mutex};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array, new_null_array};
use arrow_schema::SchemaRef;
use datafusion::arrow::compute::{BatchCoalescer, concat, concat_batches, take};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, JoinType, NullEquality, Result as DfResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use self::table::{Slots, Table, is_key};

mod table;
#[cfg(test)]
mod tests;
mod texts;

/// Puts lookup joins in the place of the hash joins that may be such.
pub fn look_up_joins(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(match LookupJoinExec::new(&node) {
            Some(join) => Transformed::yes(Arc::new(join) as Arc<dyn ExecutionPlan>),
            None => Transformed::no(node),
        })
    })
    .data()
}

/// A join that is looked up if the keys allow that.
#[derive(Debug)]
pub struct LookupJoinExec {
    /// The general join, a [`HashJoinExec`].
    general: Arc<dyn ExecutionPlan>,
    table_key: Arc<dyn PhysicalExpr>,
    probe_key: Arc<dyn PhysicalExpr>,
    /// Every row of the probe side is in the answer, found or not.
    keep_all: bool,
    /// Columns of the answer, among those of the table and then of the probe side.
    columns: Vec<usize>,
    built: Arc<OnceCell<Result<Built, Arc<DataFusionError>>>>,
}

/// What came of the build side.
#[derive(Debug, Clone)]
enum Built {
    Table(Arc<Table>),
    /// The general join over the rows that were collected.
    General(Arc<dyn ExecutionPlan>),
}

impl LookupJoinExec {
    /// `None`: the plan is no join of this kind.
    fn new(general: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let join = general.downcast_ref::<HashJoinExec>()?;
        let keep_all = match join.join_type() {
            JoinType::Inner => false,
            JoinType::Right => true,
            _ => return None,
        };
        let [(table_key, probe_key)] = join.on() else { return None };
        let types =
            (table_key.data_type(&join.left().schema()).ok()?, probe_key.data_type(&join.right().schema()).ok()?);
        let fits = *join.partition_mode() == PartitionMode::CollectLeft
            && join.filter().is_none()
            && join.fetch().is_none()
            && join.dynamic_expressions_produced().is_empty()
            && join.null_equality() == NullEquality::NullEqualsNothing
            && !join.null_aware
            && types.0 == types.1
            && is_key(&types.0);
        let (table, probe) = (join.left().schema().fields().len(), join.right().schema().fields().len());
        let columns = match &join.projection {
            Some(columns) => columns.to_vec(),
            None => (0..table + probe).collect(),
        };
        fits.then(|| Self {
            general: Arc::clone(general),
            table_key: Arc::clone(table_key),
            probe_key: Arc::clone(probe_key),
            keep_all,
            columns,
            built: Arc::default(),
        })
    }
}

impl DisplayAs for LookupJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = if self.keep_all { "Right" } else { "Inner" };
        write!(f, "LookupJoinExec: {kind}, on=[({}, {})]", self.table_key, self.probe_key)
    }
}

impl ExecutionPlan for LookupJoinExec {
    fn name(&self) -> &str {
        "LookupJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.general.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.general.children()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.general.maintains_input_order()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        self.general.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let general = Arc::clone(&self.general).replace_children(children, options)?;
        match Self::new(&general) {
            Some(join) => Ok(Arc::new(join)),
            None => Ok(general),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    /// Without what this run has collected.
    fn reset_state(self: Arc<Self>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let general = Arc::clone(&self.general).reset_state()?;
        match Self::new(&general) {
            Some(join) => Ok(Arc::new(join)),
            None => Ok(general),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let schema = self.schema();
        let (built, general) = (Arc::clone(&self.built), Arc::clone(&self.general));
        let table_key = Arc::clone(&self.table_key);
        let lookup = Lookup {
            probe_key: Arc::clone(&self.probe_key),
            keep_all: self.keep_all,
            columns: self.columns.clone(),
            schema: Arc::clone(&schema),
            batch_size: context.session_config().batch_size(),
        };
        let rows = futures::stream::once(async move {
            // An error is every partition's: the build side runs once.
            let built = built.get_or_init(async || build(&general, &table_key, &context).await.map_err(Arc::new)).await;
            match built {
                // The probe side can be run once: by this join, or by the general one.
                Ok(Built::Table(table)) => {
                    Ok(lookup.run(Arc::clone(table), general.children()[1].execute(partition, context)?))
                }
                Ok(Built::General(join)) => join.execute(partition, context),
                Err(error) => Err(DataFusionError::Shared(Arc::clone(error))),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows.try_flatten())))
    }
}

/// Collects the build side.
async fn build(
    general: &Arc<dyn ExecutionPlan>,
    key: &Arc<dyn PhysicalExpr>,
    context: &Arc<TaskContext>,
) -> DfResult<Built> {
    let left = general.children()[0];
    let memory = MemoryConsumer::new("LookupJoin").register(context.memory_pool());
    let mut rows = left.execute(0, Arc::clone(context))?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        memory.try_grow(slice_bytes(&batch)?)?;
        batches.push(batch);
    }
    let schema = left.schema();
    if let Some((rows, slots)) = table(&batches, &schema, key, &memory)? {
        return Ok(Built::Table(Arc::new(Table::new(rows, slots, memory))));
    }
    let left = HandedOver::leaf(schema, batches, memory)?;
    let right = Arc::clone(general.children()[1]);
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let join = Arc::clone(general).replace_children(vec![left, right], options)?;
    Ok(Built::General(Arc::new(CooperativeExec::new(join))))
}

/// The rows as one batch, with where the row of each key is if the keys allow that. `memory` then has what both take, else what it had.
fn table(
    batches: &[RecordBatch],
    schema: &SchemaRef,
    key: &Arc<dyn PhysicalExpr>,
    memory: &MemoryReservation,
) -> DfResult<Option<(RecordBatch, Slots)>> {
    let collected = memory.size();
    // The keys decide before any other column is copied.
    let keys = batches.iter().map(|batch| key.evaluate(batch)?.into_array(batch.num_rows()));
    let keys = keys.collect::<DfResult<Vec<_>>>()?;
    let keys = match keys.as_slice() {
        [] => new_empty_array(&key.data_type(schema)?),
        [only] => Arc::clone(only),
        several => concat(&several.iter().map(|keys| &**keys).collect::<Vec<_>>())?,
    };
    let Some(slots) = Slots::new(&keys, memory)? else {
        memory.try_resize(collected)?;
        return Ok(None);
    };
    if memory.try_grow(collected).is_err() {
        memory.try_resize(collected)?;
        return Ok(None); // the general join has the rows twice, too, and says so
    }
    let rows = concat_batches(schema, batches)?;
    memory.shrink(collected); // the batches go when they are joined to one
    Ok(Some((rows, slots)))
}

/// Rows that were collected, for the one who takes them: they count here until they are taken, and are held no longer.
struct HandedOver {
    schema: SchemaRef,
    rows: Mutex<Option<(Vec<RecordBatch>, MemoryReservation)>>,
}

impl HandedOver {
    /// A plan that gives the rows, once.
    fn leaf(
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
        memory: MemoryReservation,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let rows = Self { schema: Arc::clone(&schema), rows: Mutex::new(Some((batches, memory))) };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(rows)], None, [], false, None)?))
    }
}

impl fmt::Debug for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("HandedOver")
    }
}

impl PartitionStream for HandedOver {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let batches = rows.into_iter().flat_map(|(batches, memory)| {
            batches.into_iter().map(move |batch| {
                memory.shrink(slice_bytes(&batch)?.min(memory.size()));
                Ok(batch)
            })
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(batches)))
    }
}

/// Bytes of the rows themselves: a slice does not count as the table that it is cut from.
fn slice_bytes(batch: &RecordBatch) -> DfResult<usize> {
    let mut bytes = 0;
    for column in batch.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}

/// Looks batches of the probe side up.
struct Lookup {
    probe_key: Arc<dyn PhysicalExpr>,
    keep_all: bool,
    columns: Vec<usize>,
    schema: SchemaRef,
    batch_size: usize,
}

impl Lookup {
    fn run(self, table: Arc<Table>, probe: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        // Batches of which little is found are put together.
        let whole = BatchCoalescer::new(Arc::clone(&schema), self.batch_size)
            .with_biggest_coalesce_batch_size(Some(self.batch_size / 2));
        let rows = futures::stream::try_unfold((self, table, probe, whole, false), |state| async move {
            let (lookup, table, mut probe, mut whole, mut ended) = state;
            loop {
                if let Some(batch) = whole.next_completed_batch() {
                    return Ok::<_, DataFusionError>(Some((batch, (lookup, table, probe, whole, ended))));
                }
                if ended {
                    return Ok(None);
                }
                match probe.next().await {
                    Some(batch) => {
                        let found = lookup.found(&table, &batch?)?;
                        if lookup.columns.is_empty() {
                            return Ok(Some((found, (lookup, table, probe, whole, ended))));
                        }
                        whole.push_batch(found)?;
                    }
                    None => {
                        ended = true;
                        whole.finish_buffered_batch()?;
                    }
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }

    fn found(&self, table: &Table, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let keys = self.probe_key.evaluate(batch)?.into_array(batch.num_rows())?;
        let found = table.find(&keys, self.keep_all)?;
        let own = table.rows.num_columns();
        let column = |number: &usize| -> DfResult<ArrayRef> {
            Ok(match number.checked_sub(own) {
                Some(number) => match &found.probe {
                    Some(rows) => take(batch.column(number), rows, None)?,
                    None => Arc::clone(batch.column(number)),
                },
                // No row to point at: all of them are null.
                None if table.rows.num_rows() == 0 => {
                    new_null_array(table.rows.column(*number).data_type(), found.table.len())
                }
                None => take(table.rows.column(*number), &found.table, None)?,
            })
        };
        let columns = self.columns.iter().map(column).collect::<DfResult<_>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(found.table.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows)?)
    }
}
