//! Groups by texts that come again and again: one look at each text, and numbers from there on.
//!
//! A general plan copies texts in its filters and joins, and hashes and compares them once more to join and to group by them.
//! Here a text of a table is looked up once, in a table small enough for a core's cache (`codes`), by the operator that also
//! filters (`code`); joins by texts become joins by numbers, which are looked up in an array; an aggregate groups by one number
//! that stands for all texts of a row's group (`number`), and what comes out has texts again (`name`).
//!
//! ```text
//! AggregateExec: by zone, category            CodedGroupsExec, of which the left is one half and the other
//!   HashJoinExec: region = region               NameExec: zone, category
//!     SlotScan: regions                           AggregateExec: by #group
//!     FilterExec: qty >= 10                         NumberExec: zone, category
//!       SlotScan: orders                              HashJoinExec: region = region, numbers
//!                                                       CodeExec: region, zone
//!                                                         SlotScan: regions
//!                                                       CodeExec: region, category, qty >= 10
//!                                                         SlotScan: orders
//! ```
//!
//! Whether texts come again and again shows only when they are there (`sample`), so [`CodedGroupsExec`] has both plans, and
//! each run takes one of them. Where the numbers' tables ask for more memory than there is, that is an error, as for a join.

use std::fmt;
use std::sync::{Arc, OnceLock};

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, ReplaceChildrenOptions, replace_children_if_necessary,
};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use self::code::CodeExec;
use self::renewed::{Renewed, renew};

mod code;
mod codes;
mod name;
mod number;
mod numbers;
mod renewed;
mod rule;
mod sample;
#[cfg(test)]
mod tests;

pub use rule::code_groups;

/// Fewer rows are grouped by their texts before the tables of numbers are set up.
const FEWEST_ROWS: usize = 2_000;

/// An aggregate, and the same by numbers in the place of texts.
#[derive(Debug)]
struct CodedGroupsExec {
    general: Arc<dyn ExecutionPlan>,
    coded: Arc<dyn ExecutionPlan>,
    /// What this run's texts are found to be: by the first partition, for all.
    is_coded: OnceLock<bool>,
}

/// The plan without what a run has left in it. Of an aggregate's two plans, that is one: they share nothing.
pub fn reset(plan: &Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    if let Some(both) = plan.downcast_ref::<CodedGroupsExec>() {
        let (mut general, mut coded) = (Arc::clone(&both.general), Arc::clone(&both.coded));
        match both.is_coded.get() {
            Some(true) => coded = renew(&coded, &mut Renewed::default())?,
            Some(false) => general = reset(&general)?,
            None => {}
        }
        return Ok(Arc::new(CodedGroupsExec::new(general, coded)));
    }
    let children = plan.children().into_iter().map(reset).collect::<DfResult<_>>()?;
    replace_children_if_necessary(Arc::clone(plan), children)?.reset_state()
}

impl CodedGroupsExec {
    /// Neither of them may have an operator of the other in it.
    fn new(general: Arc<dyn ExecutionPlan>, coded: Arc<dyn ExecutionPlan>) -> Self {
        Self { general, coded, is_coded: OnceLock::new() }
    }

    fn is_coded(&self) -> DfResult<bool> {
        if let Some(known) = self.is_coded.get() {
            return Ok(*known);
        }
        let (mut most, mut are_repeated) = (0, true);
        self.coded.apply(|node| {
            if let Some(code) = node.downcast_ref::<CodeExec>() {
                match code.rows_with_repeated_texts()? {
                    Some(rows) => most = most.max(rows),
                    None => are_repeated = false,
                }
            }
            Ok(if are_repeated { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })?;
        let is_coded = are_repeated && most >= FEWEST_ROWS;
        Ok(*self.is_coded.get_or_init(|| is_coded))
    }
}

impl DisplayAs for CodedGroupsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("CodedGroupsExec")
    }
}

impl ExecutionPlan for CodedGroupsExec {
    fn name(&self) -> &str {
        "CodedGroupsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.general.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.general, &self.coded]
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
        let general = children.swap_remove(0);
        Ok(Arc::new(Self::new(general, children.swap_remove(0))))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let plan = if self.is_coded()? { &self.coded } else { &self.general };
        plan.execute(partition, context)
    }
}
