//! Where a group limit goes: below the sort of a window whose row numbers a filter bounds from above.
//!
//! ```text
//! FilterExec: place <= 2
//!   ProjectionExec, ...
//!     BoundedWindowAggExec: row_number() partition by id order by v      BoundedWindowAggExec
//!       SortExec: id, v                                                    SortExec
//!         RepartitionExec: Hash(id)                                          RepartitionExec
//!           ...                                                                GroupLimitExec: 2 a group
//!                                                                                ...
//! ```
//!
//! The limit drops rows that are not among the first of their group; whatever stands above it does its work all the same,
//! on fewer rows. So it has to keep enough, and never has to be exact.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column};
use datafusion::physical_expr::utils::{collect_columns, split_conjunction};
use datafusion::physical_expr::window::{StandardWindowExpr, WindowExpr};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec, WindowUDFExpr};

use super::{GroupLimitExec, Most};

/// Puts group limits into a plan.
pub fn limit_groups(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(Transformed::no(node)) };
        for condition in split_conjunction(filter.predicate()) {
            let Some((column, most)) = bound(condition) else { continue };
            if let Some(input) = limited(filter.input(), column, &most)? {
                let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                return Ok(Transformed::yes(Arc::clone(&node).replace_children(vec![input], options)?));
            }
        }
        Ok(Transformed::no(node))
    })
    .data()
}

/// A column, and what a condition says that its values are at most.
fn bound(condition: &Arc<dyn PhysicalExpr>) -> Option<(usize, Most)> {
    let compared = condition.downcast_ref::<BinaryExpr>()?;
    let (column, bound, operator) = match (number(compared.left()), number(compared.right())) {
        (Some(column), None) => (column, compared.right(), *compared.op()),
        (None, Some(column)) => (column, compared.left(), compared.op().swap()?),
        _ => return None,
    };
    if !matches!(operator, Operator::Lt | Operator::LtEq | Operator::Eq)
        || !collect_columns(bound).is_empty()
        || is_volatile(bound)
    {
        return None;
    }
    Some((column, Most { bound: Arc::clone(bound), itself: operator != Operator::Lt }))
}

/// The column that an expression is, or is the same number in another type of.
fn number(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Some(column.index());
    }
    let cast = expr.downcast_ref::<CastExpr>()?;
    let wide = match cast.cast_type() {
        DataType::Int64 | DataType::UInt64 | DataType::Float64 => true,
        DataType::Decimal128(precision, scale) => *scale >= 0 && i16::from(*precision) - i16::from(*scale) >= 20,
        _ => false,
    };
    if wide { number(cast.expr()) } else { None }
}

/// The plan with a limit below the window that has `column`; `None`: none can be there.
fn limited(node: &Arc<dyn ExecutionPlan>, column: usize, most: &Most) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(input) = window_input(node) {
        let Some(window) = numbered(node, input, column) else { return Ok(None) };
        return match below_sort(input, window.partition_by(), window.order_by(), most, false)? {
            Some(input) => replaced(node, input).map(Some),
            None => Ok(None),
        };
    }
    let (input, column) = if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        match projection.expr()[column].expr.downcast_ref::<Column>() {
            Some(inner) => (projection.input(), inner.index()),
            None => return Ok(None),
        }
    } else if node.is::<CooperativeExec>() || node.is::<RepartitionExec>() || node.is::<CoalescePartitionsExec>() {
        (node.children()[0], column)
    } else {
        return Ok(None);
    };
    match limited(input, column, most)? {
        Some(input) => replaced(node, input).map(Some),
        None => Ok(None),
    }
}

fn window_input(node: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    match node.downcast_ref::<BoundedWindowAggExec>() {
        Some(window) => Some(window.input()),
        None => node.downcast_ref::<WindowAggExec>().map(WindowAggExec::input),
    }
}

/// The window expression of `column`, if it numbers rows and whatever else the window has would not miss the rows behind:
/// places in the same order.
fn numbered<'a>(
    node: &'a Arc<dyn ExecutionPlan>,
    input: &Arc<dyn ExecutionPlan>,
    column: usize,
) -> Option<&'a Arc<dyn WindowExpr>> {
    let all = match node.downcast_ref::<BoundedWindowAggExec>() {
        Some(window) => window.window_expr(),
        None => node.downcast_ref::<WindowAggExec>()?.window_expr(),
    };
    let found = all.get(column.checked_sub(input.schema().fields().len())?)?;
    let places = all.iter().all(|one| {
        matches!(function(one), Some("row_number" | "rank" | "dense_rank"))
            && one.partition_by() == found.partition_by()
            && one.order_by() == found.order_by()
    });
    (places && function(found) == Some("row_number")).then_some(found)
}

fn function(window: &Arc<dyn WindowExpr>) -> Option<&str> {
    let standard = window.as_any().downcast_ref::<StandardWindowExpr>()?;
    let function = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>()?;
    Some(function.fun().name())
}

/// Goes down to below the sort, and below the exchange that brings the rows of a group together: fewer rows are exchanged.
fn below_sort(
    node: &Arc<dyn ExecutionPlan>,
    groups: &[Arc<dyn PhysicalExpr>],
    order: &[PhysicalSortExpr],
    most: &Most,
    sorted: bool,
) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let sorts = node.downcast_ref::<SortExec>();
    let on_the_way = sorts.is_some_and(|sort| sort.fetch().is_none())
        || node.downcast_ref::<SortPreservingMergeExec>().is_some_and(|merge| merge.fetch().is_none())
        || node.is::<RepartitionExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<CooperativeExec>();
    if !on_the_way {
        return Ok(match sorted {
            true => GroupLimitExec::new(Arc::clone(node), groups, order, most.clone())?
                .map(|limit| Arc::new(limit) as Arc<dyn ExecutionPlan>),
            false => None, // it is in order already: nothing would be saved
        });
    }
    match below_sort(node.children()[0], groups, order, most, sorted || sorts.is_some())? {
        Some(input) => replaced(node, input).map(Some),
        None => Ok(None),
    }
}

fn replaced(node: &Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    Arc::clone(node).replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}
