//! Functions whose result may be far larger than what they are given, in statements that a client wrote.
//!
//! What a function makes of one batch lies outside the memory pool, and a constant is computed while planning, before any
//! deadline: `replace` of every letter by a long text, twice, turns 24 KB of SQL into half a terabyte, and a chain of
//! `s || s` doubles with each step. Each call is asked beforehand how many bytes it may make. All calls of a statement share one
//! bound, so more of them have less each. Functions without such a bound are refused outright (`check`).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{BinaryViewType, ByteViewType, StringViewType};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinary, Column, Literal};

use super::plan::rewrite;

/// Most bytes that all growing calls of a statement may make of one batch together.
const MOST_BYTES: usize = 1 << 30;
/// Most bytes of one call.
const MOST_BYTES_A_CALL: usize = 256 << 20;
/// Most bytes of a value that is computed while planning: it stands in a row of its own for each row of a batch.
const MOST_BYTES_A_VALUE: usize = 64 << 10;
/// Most bytes of all values of a planned statement, each counted as often as it stands there.
const MOST_BYTES_OF_VALUES: usize = 2 * MOST_BYTES_A_VALUE;
/// Longest text between those that an aggregate puts together.
const LONGEST_SEPARATOR: usize = 1 << 10;
/// Letters that a pattern's letter may become in a formatted date.
const LETTERS_A_PATTERN: usize = 16;

/// The plan with every growing call asked for its size first.
pub fn bounded(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut calls = 0;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                calls += usize::from(growth(expr).is_some());
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if calls == 0 {
        return Ok(plan);
    }
    let most = (MOST_BYTES / calls).min(MOST_BYTES_A_CALL);
    rewrite(plan, &|expr| {
        let Some(growth) = growth(&expr) else { return Ok(Transformed::no(expr)) };
        Ok(match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                let call = Bounded { inner: func, growth, most };
                Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(call.into()), args)))
            }
            Expr::BinaryExpr(BinaryExpr { left, right, .. }) => {
                let joined =
                    Arc::new(ScalarUDF::from(Joined { signature: Signature::user_defined(Volatility::Immutable) }));
                let call = Bounded { inner: joined, growth, most };
                Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
                    Arc::new(call.into()),
                    vec![*left, *right],
                )))
            }
            other => Transformed::no(other),
        })
    })
}

/// Refuses an optimised plan whose values would be too much once they stand in each row of a batch.
pub fn check_values(plan: &LogicalPlan) -> DfResult<()> {
    let mut bytes = 0;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr {
                    bytes += value_bytes(value)?;
                }
                if let Expr::AggregateFunction(function) = expr
                    && let ("string_agg", Some(Expr::Literal(separator, _))) =
                        (function.func.name(), function.params.args.get(1))
                    && value_bytes(separator)? > LONGEST_SEPARATOR
                {
                    return plan_err!("string_agg has a separator of more than {LONGEST_SEPARATOR} bytes");
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if bytes > MOST_BYTES_OF_VALUES {
        return plan_err!(
            "the values in the statement have {bytes} bytes, each counted as often as it is used; the limit is \
             {MOST_BYTES_OF_VALUES}; hint: bring large values in a table"
        );
    }
    Ok(())
}

/// Bytes of a text or a nested value.
fn value_bytes(value: &ScalarValue) -> DfResult<usize> {
    Ok(match (value.try_as_str(), value.data_type()) {
        (Some(text), _) => text.map_or(0, str::len),
        (None, kind) if kind.is_primitive() || kind.is_null() || kind == DataType::Boolean => 0,
        (None, _) => Size::of_rows(&value.to_array()?)?.bytes,
    })
}

/// How a call grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// To all that it is given.
    Sum,
    /// The same, with the first put between the others.
    Separated,
    /// By the third argument in the place of each of the second in the first.
    Replaced,
    /// The same, by a pattern.
    ReplacedByPattern,
    /// By the second argument, and by the third where nothing is, between items of the first.
    Listed,
    /// By the third argument in the place of items of the first.
    ItemsReplaced,
    /// By the letters of the second argument, for each row.
    Formatted,
    /// Twice the first argument.
    Encoded,
}

fn growth(expr: &Expr) -> Option<Growth> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op: Operator::StringConcat, .. }) => Some(Growth::Sum),
        Expr::ScalarFunction(function) => Some(match function.func.name() {
            "concat" | "overlay" | "make_array" | "array_append" | "array_prepend" | "array_concat" | "array_union"
            | "arrays_zip" | "named_struct" | "struct" | "map" => Growth::Sum,
            "concat_ws" => Growth::Separated,
            "replace" => Growth::Replaced,
            "regexp_replace" => Growth::ReplacedByPattern,
            "array_to_string" => Growth::Listed,
            "array_replace" | "array_replace_n" | "array_replace_all" => Growth::ItemsReplaced,
            "to_char" => Growth::Formatted,
            "encode" => Growth::Encoded,
            _ => return None,
        }),
        _ => None,
    }
}

/// A function that is called once it is known how much it may make.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    most: usize,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, args: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(args)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, args: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let has_rows = args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)));
        let (rows, most) = if has_rows { (args.number_rows, self.most) } else { (1, MOST_BYTES_A_VALUE) };
        let sizes = args.args.iter().map(|arg| Size::of(arg, rows)).collect::<DfResult<Vec<_>>>()?;
        let bytes = self.growth.bytes(&sizes, rows);
        if bytes > most {
            return exec_err!(
                "{} may make {bytes} bytes of {}, and {most} are the most that it may in this statement",
                self.name(),
                if has_rows { format!("{rows} rows") } else { "values without rows".to_owned() }
            );
        }
        self.inner.invoke_with_args(args)
    }
}

/// What matters of an argument's size. All are bounds from above.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// Bytes of all rows; of a value, as often as there are rows.
    bytes: usize,
    /// Bytes of the longest.
    longest: usize,
    /// Bytes of the shortest.
    shortest: usize,
    /// Items of all lists.
    items: usize,
    /// Places in the longest text that name what a pattern has found.
    references: usize,
}

impl Size {
    fn of(arg: &ColumnarValue, rows: usize) -> DfResult<Self> {
        Ok(match arg {
            ColumnarValue::Array(array) => Self::of_rows(array)?,
            ColumnarValue::Scalar(value) => {
                let one = Self::of_rows(&value.to_array()?)?;
                let (bytes, items) = (one.longest.max(one.bytes).saturating_mul(rows), one.items.saturating_mul(rows));
                Self { bytes, items, ..one }
            }
        })
    }

    fn of_rows(array: &ArrayRef) -> DfResult<Self> {
        let texts = |lengths: &mut dyn Iterator<Item = usize>| {
            let (mut bytes, mut longest, mut shortest) = (0, 0, usize::MAX);
            for length in lengths {
                bytes += length;
                (longest, shortest) = (length.max(longest), length.min(shortest));
            }
            Self { bytes, longest, shortest: if bytes == 0 { 0 } else { shortest }, ..Self::default() }
        };
        let size = match array.data_type() {
            DataType::Utf8 => texts(&mut pairs(array.as_string::<i32>().value_offsets())),
            DataType::LargeUtf8 => texts(&mut pairs(array.as_string::<i64>().value_offsets())),
            DataType::Binary => texts(&mut pairs(array.as_binary::<i32>().value_offsets())),
            DataType::LargeBinary => texts(&mut pairs(array.as_binary::<i64>().value_offsets())),
            DataType::Utf8View => texts(&mut views::<StringViewType>(array)),
            DataType::BinaryView => texts(&mut views::<BinaryViewType>(array)),
            DataType::List(_) => Self { items: array.as_list::<i32>().values().len(), ..Self::default() },
            DataType::LargeList(_) => Self { items: array.as_list::<i64>().values().len(), ..Self::default() },
            DataType::FixedSizeList(..) => Self { items: array.as_fixed_size_list().values().len(), ..Self::default() },
            _ => Self::default(),
        };
        if size.longest > 0 {
            let references = match array.data_type() {
                DataType::Utf8 => array.as_string::<i32>().iter().flatten().map(references).max(),
                DataType::LargeUtf8 => array.as_string::<i64>().iter().flatten().map(references).max(),
                DataType::Utf8View => array.as_string_view().iter().flatten().map(references).max(),
                _ => None,
            };
            return Ok(Self { references: references.unwrap_or_default(), ..size });
        }
        // Of other types the buffers are what is copied.
        let bytes = array.to_data().get_slice_memory_size()?;
        Ok(Self { bytes: bytes.max(size.bytes), longest: bytes.div_ceil(array.len().max(1)), ..size })
    }
}

fn pairs<T: Copy + Into<i64>>(offsets: &[T]) -> impl Iterator<Item = usize> {
    offsets.windows(2).map(|pair| (pair[1].into() - pair[0].into()) as usize)
}

/// A view begins with the length of its text.
fn views<T: ByteViewType>(array: &ArrayRef) -> impl Iterator<Item = usize> {
    array.as_byte_view::<T>().views().iter().map(|view| *view as u32 as usize)
}

/// `\1` and `$1` stand for what was found.
fn references(text: &str) -> usize {
    text.bytes().filter(|byte| matches!(byte, b'\\' | b'$')).count()
}

impl Growth {
    /// Most bytes that a call can make.
    fn bytes(self, sizes: &[Size], rows: usize) -> usize {
        let arg = |number: usize| sizes.get(number).copied().unwrap_or_default();
        let all = sizes.iter().fold(0_usize, |bytes, size| bytes.saturating_add(size.bytes));
        let (first, second, third) = (arg(0), arg(1), arg(2));
        let times = |count: usize, size: usize| count.saturating_mul(size);
        let grown = match self {
            Self::Sum => 0,
            Self::Separated => {
                let items = sizes.iter().map(|size| size.items).sum::<usize>();
                times(rows.saturating_mul(sizes.len()).saturating_add(items), first.longest)
            }
            // Nothing is found between all letters, and at the end of each text.
            Self::Replaced => times(first.bytes / second.shortest.max(1) + rows, third.longest),
            Self::ReplacedByPattern => {
                let found = times(first.bytes, third.references);
                times(first.bytes.saturating_add(rows), third.longest).saturating_add(found)
            }
            Self::Listed => {
                let numbers = times(first.items, 32);
                times(first.items, second.longest.max(third.longest)).saturating_add(numbers)
            }
            Self::ItemsReplaced => times(first.items, third.longest),
            Self::Formatted => times(times(rows, LETTERS_A_PATTERN), second.longest),
            Self::Encoded => first.bytes,
        };
        all.saturating_add(grown)
    }
}

/// `left || right`.
#[derive(Debug)]
struct Joined {
    signature: Signature,
}

impl PartialEq for Joined {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Joined {}

impl Hash for Joined {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for Joined {
    fn name(&self) -> &str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> DfResult<DataType> {
        BinaryTypeCoercer::new(&args[0], &Operator::StringConcat, &args[1]).get_result_type()
    }

    fn coerce_types(&self, args: &[DataType]) -> DfResult<Vec<DataType>> {
        let (left, right) = BinaryTypeCoercer::new(&args[0], &Operator::StringConcat, &args[1]).get_input_types()?;
        Ok(vec![left, right])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (mut fields, mut columns, mut sides) = (Vec::new(), Vec::new(), Vec::new());
        for arg in args.args {
            sides.push(match arg {
                ColumnarValue::Scalar(value) => Arc::new(Literal::new(value)) as Arc<dyn PhysicalExpr>,
                ColumnarValue::Array(array) => {
                    let name = format!("{}", columns.len());
                    fields.push(Field::new(&name, array.data_type().clone(), true));
                    columns.push(array);
                    Arc::new(Column::new(&name, columns.len() - 1))
                }
            });
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(args.number_rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)?;
        let (right, left) = (sides.pop(), sides.pop());
        match (left, right) {
            (Some(left), Some(right)) => PhysicalBinary::new(left, Operator::StringConcat, right).evaluate(&batch),
            _ => exec_err!("|| takes two texts"),
        }
    }
}
