//! A guard for decimals of 32 and 64 bits: whatever is computed with them is computed with 128 bits.
//!
//! DataFusion gives the result of an operation on a narrow decimal a narrow type, and what does not fit wraps around: an
//! int64 times a decimal32, or the sum of a column, then is a wrong number and no error. Columns that are only handed on
//! keep their type.

use arrow_schema::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, cast};

/// `expr` with every narrow decimal that an operator, function or aggregate takes made one of 128 bits.
pub fn widened(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    Ok(match expr {
        // Two of one type are compared as they are: a join on them stays one by equality.
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if op.supports_propagation() && narrow(&left, schema) == narrow(&right, schema) =>
        {
            Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (left, right) = (wide(*left, schema), wide(*right, schema));
            let transformed = left.transformed || right.transformed;
            let expr = BinaryExpr { left: Box::new(left.data), op, right: Box::new(right.data) };
            Transformed::new_transformed(Expr::BinaryExpr(expr), transformed)
        }
        Expr::Between(between) => {
            wide(*between.expr, schema).update_data(|expr| Expr::Between(Between { expr: Box::new(expr), ..between }))
        }
        Expr::InList(list) => {
            wide(*list.expr, schema).update_data(|expr| Expr::InList(InList { expr: Box::new(expr), ..list }))
        }
        Expr::Negative(inner) => wide(*inner, schema).update_data(|inner| Expr::Negative(Box::new(inner))),
        Expr::ScalarFunction(mut function) => {
            let transformed = wide_all(&mut function.args, schema);
            Transformed::new_transformed(Expr::ScalarFunction(function), transformed)
        }
        Expr::AggregateFunction(mut function) => {
            let transformed = wide_all(&mut function.params.args, schema);
            Transformed::new_transformed(Expr::AggregateFunction(function), transformed)
        }
        Expr::WindowFunction(mut function) => {
            let transformed = wide_all(&mut function.params.args, schema);
            Transformed::new_transformed(Expr::WindowFunction(function), transformed)
        }
        other => Transformed::no(other),
    })
}

/// The wide type for an expression of a narrow one.
fn narrow(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    match expr.get_type(schema) {
        Ok(DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale)) => {
            Some(DataType::Decimal128(precision, scale))
        }
        _ => None, // also what has no type yet: a parameter
    }
}

fn wide(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match narrow(&expr, schema) {
        Some(kind) => Transformed::yes(cast(expr, kind)),
        None => Transformed::no(expr),
    }
}

fn wide_all(args: &mut [Expr], schema: &DFSchema) -> bool {
    let mut any = false;
    for arg in args {
        if let Some(kind) = narrow(arg, schema) {
            *arg = cast(std::mem::take(arg), kind);
            any = true;
        }
    }
    any
}
