//! The first rows of each group, without sorting the others: what `row_number() over (partition by .. order by ..) <= k` asks
//! for.
//!
//! A general plan sorts every row to throw most of them away. [`GroupLimitExec`] stands below that sort and drops the rows
//! that have `k` others of their group before them (`first`, by `keys`). Where groups are so many that it drops next to
//! nothing, or memory is short, it gives up and hands rows on: the plan above does without it.

use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::StreamExt;

use self::first::{First, Keep};
use self::groups::Groups;
use self::keys::{FixedKeys, RowKeys};
use super::scan::owned;

mod first;
mod groups;
mod keys;
mod rule;
#[cfg(test)]
mod tests;

pub use rule::limit_groups;

/// More rows of a group are not kept: most questions of this kind ask for a handful.
const MOST: f64 = 1024.0;
/// Rows after which a limit asks for the first time whether it is of use; it asks again each time that it has seen twice as
/// many.
const TRIAL: usize = 1 << 18;

/// How many rows of a group are wanted: a value that is known when a run starts.
#[derive(Debug, Clone)]
struct Most {
    bound: Arc<dyn PhysicalExpr>,
    /// Whether a row of that number is wanted.
    itself: bool,
}

impl Most {
    /// `None`: more than a limit keeps, or not a number.
    fn rows(&self) -> DfResult<Option<usize>> {
        let one = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &RecordBatchOptions::new().with_row_count(Some(1)),
        )?;
        let value = self.bound.evaluate(&one)?.into_array(1)?;
        let Ok(value) = datafusion::arrow::compute::cast(&value, &DataType::Float64) else { return Ok(None) };
        let value = value.as_primitive::<Float64Type>();
        if value.is_null(0) {
            return Ok(Some(0)); // a comparison with null holds for no row
        }
        let value = value.value(0);
        let most = if self.itself || value.floor() != value { value.floor() } else { value - 1.0 };
        Ok((most <= MOST).then_some(most.max(0.0) as usize))
    }
}

/// Drops rows that are not among the first of their group, partition by partition.
#[derive(Debug)]
pub struct GroupLimitExec {
    input: Arc<dyn ExecutionPlan>,
    groups: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<PhysicalSortExpr>,
    most: Most,
    properties: Arc<PlanProperties>,
}

impl GroupLimitExec {
    /// `None`: what rows are grouped or ordered by is of a kind that a limit cannot tell apart as a window does.
    fn new(
        input: Arc<dyn ExecutionPlan>,
        groups: &[Arc<dyn PhysicalExpr>],
        order: &[PhysicalSortExpr],
        most: Most,
    ) -> DfResult<Option<Self>> {
        let schema = input.schema();
        for group in groups {
            if is_volatile(group) || !can_group(&group.data_type(&schema)?) {
                return Ok(None);
            }
        }
        if order.is_empty() || order.iter().any(|key| is_volatile(&key.expr)) {
            return Ok(None);
        }
        if !RowConverter::supports_fields(&sort_fields(order, &schema)?) {
            return Ok(None);
        }
        let properties = PlanProperties::new(
            input.equivalence_properties().clone(),
            input.output_partitioning().clone(),
            EmissionType::Final,
            input.boundedness(),
        );
        let (groups, order, properties) = (groups.to_vec(), order.to_vec(), Arc::new(properties));
        Ok(Some(Self { input, groups, order, most, properties }))
    }

    /// A limit for one run of one partition.
    fn start(&self, partition: usize, most: usize, context: &TaskContext) -> DfResult<Limit> {
        Ok(Limit {
            keep: Some(self.keep(most)?),
            groups: self.groups.clone(),
            order: self.order.iter().map(|key| Arc::clone(&key.expr)).collect(),
            seen: 0,
            trial: Trial { at: TRIAL, seen: 0, kept: 0 },
            memory: MemoryConsumer::new(format!("GroupLimit[{partition}]")).register(context.memory_pool()),
            batch_size: context.session_config().batch_size(),
        })
    }

    fn keep(&self, most: usize) -> DfResult<Box<dyn Keep>> {
        let schema = self.input.schema();
        let mut fields = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            fields.push(Field::new("", group.data_type(&schema)?, true));
        }
        let groups = match fields.is_empty() {
            true => None,
            false => Some(Groups::new(Arc::new(Schema::new(fields)))?),
        };
        if let [only] = self.order.as_slice()
            && let Some(keys) = FixedKeys::new(&only.expr.data_type(&schema)?, only.options)
        {
            return Ok(Box::new(First::new(most, groups, keys)));
        }
        let keys = RowKeys::new(sort_fields(&self.order, &schema)?)?;
        Ok(Box::new(First::new(most, groups, keys)))
    }
}

fn sort_fields(order: &[PhysicalSortExpr], schema: &Schema) -> DfResult<Vec<SortField>> {
    order.iter().map(|key| Ok(SortField::new_with_options(key.expr.data_type(schema)?, key.options))).collect()
}

/// Types whose values a window and a hash table tell apart in the same way. Floats are none: a hash table takes 0 and -0 for
/// one value.
fn can_group(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => can_group(values),
        other => {
            other.is_integer()
                || other.is_temporal()
                || other.is_decimal()
                || other.is_string()
                || other.is_binary()
                || *other == DataType::Boolean
        }
    }
}

impl DisplayAs for GroupLimitExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let list = |items: &[String]| items.join(", ");
        let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        let order: Vec<String> = self.order.iter().map(ToString::to_string).collect();
        let than = if self.most.itself { "" } else { "less than " };
        write!(f, "GroupLimitExec: {than}{} by [{}], order=[{}]", self.most.bound, list(&groups), list(&order))
    }
}

impl ExecutionPlan for GroupLimitExec {
    fn name(&self) -> &str {
        "GroupLimitExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        for expr in self.groups.iter().chain(self.order.iter().map(|key| &key.expr)).chain([&self.most.bound]) {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return datafusion::common::internal_err!("a group limit has one input");
        };
        match Self::new(input, &self.groups, &self.order, self.most.clone())? {
            Some(limit) => Ok(Arc::new(limit)),
            None => datafusion::common::internal_err!("a group limit got an input of other types"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let Some(most) = self.most.rows()? else { return Ok(input) };
        let schema = input.schema();
        if most == 0 {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::empty())));
        }
        let limit = self.start(partition, most, &context)?;
        let rows = futures::stream::try_unfold((limit, input, Vec::new()), |(mut limit, mut input, mut ready)| async {
            loop {
                if let Some(batch) = ready.pop() {
                    return Ok::<_, DataFusionError>(Some((batch, (limit, input, ready))));
                }
                let Some(batch) = input.next().await else {
                    match limit.end()? {
                        Some(kept) => ready = kept,
                        None => return Ok(None),
                    }
                    continue;
                };
                ready = limit.take(&batch?)?;
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// A limit at work in one partition.
struct Limit {
    /// `None`: it has given up, or come to its end.
    keep: Option<Box<dyn Keep>>,
    groups: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<Arc<dyn PhysicalExpr>>,
    seen: usize,
    trial: Trial,
    memory: MemoryReservation,
    batch_size: usize,
}

/// Whether a limit is of use, judged by the rows since it was asked last.
struct Trial {
    at: usize,
    seen: usize,
    kept: usize,
}

impl Limit {
    /// Takes a batch of the input; what goes out for it, the last batch first.
    fn take(&mut self, batch: &RecordBatch) -> DfResult<Vec<RecordBatch>> {
        let evaluated = |exprs: &[Arc<dyn PhysicalExpr>]| -> DfResult<Vec<ArrayRef>> {
            exprs.iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
        };
        let Some(keep) = &mut self.keep else {
            // The sort above counts each batch by itself, and a slice as large as what it is cut from.
            let columns = batch.columns().iter().map(owned).collect::<DfResult<_>>()?;
            return Ok(vec![RecordBatch::try_new(batch.schema(), columns)?]);
        };
        keep.add(batch, &evaluated(&self.groups)?, &evaluated(&self.order)?)?;
        self.seen += batch.num_rows();
        let mut of_use = self.memory.try_resize(keep.bytes()).is_ok();
        if self.seen >= self.trial.at {
            let (seen, kept) = (self.seen - self.trial.seen, keep.len() - self.trial.kept);
            of_use &= kept < seen / 10 * 9;
            self.trial = Trial { at: 2 * self.seen, seen: self.seen, kept: keep.len() };
        }
        if of_use { Ok(Vec::new()) } else { Ok(self.end()?.unwrap_or_default()) }
    }

    /// What was kept, the last batch first; `None`: that has gone out already.
    fn end(&mut self) -> DfResult<Option<Vec<RecordBatch>>> {
        let Some(mut keep) = self.keep.take() else { return Ok(None) };
        let mut kept = keep.take(self.batch_size.max(1))?;
        self.memory.free();
        kept.reverse();
        Ok(Some(kept))
    }
}
