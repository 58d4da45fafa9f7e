//! Above joins and filters: one number for the group of each row, by which an aggregate groups.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{RecordBatch, UInt32Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::TryStreamExt;

use super::numbers::Numbers;
use super::renewed::Renewed;

/// What the column of groups is called.
pub const GROUP: &str = "#group";

/// The groups of each partition of a run, for the one who numbers and the one who names them.
#[derive(Debug)]
pub struct Groups {
    partitions: Vec<Mutex<Partition>>,
    columns: Vec<usize>,
}

/// Those of one partition, and what they take: until the last of them is named, so longer than the rows come in.
#[derive(Debug, Default)]
pub struct Partition {
    pub numbers: Numbers,
    memory: Option<MemoryReservation>,
}

impl Groups {
    /// Of rows by the codes in `columns`.
    pub fn new(columns: Vec<usize>, partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect(), columns }
    }

    /// The same without groups.
    pub fn renewed(&self) -> Self {
        Self::new(self.columns.clone(), self.partitions.len())
    }

    /// Those of a partition.
    pub fn of(&self, partition: usize) -> MutexGuard<'_, Partition> {
        self.partitions[partition].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, partition: usize, batch: &RecordBatch, schema: &SchemaRef) -> DfResult<RecordBatch> {
        let codes = self.columns.iter().map(|column| batch.column(*column).as_primitive::<UInt32Type>());
        let codes: Vec<&UInt32Array> = codes.collect();
        let mut partition = self.of(partition);
        let numbers = UInt32Array::from(partition.numbers.of(&codes)?);
        let bytes = partition.numbers.bytes();
        partition.memory.as_ref().map_or(Ok(()), |memory| memory.try_resize(bytes))?;
        let columns = batch.columns().iter().cloned().chain([Arc::new(numbers) as _]).collect();
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// Adds a column with the number of each row's group.
#[derive(Debug)]
pub struct NumberExec {
    input: Arc<dyn ExecutionPlan>,
    groups: Arc<Groups>,
    properties: Arc<PlanProperties>,
}

impl NumberExec {
    /// The same for another run.
    pub fn renewed(&self, input: Arc<dyn ExecutionPlan>, renewed: &mut Renewed) -> Self {
        Self { input, groups: renewed.groups(&self.groups), properties: Arc::clone(&self.properties) }
    }

    /// Which groups it numbers.
    #[cfg(test)]
    pub fn groups(&self) -> usize {
        Arc::as_ptr(&self.groups) as usize
    }

    /// The column is the last.
    pub fn new(input: Arc<dyn ExecutionPlan>, groups: Arc<Groups>) -> Self {
        let group = Arc::new(Field::new(GROUP, DataType::UInt32, false));
        let schema = Arc::new(Schema::new(input.schema().fields().iter().cloned().chain([group]).collect::<Vec<_>>()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { input, groups, properties: Arc::new(properties) }
    }
}

impl DisplayAs for NumberExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let schema = self.schema();
        let names: Vec<&str> = self.groups.columns.iter().map(|column| schema.field(*column).name().as_str()).collect();
        write!(f, "NumberExec: by=[{}]", names.join(", "))
    }
}

impl ExecutionPlan for NumberExec {
    fn name(&self) -> &str {
        "NumberExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (input, groups) = (children.swap_remove(0), Arc::clone(&self.groups));
        Ok(Arc::new(match options.children_properties {
            ChildrenPropertiesMode::Keep => Self { input, groups, properties: Arc::clone(&self.properties) },
            ChildrenPropertiesMode::Recompute => Self::new(input, groups),
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new(format!("GroupNumbers[{partition}]")).register(context.memory_pool());
        let (groups, schema) = (Arc::clone(&self.groups), self.schema());
        *groups.of(partition) = Partition { numbers: Numbers::new(groups.columns.len()), memory: Some(memory) };
        let rows = self
            .input
            .execute(partition, context)?
            .and_then(move |batch| std::future::ready(groups.add(partition, &batch, &schema)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
