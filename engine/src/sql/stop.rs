//! Stopping a run: its deadline and its cancel token, asked from inside the plan.
//!
//! DataFusion's joins loop over their input without yielding to the runtime, so a join that finds no match in a billion
//! pairs would outlive deadline and cancel. Scans ask before every batch; joins are made to yield after every batch they
//! give; and a join's own condition asks each time it is evaluated, which is where a join without output spends its time. A
//! semi or anti join has no output for most of its pairs, so it gets a condition where it has none. The optimiser asks before
//! each of its rules.

use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, JoinType, Result as DfResult};
use datafusion::logical_expr::{ColumnarValue, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
    SymmetricHashJoinExec,
};

use crate::cancel::CancelToken;

/// What may end a run before its answer.
#[derive(Debug, Clone, Default)]
pub struct RunContext {
    /// `None`: no time limit.
    pub deadline: Option<Instant>,
    pub cancel: CancelToken,
}

impl RunContext {
    /// Whether the run has to end now, and why.
    pub fn stopped(&self) -> Option<Stopped> {
        if self.cancel.is_cancelled() {
            return Some(Stopped::Cancelled);
        }
        self.deadline.filter(|deadline| Instant::now() >= *deadline).map(|_| Stopped::Deadline)
    }
}

/// Why a run ended before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    Cancelled,
    Deadline,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::Deadline => "its deadline passed",
        })
    }
}

impl std::error::Error for Stopped {}

/// The context of the run that a plan is in, read by the parts of the plan.
///
/// Without a run everything has to end: tasks that a finished or stopped run left behind on the runtime's threads come to
/// their end here, also inside a join that does not yield.
#[derive(Debug, Default)]
pub struct StopCell {
    context: RwLock<Option<RunContext>>,
}

impl StopCell {
    /// Sets the context for the run that starts, or clears it after the run.
    pub fn set(&self, context: Option<RunContext>) {
        *self.context.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = context;
    }

    /// An error when the run has to end.
    pub fn check(&self) -> DfResult<()> {
        let context = self.context.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let stopped = match &*context {
            Some(context) => context.stopped(),
            None => Some(Stopped::Cancelled),
        };
        match stopped {
            Some(stopped) => Err(DataFusionError::External(Box::new(stopped))),
            None => Ok(()),
        }
    }
}

thread_local! {
    /// The run for which this thread makes a plan.
    static PLANNING: RefCell<Option<RunContext>> = const { RefCell::new(None) };
}

/// Makes a plan on this thread for the run of `context`, and no longer than that run may take.
pub fn planning<T>(context: &RunContext, plan: impl FnOnce() -> T) -> T {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            PLANNING.set(None);
        }
    }
    PLANNING.set(Some(context.clone()));
    let _over = Over;
    plan()
}

/// The rules with a [`StopRule`] before each.
pub fn stoppable_rules(rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    rules.into_iter().flat_map(|rule| [Arc::new(StopRule) as Arc<dyn OptimizerRule + Send + Sync>, rule]).collect()
}

/// A rule of the optimiser that asks whether the run that is planned for has to end, and changes nothing.
#[derive(Debug)]
struct StopRule;

impl OptimizerRule for StopRule {
    fn name(&self) -> &str {
        "stop"
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        match PLANNING.with_borrow(|context| context.as_ref().and_then(RunContext::stopped)) {
            Some(stopped) => Err(DataFusionError::External(Box::new(stopped))),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// Makes every join in `plan` stoppable through `cell`.
pub fn make_joins_stoppable(plan: Arc<dyn ExecutionPlan>, cell: &Arc<StopCell>) -> DfResult<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let node: Arc<dyn ExecutionPlan> = if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            match condition(join.filter(), join.join_type(), cell) {
                Some(condition) => Arc::new(join.builder().with_filter(Some(condition)).build()?),
                None => node,
            }
        } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            match condition(join.filter(), join.join_type(), cell) {
                Some(condition) => {
                    Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(Some(condition)).build()?)
                }
                None => node,
            }
        } else if node.is::<CrossJoinExec>() || node.is::<SortMergeJoinExec>() || node.is::<SymmetricHashJoinExec>() {
            node
        } else {
            return Ok(Transformed::no(node));
        };
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
    })
    .data()
}

fn stoppable(filter: &JoinFilter, cell: &Arc<StopCell>) -> JoinFilter {
    let condition = StoppableCondition { inner: Arc::clone(filter.expression()), cell: Arc::clone(cell) };
    JoinFilter::new(Arc::new(condition), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// The condition with which a join asks; `None`: it has none, and asks with each batch that it gives.
fn condition(filter: Option<&JoinFilter>, kind: &JoinType, cell: &Arc<StopCell>) -> Option<JoinFilter> {
    match filter {
        Some(filter) => Some(stoppable(filter, cell)),
        None => gives_no_pairs(kind).then(|| stoppable_without_condition(cell)),
    }
}

/// Whether a join goes through its pairs and gives none of them: rows are in its answer for having one, or none.
fn gives_no_pairs(kind: &JoinType) -> bool {
    use JoinType::{LeftAnti, LeftMark, LeftSemi, RightAnti, RightMark, RightSemi};
    matches!(kind, LeftSemi | LeftAnti | LeftMark | RightSemi | RightAnti | RightMark)
}

/// What such a join asks of its pairs when it has no condition of its own: nothing, but each time.
fn stoppable_without_condition(cell: &Arc<StopCell>) -> JoinFilter {
    let condition = StoppableCondition { inner: lit(true), cell: Arc::clone(cell) };
    JoinFilter::new(Arc::new(condition), Vec::new(), Arc::new(Schema::empty()))
}

/// A condition that asks whether the run has to end each time it is evaluated.
#[derive(Debug)]
struct StoppableCondition {
    inner: Arc<dyn PhysicalExpr>,
    cell: Arc<StopCell>,
}

impl PartialEq for StoppableCondition {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && Arc::ptr_eq(&self.cell, &other.cell)
    }
}

impl Eq for StoppableCondition {}

impl Hash for StoppableCondition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for StoppableCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for StoppableCondition {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> DfResult<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        self.cell.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(inner), true) => Ok(Arc::new(Self { inner, cell: Arc::clone(&self.cell) })),
            _ => Err(DataFusionError::Internal("a stoppable condition has one child".into())),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
