//! A guard for decimals of 32 and 64 bits: whatever is computed with them is computed with 128 bits.
//!
//! DataFusion gives the result of an operation on a narrow decimal a narrow type, and what does not fit wraps around: an
//! int64 times a decimal32, or the sum of a column, then is a wrong number and no error. It also brings a narrow decimal and
//! a large integer together as narrow decimals, in comparisons, branches and unions alike. Columns that are only handed on, or
//! meet their like, keep their type.

use std::sync::Arc;

use arrow_schema::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::{Between, Case, InList, InSubquery, SetComparison, WindowFunction};
use datafusion::logical_expr::logical_plan::{Join, Union};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Subquery, WindowFrameBound, WindowFrameUnits,
    cast,
};

/// `expr` with every narrow decimal that an operator, function or aggregate takes made one of 128 bits.
pub fn widened(mut expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let changed = match &mut expr {
        // Two of one type are compared as they are: a join on them stays one by equality.
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            unless_alike(vec![left, right], schema)
        }
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => widen(vec![left, right], schema),
        Expr::Between(Between { expr, low, high, .. }) => unless_alike(vec![expr, low, high], schema),
        Expr::InList(InList { expr, list, .. }) => {
            unless_alike([&mut **expr].into_iter().chain(list).collect(), schema)
        }
        Expr::InSubquery(InSubquery { expr, subquery, .. })
        | Expr::SetComparison(SetComparison { expr, subquery, .. }) => beside_rows(expr, subquery, schema)?,
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (mut whens, mut thens) = (Vec::new(), Vec::new());
            for (when, then) in when_then_expr {
                whens.push(&mut **when);
                thens.push(&mut **then);
            }
            whens.extend(expr.as_deref_mut());
            thens.extend(else_expr.as_deref_mut());
            // Both: `or` would leave the second out.
            unless_alike(whens, schema) | unless_alike(thens, schema)
        }
        Expr::Negative(inner) => widen(vec![inner], schema),
        Expr::ScalarFunction(function) => widen(function.args.iter_mut().collect(), schema),
        Expr::AggregateFunction(function) => widen(function.params.args.iter_mut().collect(), schema),
        Expr::WindowFunction(function) => {
            let in_order = has_computed_bounds(function);
            let params = &mut function.params;
            let mut changed = widen(params.args.iter_mut().collect(), schema);
            for sort in params.order_by.iter_mut().filter(|_| in_order) {
                // A bound may be far beyond all values.
                if let Some(DataType::Decimal128(_, scale)) = narrow(&sort.expr, schema) {
                    let widest = DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale);
                    sort.expr = cast(std::mem::take(&mut sort.expr), widest);
                    changed = true;
                }
            }
            changed
        }
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, changed))
}

/// The same for what a plan itself compares or puts in one column: keys of a join, and the rows of a union.
pub fn widened_sides(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Join(mut join) => {
            let Join { left, right, on, .. } = &mut join;
            for (one, other) in on {
                if narrow(one, left.schema()) != narrow(other, right.schema()) {
                    widen(vec![one], left.schema());
                    widen(vec![other], right.schema());
                }
            }
            LogicalPlan::Join(join)
        }
        LogicalPlan::Union(Union { inputs, .. }) if !all_alike(&inputs) => {
            let inputs = inputs.into_iter().map(|input| wide_rows(&input).map(Arc::new));
            LogicalPlan::Union(Union::try_new_with_loose_types(inputs.collect::<DfResult<_>>()?)?)
        }
        other => other,
    })
}

/// Whether a frame begins or ends so much before or after the value of its row.
fn has_computed_bounds(function: &WindowFunction) -> bool {
    let frame = &function.params.window_frame;
    let is_computed = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => !value.is_null(),
        WindowFrameBound::CurrentRow => false,
    };
    frame.units == WindowFrameUnits::Range && (is_computed(&frame.start_bound) || is_computed(&frame.end_bound))
}

/// The wide type for an expression of a narrow one.
fn narrow(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    wide_type(&expr.get_type(schema).ok()?) // what has no type yet is a parameter
}

fn wide_type(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            Some(DataType::Decimal128(*precision, *scale))
        }
        _ => None,
    }
}

fn widen(operands: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let mut any = false;
    for operand in operands {
        if let Some(kind) = narrow(operand, schema) {
            *operand = cast(std::mem::take(operand), kind);
            any = true;
        }
    }
    any
}

/// Widens operands where they are not all of one type.
fn unless_alike(operands: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let kinds: Vec<_> = operands.iter().map(|operand| operand.get_type(schema).ok()).collect();
    // NULL, which has no type of its own, is like all others.
    let mut kinds = kinds.into_iter().filter(|kind| *kind != Some(DataType::Null));
    let first = kinds.next();
    if kinds.all(|kind| Some(kind) == first) { false } else { widen(operands, schema) }
}

/// An expression that is compared with the rows of a subquery.
fn beside_rows(expr: &mut Expr, subquery: &mut Subquery, schema: &DFSchema) -> DfResult<bool> {
    let field = subquery.subquery.schema().field(0).data_type();
    let (own, rows) = (narrow(expr, schema), wide_type(field));
    if own == rows {
        return Ok(false);
    }
    widen(vec![expr], schema);
    if rows.is_some() {
        subquery.subquery = Arc::new(wide_rows(&subquery.subquery)?);
    }
    Ok(true)
}

fn all_alike(inputs: &[Arc<LogicalPlan>]) -> bool {
    let kinds = |plan: &LogicalPlan| -> Vec<DataType> {
        plan.schema().fields().iter().map(|field| field.data_type().clone()).collect()
    };
    inputs.iter().all(|input| kinds(input) == kinds(&inputs[0]))
}

/// The plan with its narrow columns wide, under their names.
fn wide_rows(plan: &LogicalPlan) -> DfResult<LogicalPlan> {
    if !plan.schema().fields().iter().any(|field| wide_type(field.data_type()).is_some()) {
        return Ok(plan.clone());
    }
    let columns = plan.schema().iter().map(|(relation, field)| {
        let column = Expr::from((relation, field));
        match wide_type(field.data_type()) {
            Some(kind) => cast(column, kind).alias_qualified(relation.cloned(), field.name()),
            None => column,
        }
    });
    LogicalPlanBuilder::from(plan.clone()).project(columns.collect::<Vec<_>>())?.build()
}
