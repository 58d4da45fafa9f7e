//! On top: the texts of groups again, in the place of their numbers.

use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

use super::codes::Codes;
use super::number::Groups;
use super::renewed::Renewed;

/// Where a group column of the answer is from.
#[derive(Debug, Clone)]
pub enum Named {
    /// The texts of these numbers, the next of those by which groups are told apart.
    Texts(Arc<Codes>),
    /// The next of the aggregate's group columns after the number.
    AsItIs,
}

/// Gives the groups of an aggregate over numbers their texts.
#[derive(Debug)]
pub struct NameExec {
    /// An aggregate whose first column is the number of a group.
    input: Arc<dyn ExecutionPlan>,
    groups: Arc<Groups>,
    named: Vec<Named>,
    /// Those of the aggregate by texts that this stands for.
    properties: Arc<PlanProperties>,
}

impl NameExec {
    /// `named`: the group columns of the answer, in their order.
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        groups: Arc<Groups>,
        named: Vec<Named>,
        properties: Arc<PlanProperties>,
    ) -> Self {
        Self { input, groups, named, properties }
    }
}

impl NameExec {
    /// The same for another run.
    pub fn renewed(&self, input: Arc<dyn ExecutionPlan>, renewed: &mut Renewed) -> Self {
        let groups = renewed.groups(&self.groups);
        let named = self.named.iter().map(|named| match named {
            Named::Texts(codes) => Named::Texts(renewed.codes(codes)),
            Named::AsItIs => Named::AsItIs,
        });
        Self::new(input, groups, named.collect(), Arc::clone(&self.properties))
    }

    /// Which groups it names.
    #[cfg(test)]
    pub fn groups(&self) -> usize {
        Arc::as_ptr(&self.groups) as usize
    }
}

impl DisplayAs for NameExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let schema = self.schema();
        let texts = self.named.iter().zip(schema.fields()).filter(|(named, _)| matches!(named, Named::Texts(_)));
        let names: Vec<&str> = texts.map(|(_, field)| field.name().as_str()).collect();
        write!(f, "NameExec: [{}]", names.join(", "))
    }
}

impl ExecutionPlan for NameExec {
    fn name(&self) -> &str {
        "NameExec"
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
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (groups, properties) = (Arc::clone(&self.groups), Arc::clone(&self.properties));
        Ok(Arc::new(Self::new(children.swap_remove(0), groups, self.named.clone(), properties)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let (groups, named, schema) = (Arc::clone(&self.groups), self.named.clone(), self.schema());
        let rows = self
            .input
            .execute(partition, context)?
            .and_then(move |batch| std::future::ready(with_names(&groups, partition, &named, &batch, &schema)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

fn with_names(
    groups: &Groups,
    partition: usize,
    named: &[Named],
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> DfResult<RecordBatch> {
    let mut codes = groups.of(partition).numbers.codes(batch.column(0).as_primitive::<UInt32Type>()).into_iter();
    let mut others = batch.columns()[1..].iter().cloned();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (named, field) in named.iter().zip(schema.fields()) {
        columns.extend(match named {
            Named::Texts(texts) => match codes.next() {
                Some(codes) => Some(texts.texts(&codes, field.data_type())?),
                None => None,
            },
            Named::AsItIs => others.next(),
        });
    }
    columns.extend(others);
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
