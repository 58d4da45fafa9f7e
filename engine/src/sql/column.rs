//! One column while rows arrive: its type widens as values ask for it, from what an earlier request had on, or is declared and
//! values must fit.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, NullArray};
use arrow_schema::DataType;

use super::instants::UTC;
use super::temporal;

/// A value of a row, before its column has taken it.
#[derive(Debug)]
pub enum Cell<'de> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer beyond int64.
    Big(u64),
    Float(f64),
    Text(Cow<'de, str>),
    /// Something with parts: what it is, in words.
    Nested(&'static str),
}

impl Cell<'_> {
    fn describe(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(flag) => format!("the boolean {flag}"),
            Self::Int(number) => format!("the integer {number}"),
            Self::Big(number) => format!("the integer {number}, which is beyond int64"),
            Self::Float(number) => format!("the number {number}"),
            Self::Text(text) => format!("the text \"{}\"", text.chars().take(40).collect::<String>()),
            Self::Nested(what) => format!("{what}, and nested values are not supported"),
        }
    }
}

/// A column under construction.
#[derive(Debug, Default)]
pub struct Column {
    values: Values,
    /// Where the type comes from.
    origin: Origin,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Origin {
    /// The values themselves.
    #[default]
    Inferred,
    /// Those of an earlier request.
    Remembered,
    /// The manifest: it stays what it is.
    Declared,
}

#[derive(Debug, Default)]
enum Values {
    /// Nothing but null so far.
    #[default]
    Null,
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Column {
    /// A column of a declared type: one of those that a manifest can name.
    pub fn declared(data_type: &DataType) -> Self {
        let values = match data_type {
            DataType::Boolean => Values::Bool(BooleanBuilder::new()),
            DataType::Int64 => Values::Int(Int64Builder::new()),
            DataType::Float64 => Values::Float(Float64Builder::new()),
            DataType::Date32 => Values::Date(Date32Builder::new()),
            DataType::Timestamp(..) => Values::Timestamp(TimestampMicrosecondBuilder::new().with_timezone(UTC)),
            _ => Values::Text(StringBuilder::new()),
        };
        Self { values, origin: Origin::Declared }
    }

    /// A column of the type that it had in an earlier request: one of those that are inferred.
    pub fn remembered(data_type: &DataType) -> Self {
        match data_type {
            DataType::Null => Self::default(),
            data_type => Self { origin: Origin::Remembered, ..Self::declared(data_type) },
        }
    }

    /// Takes the value of row `row`. Rows in between that had none are null.
    pub fn push(&mut self, row: usize, cell: Cell) -> Result<(), String> {
        if self.values.len() > row {
            return Err("the key is in the row twice".into());
        }
        if matches!(cell, Cell::Null) {
            return Ok(()); // filled in by the next value, or at the end
        }
        if self.origin != Origin::Declared {
            self.widen(&cell, row)?;
        }
        self.values.fill(row);
        let fits = match (&mut self.values, &cell) {
            (Values::Bool(values), Cell::Bool(flag)) => {
                values.append_value(*flag);
                true
            }
            (Values::Int(values), Cell::Int(number)) => {
                values.append_value(*number);
                true
            }
            (Values::Float(values), Cell::Float(number)) => {
                values.append_value(*number);
                true
            }
            (Values::Float(values), Cell::Int(number)) => {
                values.append_value(exact(*number).ok_or_else(|| inexact(*number))?);
                true
            }
            (Values::Text(values), Cell::Text(text)) => {
                values.append_value(text);
                true
            }
            (Values::Date(values), Cell::Text(text)) => {
                temporal::parse_date(text).map(|day| values.append_value(day)).is_some()
            }
            (Values::Timestamp(values), Cell::Text(text)) => {
                temporal::parse_timestamp(text).map(|moment| values.append_value(moment)).is_some()
            }
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let (why, hint) = match self.origin {
            Origin::Remembered => {
                (", as in earlier requests", "; hint: declare the column's type in the entry's \"schema\"")
            }
            Origin::Inferred | Origin::Declared => ("", ""),
        };
        Err(format!("expected {}{why}, got {}{hint}", self.values.kind(), cell.describe()))
    }

    /// Changes an inferred type where this value asks for it.
    fn widen(&mut self, cell: &Cell, row: usize) -> Result<(), String> {
        match (&mut self.values, cell) {
            (values @ Values::Null, cell) => {
                *values = match cell {
                    Cell::Bool(_) => Values::Bool(BooleanBuilder::new()),
                    Cell::Int(_) => Values::Int(Int64Builder::new()),
                    Cell::Float(_) => Values::Float(Float64Builder::new()),
                    Cell::Text(_) => Values::Text(StringBuilder::new()),
                    Cell::Null | Cell::Big(_) | Cell::Nested(_) => {
                        return Err(format!("expected a single value, got {}", cell.describe()));
                    }
                };
                values.fill(row);
            }
            (values @ Values::Int(_), Cell::Float(_)) => {
                let Values::Int(integers) = values else { return Ok(()) };
                let integers = integers.finish();
                let mut floats = Float64Builder::with_capacity(integers.len() + 1);
                for number in &integers {
                    match number {
                        Some(number) => floats.append_value(exact(number).ok_or_else(|| inexact(number))?),
                        None => floats.append_null(),
                    }
                }
                *values = Values::Float(floats);
            }
            _ => {}
        }
        Ok(())
    }

    /// The column with `rows` values.
    pub fn finish(mut self, rows: usize) -> ArrayRef {
        self.values.fill(rows);
        match self.values {
            Values::Null => Arc::new(NullArray::new(rows)),
            Values::Bool(mut values) => Arc::new(values.finish()),
            Values::Int(mut values) => Arc::new(values.finish()),
            Values::Float(mut values) => Arc::new(values.finish()),
            Values::Text(mut values) => Arc::new(values.finish()),
            Values::Date(mut values) => Arc::new(values.finish()),
            Values::Timestamp(mut values) => Arc::new(values.finish()),
        }
    }
}

impl Values {
    fn len(&self) -> usize {
        use arrow_array::builder::ArrayBuilder;
        match self {
            Self::Null => 0,
            Self::Bool(values) => values.len(),
            Self::Int(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Date(values) => values.len(),
            Self::Timestamp(values) => values.len(),
        }
    }

    /// Nulls up to `rows` values.
    fn fill(&mut self, rows: usize) {
        let missing = rows.saturating_sub(self.len());
        if missing == 0 {
            return;
        }
        match self {
            Self::Null => {}
            Self::Bool(values) => values.append_nulls(missing),
            Self::Int(values) => values.append_nulls(missing),
            Self::Float(values) => values.append_nulls(missing),
            Self::Text(values) => (0..missing).for_each(|_| values.append_null()),
            Self::Date(values) => values.append_nulls(missing),
            Self::Timestamp(values) => values.append_nulls(missing),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::Date(_) => "a date (2026-11-23)",
            Self::Timestamp(_) => "a timestamp (2026-11-23T18:05:00Z)",
        }
    }
}

/// The same number as a float, if floats have it.
fn exact(number: i64) -> Option<f64> {
    let float = number as f64;
    // 2^63 as a float is one beyond i64::MAX and would come back as i64::MAX.
    (float < 9_223_372_036_854_775_808.0 && float as i64 == number).then_some(float)
}

fn inexact(number: i64) -> String {
    format!("the integer {number} would lose digits in a column of numbers with fractions")
}
