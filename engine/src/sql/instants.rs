//! Moments in UTC beside timestamps of another zone, or without one.
//!
//! Parameters, the clock and the timestamps of rows are moments, so they have a zone: UTC. DataFusion would bring such an
//! operand and a column together by a cast of the column, row by row where it has no zone, and refuses two zones in the
//! arguments of a function. Here the moment takes the zone of what stands beside it: the same instant, and where there is no
//! zone, what clocks in UTC show.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr::{Between, Case, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, cast};

/// The zone of what is a moment.
pub const UTC: &str = "UTC";

/// `expr` with the moments in UTC among its operands in the zone of the others.
pub fn aligned(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => align(vec![left, right], schema),
        Expr::Between(Between { expr, low, high, .. }) => align(vec![expr, low, high], schema),
        Expr::InList(InList { expr, list, .. }) => align([&mut **expr].into_iter().chain(list).collect(), schema),
        Expr::ScalarFunction(function) => align(function.args.iter_mut().collect(), schema),
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (mut whens, mut thens) = (Vec::new(), Vec::new());
            for (when, then) in when_then_expr {
                whens.push(&mut **when);
                thens.push(&mut **then);
            }
            whens.extend(expr.as_deref_mut());
            thens.extend(else_expr.as_deref_mut());
            // Both: `or` would leave the second out.
            align(whens, schema) | align(thens, schema)
        }
        _ => false,
    };
    Transformed::new_transformed(expr, changed)
}

fn align(operands: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let kinds: Vec<Option<DataType>> = operands.iter().map(|operand| operand.get_type(schema).ok()).collect();
    let zones = || kinds.iter().flatten().filter_map(zone);
    let Some(other) = zones().find(|zone| !is_utc(zone)).cloned() else { return false };
    let mut changed = false;
    for (operand, kind) in operands.into_iter().zip(&kinds) {
        if let Some(DataType::Timestamp(unit, zone)) = kind
            && is_utc(zone)
        {
            *operand = cast(std::mem::take(operand), DataType::Timestamp(*unit, other.clone()));
            changed = true;
        }
    }
    changed
}

/// The zone of a timestamp: one of those is that it has none.
fn zone(kind: &DataType) -> Option<&Option<Arc<str>>> {
    match kind {
        DataType::Timestamp(_, zone) => Some(zone),
        _ => None,
    }
}

fn is_utc(zone: &Option<Arc<str>>) -> bool {
    zone.as_deref().is_some_and(|zone| zone == UTC || zone == "+00:00")
}
