//! Which conditions a stretch of rows can be judged by: those whose terms rise with the column that they are made of.
//!
//! DataFusion's pruning puts the least and the greatest value in the place of a column, through any cast. That says something
//! of the rows in between only where the cast keeps order: the time of day of the latest moment is not the latest time of day.
//! Parts of a condition that do not keep order judge nothing here; the filter above the scan has them all the same.

use std::sync::Arc;

use arrow_schema::{DataType, Schema};
use datafusion::common::Result as DfResult;
use datafusion::physical_expr::expressions::{CastExpr, Column, NegativeExpr, TryCastExpr};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, conjunction_opt, split_conjunction};

/// The parts of a condition that bounds of the columns can judge; `None`: there are none.
pub fn judged_by_bounds(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Arc<dyn PhysicalExpr>> {
    parts(condition, |part| is_monotone(part, schema).unwrap_or(false))
}

/// The parts of a condition that ask for no floats. Parquet's bounds leave NaN out, which is above or, with a sign, below all
/// other floats.
pub fn without_floats(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Arc<dyn PhysicalExpr>> {
    let is_float = |column: &Column| schema.field(column.index()).data_type().is_floating();
    parts(condition, |part| !collect_columns(part).iter().any(is_float))
}

fn parts(
    condition: &Arc<dyn PhysicalExpr>,
    keep: impl Fn(&Arc<dyn PhysicalExpr>) -> bool,
) -> Option<Arc<dyn PhysicalExpr>> {
    conjunction_opt(split_conjunction(condition).into_iter().filter(|part| keep(part)).cloned())
}

/// Whether every term in `expr` that bounds are put into keeps their order, or turns all of it around.
fn is_monotone(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> DfResult<bool> {
    let cast = match (expr.downcast_ref::<CastExpr>(), expr.downcast_ref::<TryCastExpr>()) {
        (Some(cast), _) => Some((cast.expr(), cast.cast_type())),
        (_, Some(cast)) => Some((cast.expr(), cast.cast_type())),
        _ => None,
    };
    if let Some((inner, to)) = cast
        && !collect_columns(inner).is_empty()
    {
        return Ok(is_column(inner) && keeps_order(&inner.data_type(schema)?, to) && is_monotone(inner, schema)?);
    }
    // The least integer is its own negative.
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>()
        && !(negative.arg().data_type(schema)?.is_floating() || negative.arg().data_type(schema)?.is_decimal())
    {
        return Ok(collect_columns(negative.arg()).is_empty());
    }
    for child in expr.children() {
        if !is_monotone(child, schema)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A column, or casts of one.
fn is_column(expr: &Arc<dyn PhysicalExpr>) -> bool {
    match (expr.downcast_ref::<CastExpr>(), expr.downcast_ref::<TryCastExpr>()) {
        (Some(cast), _) => is_column(cast.expr()),
        (_, Some(cast)) => is_column(cast.expr()),
        _ => expr.is::<Column>(),
    }
}

/// Whether a cast makes a greater value of a greater one, or the same of both. Where it fails for a bound nothing is judged.
fn keeps_order(from: &DataType, to: &DataType) -> bool {
    use DataType::{Boolean, Date32, Date64, Dictionary, Duration, Time32, Time64, Timestamp};
    match (from, to) {
        (Dictionary(_, from), to) => keeps_order(from, to),
        (from, Dictionary(_, to)) => keeps_order(from, to),
        (from, to) if from == to => true,
        (from, to) if from.is_string() && to.is_string() => true,
        // Rounding makes numbers equal and never swaps them. (Of a number as a boolean, zero alone is false.)
        (from, to) if (from.is_numeric() || *from == Boolean) && to.is_numeric() => true,
        // The same moments by another clock; without a zone, by the hands of one, which are put back in autumn.
        (Timestamp(_, Some(_)), Timestamp(_, Some(_))) => true,
        (Timestamp(_, from), Timestamp(_, to)) => is_steady(from.as_deref()) && is_steady(to.as_deref()),
        (Timestamp(_, zone), Date32 | Date64) | (Date32 | Date64, Timestamp(_, zone)) => is_steady(zone.as_deref()),
        (Date32 | Date64, Date32 | Date64) | (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (Duration(_), Duration(_)) => true,
        _ => false,
    }
}

/// A zone whose clocks are never put back.
fn is_steady(zone: Option<&str>) -> bool {
    zone.is_none_or(|zone| zone == "UTC" || zone.starts_with(['+', '-']))
}

#[cfg(test)]
mod tests {
    use arrow_schema::TimeUnit::{Microsecond, Nanosecond, Second};

    use super::*;

    #[test]
    fn casts_that_swap_values_are_told_from_those_that_keep_their_order() {
        use DataType::{Boolean, Date32, Decimal128, Float64, Int8, Int64, LargeUtf8, Time64, UInt64, Utf8};
        let zoned = |zone: &str| DataType::Timestamp(Microsecond, Some(zone.into()));
        let plain = DataType::Timestamp(Nanosecond, None);
        let words = DataType::Dictionary(Box::new(Int8), Box::new(Utf8));
        for (from, to) in [
            (Int8, Int64),
            (Int64, Int8),
            (UInt64, Float64),
            (Decimal128(9, 2), Float64),
            (Boolean, Int64),
            (words.clone(), LargeUtf8),
            (plain.clone(), DataType::Timestamp(Second, None)),
            (plain.clone(), zoned("+00:00")),
            (zoned("Europe/Berlin"), zoned("UTC")),
            (zoned("+02:00"), plain.clone()),
            (plain.clone(), Date32),
            (Date32, plain.clone()),
        ] {
            assert!(keeps_order(&from, &to), "{from} as {to}");
        }
        for (from, to) in [
            (Int64, Boolean),
            (Int64, Utf8),
            (Utf8, Int64),
            (words, Int64),
            (plain.clone(), Time64(Nanosecond)),
            (zoned("UTC"), Time64(Nanosecond)),
            (zoned("Europe/Berlin"), plain.clone()),
            (plain, zoned("Europe/Berlin")),
            (zoned("Europe/Berlin"), Date32),
        ] {
            assert!(!keeps_order(&from, &to), "{from} as {to}");
        }
    }
}
