//! Which aggregates have a second plan, and what that is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, NullEquality, Result as DfResult};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions, reset_plan_states};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, InputOrderMode};

use super::CodedGroupsExec;
use super::code::{CodeExec, Column};
use super::codes::Codes;
use super::name::{NameExec, Named};
use super::number::{GROUP, Groups, NumberExec};
use crate::sql::scan::SlotScan;

/// Columns of a plan that are wanted as numbers, and whose numbers those are.
type Wanted = BTreeMap<usize, Arc<Codes>>;

/// Gives aggregates by texts a second plan, where each of these texts is a table's.
pub fn code_groups(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        Ok(match coded_aggregate(&node)? {
            Some(coded) => Transformed::yes(Arc::new(CodedGroupsExec::new(node, coded)) as Arc<dyn ExecutionPlan>),
            None => Transformed::no(node),
        })
    })
    .data()
}

fn coded_aggregate(node: &Arc<dyn ExecutionPlan>) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let by = aggregate.group_expr();
    let fits = matches!(aggregate.mode(), AggregateMode::Partial | AggregateMode::Single | AggregateMode::SinglePartitioned)
            && by.is_single()
            // What they ask of the order of rows may be turned round when an aggregate is made.
            && aggregate.aggr_expr().iter().all(|function| function.order_bys().is_empty())
            && !by.is_empty()
            && aggregate.limit_options().is_none()
            && matches!(aggregate.input_order_mode(), InputOrderMode::Linear);
    if !fits {
        return Ok(None);
    }
    let schema = aggregate.input().schema();
    let text = |expr: &Arc<dyn PhysicalExpr>| {
        let column = expr.downcast_ref::<expressions::Column>()?.index();
        schema.field(column).data_type().is_string().then_some(column)
    };
    let mut used = used(aggregate);
    by.expr().iter().filter(|(expr, _)| text(expr).is_none()).for_each(|(expr, _)| used.extend(columns(expr)));

    let (mut wanted, mut named, mut others, mut of_group) = (Wanted::new(), Vec::new(), Vec::new(), Vec::new());
    for (expr, name) in by.expr() {
        match text(expr) {
            // A text that is asked for besides, or by which rows are grouped twice.
            Some(column) if used.contains(&column) || wanted.contains_key(&column) => return Ok(None),
            Some(column) => {
                let codes = Arc::new(Codes::default());
                wanted.insert(column, Arc::clone(&codes));
                of_group.push(column);
                named.push(Named::Texts(codes));
            }
            None => {
                others.push((Arc::clone(expr), name.clone()));
                named.push(Named::AsItIs);
            }
        }
    }
    if !wanted.keys().all(|column| may_be_numbers(aggregate.input(), *column)) {
        return Ok(None);
    }
    // One column of texts as it lies in a table is grouped by as fast without numbers.
    let is_plain = wanted.len() == by.expr().len() && wanted.len() == 1 && aggregate.input().is::<SlotScan>();
    if wanted.is_empty() || is_plain {
        return Ok(None);
    }
    let Some(input) = coded(aggregate.input(), &wanted)? else { return Ok(None) };
    let groups = Arc::new(Groups::new(of_group, input.output_partitioning().partition_count()));
    let numbered: Arc<dyn ExecutionPlan> = Arc::new(NumberExec::new(input, Arc::clone(&groups)));
    let schema = numbered.schema();
    let group: Arc<dyn PhysicalExpr> = Arc::new(expressions::Column::new(GROUP, schema.fields().len() - 1));
    let by = PhysicalGroupBy::new_single([(group, GROUP.to_owned())].into_iter().chain(others).collect());
    let numbers = AggregateExec::try_new(
        *aggregate.mode(),
        by,
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        numbered,
        schema,
    )?;
    let names = NameExec::new(Arc::new(numbers), groups, named, Arc::clone(node.properties()));
    Ok(Some(Arc::new(names)))
}

/// Whether a column is a table's texts, of which nothing on the way asks for the text. It is what `coded` finds out, for one
/// column and without making anything: a join that tried its keys and then did without them would look at the joins below
/// it twice, and those at theirs.
fn may_be_numbers(node: &Arc<dyn ExecutionPlan>, column: usize) -> bool {
    if node.is::<SlotScan>() {
        return node.schema().field(column).data_type().is_string();
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let inner = filter.projection().as_ref().map_or(column, |columns| columns[column]);
        let asks = columns(filter.predicate()).any(|asked| asked == inner);
        return filter.fetch().is_none()
            && (filter.input().is::<SlotScan>() || !asks)
            && may_be_numbers(filter.input(), inner);
    }
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let Some(inner) = projection.expr()[column].expr.downcast_ref::<expressions::Column>() else { return false };
        let uses = projection.expr().iter().filter(|other| columns(&other.expr).any(|asked| asked == inner.index()));
        return uses.count() == 1 && may_be_numbers(projection.input(), inner.index());
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let inner = join.projection.as_ref().map_or(column, |columns| columns[column]);
        let own = join.left().schema().fields().len();
        return fits(join)
            && match inner.checked_sub(own) {
                Some(right) => may_be_numbers(join.right(), right),
                None => may_be_numbers(join.left(), inner),
            };
    }
    (node.is::<CooperativeExec>() || node.is::<CoalescePartitionsExec>()) && may_be_numbers(node.children()[0], column)
}

/// The columns that the functions of an aggregate ask for.
fn used(aggregate: &AggregateExec) -> BTreeSet<usize> {
    let mut used = BTreeSet::new();
    for function in aggregate.aggr_expr() {
        function.expressions().iter().for_each(|expr| used.extend(columns(expr)));
    }
    aggregate.filter_expr().iter().flatten().for_each(|filter| used.extend(columns(filter)));
    used
}

/// The same rows with numbers in the place of the texts that are wanted so. `None`: these are no texts of a table, or are
/// asked for as texts on the way.
fn coded(node: &Arc<dyn ExecutionPlan>, wanted: &Wanted) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if node.is::<SlotScan>() {
        return leaf(node, None, &(0..node.schema().fields().len()).collect::<Vec<_>>(), wanted);
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        return filtered(filter, wanted);
    }
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        return projected(projection, wanted);
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        return joined(join, wanted);
    }
    if node.is::<CooperativeExec>() || node.is::<CoalescePartitionsExec>() {
        let Some(input) = coded(node.children()[0], wanted)? else { return Ok(None) };
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        return Arc::clone(node).replace_children(vec![input], options).map(Some);
    }
    Ok(None)
}

fn leaf(
    scan: &Arc<dyn ExecutionPlan>,
    filter: Option<&Arc<dyn PhysicalExpr>>,
    columns: &[usize],
    wanted: &Wanted,
) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let column = |(number, input): (usize, &usize)| Column { input: *input, codes: wanted.get(&number).cloned() };
    let columns = columns.iter().enumerate().map(column).collect();
    // A scan of its own, as what a condition leaves of the table is kept in it.
    let scan = Arc::clone(scan).reset_state()?;
    Ok(CodeExec::new(&scan, filter, columns).map(|code| Arc::new(code) as _))
}

fn filtered(filter: &FilterExec, wanted: &Wanted) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if filter.fetch().is_some() {
        return Ok(None);
    }
    let all = filter.input().schema().fields().len();
    let outputs = filter.projection().as_ref().map_or_else(|| (0..all).collect(), |columns| columns.to_vec());
    if filter.input().is::<SlotScan>() {
        // It is judged before there are numbers, so it may ask for texts.
        return leaf(filter.input(), Some(filter.predicate()), &outputs, wanted);
    }
    let Some(inner) = inner(&outputs, wanted) else { return Ok(None) };
    if columns(filter.predicate()).any(|column| inner.contains_key(&column)) {
        return Ok(None);
    }
    let Some(input) = coded(filter.input(), &inner)? else { return Ok(None) };
    Ok(Some(Arc::new(FilterExecBuilder::from(filter).with_input(input).build()?)))
}

fn projected(projection: &ProjectionExec, wanted: &Wanted) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let mut inner = Wanted::new();
    for (number, codes) in wanted {
        let Some(column) = projection.expr()[*number].expr.downcast_ref::<expressions::Column>() else {
            return Ok(None);
        };
        if inner.insert(column.index(), Arc::clone(codes)).is_some() {
            return Ok(None);
        }
    }
    let others = projection.expr().iter().enumerate().filter(|(number, _)| !wanted.contains_key(number));
    for (_, other) in others {
        if columns(&other.expr).any(|column| inner.contains_key(&column)) {
            return Ok(None);
        }
    }
    let Some(input) = coded(projection.input(), &inner)? else { return Ok(None) };
    Ok(Some(Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), input)?)))
}

/// A join whose smaller side is collected.
fn joined(join: &HashJoinExec, wanted: &Wanted) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if !fits(join) {
        return Ok(None);
    }
    let own = join.left().schema().fields().len();
    let all = own + join.right().schema().fields().len();
    let outputs = join.projection.as_ref().map_or_else(|| (0..all).collect(), |columns| columns.to_vec());
    let Some(inner) = inner(&outputs, wanted) else { return Ok(None) };
    let side = |plan: &Arc<dyn ExecutionPlan>, wanted: Wanted| match wanted.is_empty() {
        // One with two plans in it would be there four times, and eight times one step further up.
        true if plan.exists(|node| Ok(node.is::<CodedGroupsExec>()))? => Ok(None),
        true => reset_plan_states(Arc::clone(plan)).map(Some), // a copy: the other plan's operators are its own
        false => coded(plan, &wanted),
    };
    let Some(mut first) = with_keys(join, &outputs, &inner) else { return Ok(None) };
    let second = first.split_off(&own).into_iter().map(|(column, codes)| (column - own, codes)).collect();
    let (Some(first), Some(second)) = (side(join.left(), first)?, side(join.right(), second)?) else {
        return Ok(None);
    };
    let join = join.builder().with_new_children(vec![first, second])?.recompute_properties();
    // It shares nothing of what a run collects with the join by texts.
    join.reset_state().build_exec().map(Some)
}

/// Whether a join may have numbers for keys and columns.
fn fits(join: &HashJoinExec) -> bool {
    matches!(join.join_type(), JoinType::Inner | JoinType::Left | JoinType::Right)
        && *join.partition_mode() == PartitionMode::CollectLeft
        && join.filter().is_none()
        && join.fetch().is_none()
        && join.dynamic_expressions_produced().is_empty()
        && join.null_equality() == NullEquality::NullEqualsNothing
        && !join.null_aware
}

/// What is wanted of both sides of a join (`inner`), and the same numbers for both sides of a key by texts where both may be
/// numbers. `None`: the join or its answer asks for one of them as text.
fn with_keys(join: &HashJoinExec, outputs: &[usize], inner: &Wanted) -> Option<Wanted> {
    let (left, right) = (join.left().schema(), join.right().schema());
    let own = left.fields().len();
    let plain = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<expressions::Column>().map(|key| key.index());
    let (mut pairs, mut as_text) = (Vec::new(), BTreeSet::new());
    for (first, second) in join.on() {
        match (plain(first), plain(second)) {
            (Some(first), Some(second)) if left.field(first).data_type().is_string() => {
                pairs.push([first, own + second])
            }
            _ => as_text.extend(columns(first).chain(columns(second).map(|column| own + column))),
        }
    }
    debug_assert!(pairs.iter().all(|[_, second]| right.field(second - own).data_type().is_string()));
    as_text.extend(outputs.iter().copied().filter(|column| !inner.contains_key(column)));
    let mut wanted = inner.clone();
    for pair in pairs {
        let known: Vec<Arc<Codes>> = pair.iter().filter_map(|key| wanted.get(key).cloned()).collect();
        let codes = match known.as_slice() {
            [] if pair.iter().any(|key| as_text.contains(key))
                || !may_be_numbers(join.left(), pair[0])
                || !may_be_numbers(join.right(), pair[1] - own) =>
            {
                as_text.extend(pair);
                continue;
            }
            [] => Arc::new(Codes::default()),
            [one] => Arc::clone(one),
            [one, other] if Arc::ptr_eq(one, other) => continue,
            _ => return None, // each has numbers of its own already
        };
        pair.into_iter().for_each(|key| drop(wanted.insert(key, Arc::clone(&codes))));
    }
    wanted.keys().all(|column| !as_text.contains(column)).then_some(wanted)
}

/// What is wanted, by the columns below that are handed on as `outputs`. `None`: a column is handed on both as numbers and as
/// something else.
fn inner(outputs: &[usize], wanted: &Wanted) -> Option<Wanted> {
    let mut inner = Wanted::new();
    for (number, codes) in wanted {
        if inner.insert(outputs[*number], Arc::clone(codes)).is_some() {
            return None;
        }
    }
    let as_it_is = |(number, column): (usize, &usize)| !wanted.contains_key(&number) && inner.contains_key(column);
    (!outputs.iter().enumerate().any(as_it_is)).then_some(inner)
}

fn columns(expr: &Arc<dyn PhysicalExpr>) -> impl Iterator<Item = usize> {
    collect_columns(expr).into_iter().map(|column| column.index())
}
