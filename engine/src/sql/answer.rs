//! An answer in JSON or MsgPack: rows, an array of objects with one key per column in the columns' order; or columns, an
//! object with one array per column, which names each column once and not in every row.
//!
//! What a type becomes: integers, floats, booleans, text and null are themselves, and integers keep every digit. Decimals,
//! dates, times, timestamps, durations and intervals are text (decimals so that they keep their digits). Lists are arrays,
//! structs objects, maps objects with text keys. Dictionaries, runs and unions are the values that they stand for. Binary is
//! binary in MsgPack and hexadecimal text in JSON. NaN and infinity do not exist in JSON: they are an error naming row and
//! column there, and themselves in MsgPack.

use std::collections::HashSet;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, RunEndIndexType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, GenericListViewArray, OffsetSizeTrait, RecordBatch, RunArray};
use arrow_schema::{ArrowError, DataType, Schema};
use datafusion::arrow::compute::cast;
use datafusion::arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use serde::ser::{Error, SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use crate::failure::Failure;

use super::engine::SqlAnswer;
use super::rows::RowFormat;

/// What an answer is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// `[{"region": "north", "total": 1.5}, ...]`
    #[default]
    Rows,
    /// `{"region": ["north", ...], "total": [1.5, ...]}`
    Columns,
}

/// The answer's bytes.
pub fn encode(answer: &SqlAnswer, format: RowFormat, shape: Shape) -> Result<Vec<u8>, Failure> {
    let rows = Rows::new(answer)?;
    match shape {
        Shape::Rows => written(&rows, format),
        Shape::Columns => written(&Columns(&rows), format),
    }
}

fn written(value: &impl Serialize, format: RowFormat) -> Result<Vec<u8>, Failure> {
    let (name, bytes) = match format {
        RowFormat::Json => ("JSON", serde_json::to_vec(value).map_err(|error| error.to_string())),
        RowFormat::MsgPack => ("MsgPack", rmp_serde::to_vec(value).map_err(|error| error.to_string())),
    };
    bytes.map_err(|error| Failure::invalid(format!("the answer has no form in {name}: {error}")))
}

/// All rows of an answer.
struct Rows<'a> {
    schema: &'a Schema,
    batches: Vec<(usize, Vec<Values<'a>>)>,
    rows: usize,
}

impl<'a> Rows<'a> {
    fn new(answer: &'a SqlAnswer) -> Result<Self, Failure> {
        let mut names = HashSet::new();
        if let Some(field) = answer.schema.fields().iter().find(|field| !names.insert(field.name())) {
            return Err(Failure::invalid(format!(
                "two columns of the answer are named \"{}\", and an object has each key once; hint: rename one with AS",
                field.name()
            )));
        }
        let batches = answer
            .batches
            .iter()
            .map(|batch: &RecordBatch| {
                let columns = batch.columns().iter().map(Values::new).collect::<Result<Vec<_>, ArrowError>>()?;
                Ok((batch.num_rows(), columns))
            })
            .collect::<Result<Vec<_>, ArrowError>>()
            .map_err(|error| Failure::internal(format!("the answer cannot be written: {error}")))?;
        Ok(Self { schema: &answer.schema, batches, rows: answer.rows() })
    }
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.rows))?;
        let mut before = 0;
        for (count, columns) in &self.batches {
            for row in 0..*count {
                rows.serialize_element(&Row { schema: self.schema, columns, row, before })?;
            }
            before += count;
        }
        rows.end()
    }
}

/// One row of a batch; `before` rows stand in the batches before it.
struct Row<'a> {
    schema: &'a Schema,
    columns: &'a [Values<'a>],
    row: usize,
    before: usize,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.columns.len()))?;
        for (field, values) in self.schema.fields().iter().zip(self.columns) {
            object.serialize_key(field.name())?;
            object.serialize_value(&Item { values, at: self.row }).map_err(|error| {
                S::Error::custom(format!("row {}, column \"{}\": {error}", self.before + self.row, field.name()))
            })?;
        }
        object.end()
    }
}

/// The same as an object of columns.
struct Columns<'a>(&'a Rows<'a>);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(rows) = self;
        let mut object = serializer.serialize_map(Some(rows.schema.fields().len()))?;
        for (column, field) in rows.schema.fields().iter().enumerate() {
            object.serialize_entry(field.name(), &WholeColumn { rows, column, name: field.name() })?;
        }
        object.end()
    }
}

/// One column through all batches.
struct WholeColumn<'a> {
    rows: &'a Rows<'a>,
    column: usize,
    name: &'a str,
}

impl Serialize for WholeColumn<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(Some(self.rows.rows))?;
        let mut before = 0;
        for (count, columns) in &self.rows.batches {
            for at in 0..*count {
                items.serialize_element(&Item { values: &columns[self.column], at }).map_err(|error| {
                    S::Error::custom(format!("row {}, column \"{}\": {error}", before + at, self.name))
                })?;
            }
            before += count;
        }
        items.end()
    }
}

/// A column with its type known, so that a cell costs one branch.
enum Values<'a> {
    Null,
    Bool(&'a ArrayRef),
    Int8(&'a ArrayRef),
    Int16(&'a ArrayRef),
    Int32(&'a ArrayRef),
    Int64(&'a ArrayRef),
    UInt8(&'a ArrayRef),
    UInt16(&'a ArrayRef),
    UInt32(&'a ArrayRef),
    UInt64(&'a ArrayRef),
    Float16(&'a ArrayRef),
    Float32(&'a ArrayRef),
    Float64(&'a ArrayRef),
    Utf8(&'a ArrayRef),
    LargeUtf8(&'a ArrayRef),
    Utf8View(&'a ArrayRef),
    /// Binary of any layout, as LargeBinary.
    Binary(ArrayRef),
    /// Lists of any layout: where each row's items begin and end.
    List(&'a ArrayRef, Vec<(usize, usize)>, Box<Values<'a>>),
    Struct(&'a ArrayRef, Vec<(&'a str, Values<'a>)>),
    /// Keys, values, and where each row's pairs begin and end.
    Map(&'a ArrayRef, Vec<(usize, usize)>, Box<Values<'a>>, Box<Values<'a>>),
    /// A dictionary: the place of each row's value, and the values.
    Dictionary(&'a ArrayRef, Vec<usize>, Box<Values<'a>>),
    /// Runs of one value: the place of each row's, and the values, which have the nulls.
    Runs(Vec<usize>, Box<Values<'a>>),
    /// One of several types: which of them each row has and where, and their values, which have the nulls.
    Union(Vec<(usize, usize)>, Vec<Values<'a>>),
    /// Everything that is written as text.
    Text(&'a ArrayRef, ArrayFormatter<'a>),
}

/// Timestamps as RFC 3339, durations and intervals as ISO 8601.
fn text_format() -> FormatOptions<'static> {
    FormatOptions::new().with_display_error(false).with_duration_format(DurationFormat::ISO8601)
}

impl<'a> Values<'a> {
    fn new(array: &'a ArrayRef) -> Result<Self, ArrowError> {
        Ok(match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool(array),
            DataType::Int8 => Self::Int8(array),
            DataType::Int16 => Self::Int16(array),
            DataType::Int32 => Self::Int32(array),
            DataType::Int64 => Self::Int64(array),
            DataType::UInt8 => Self::UInt8(array),
            DataType::UInt16 => Self::UInt16(array),
            DataType::UInt32 => Self::UInt32(array),
            DataType::UInt64 => Self::UInt64(array),
            DataType::Float16 => Self::Float16(array),
            DataType::Float32 => Self::Float32(array),
            DataType::Float64 => Self::Float64(array),
            DataType::Utf8 => Self::Utf8(array),
            DataType::LargeUtf8 => Self::LargeUtf8(array),
            DataType::Utf8View => Self::Utf8View(array),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Binary(cast(array, &DataType::LargeBinary)?)
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let bounds = list.value_offsets().windows(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect();
                Self::List(array, bounds, Box::new(Self::new(list.values())?))
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let bounds = list.value_offsets().windows(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect();
                Self::List(array, bounds, Box::new(Self::new(list.values())?))
            }
            DataType::FixedSizeList(_, width) => {
                let (list, width) = (array.as_fixed_size_list(), *width as usize);
                let bounds = (0..list.len()).map(|row| (row * width, (row + 1) * width)).collect();
                Self::List(array, bounds, Box::new(Self::new(list.values())?))
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                let named =
                    fields.iter().zip(columns).map(|(field, column)| Ok((field.name().as_str(), Self::new(column)?)));
                Self::Struct(array, named.collect::<Result<_, ArrowError>>()?)
            }
            DataType::Map(..) => {
                let map = array.as_map();
                let bounds = map.value_offsets().windows(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect();
                Self::Map(array, bounds, Box::new(Self::new(map.keys())?), Box::new(Self::new(map.values())?))
            }
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                if dictionary.values().is_empty() {
                    return Ok(Self::Null); // every key is null
                }
                Self::Dictionary(array, dictionary.normalized_keys(), Box::new(Self::new(dictionary.values())?))
            }
            DataType::ListView(_) => Self::list_view(array, array.as_list_view::<i32>())?,
            DataType::LargeListView(_) => Self::list_view(array, array.as_list_view::<i64>())?,
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => Self::runs(array.as_run::<Int16Type>())?,
                DataType::Int32 => Self::runs(array.as_run::<Int32Type>())?,
                _ => Self::runs(array.as_run::<Int64Type>())?,
            },
            DataType::Union(fields, _) => {
                let union = array.as_union();
                let kinds: Vec<i8> = fields.iter().map(|(kind, _)| kind).collect();
                let place = |row: usize| {
                    let kind = union.type_id(row);
                    (kinds.iter().position(|known| *known == kind).unwrap_or_default(), union.value_offset(row))
                };
                let values = kinds.iter().map(|kind| Self::new(union.child(*kind))).collect::<Result<_, _>>()?;
                Self::Union((0..union.len()).map(place).collect(), values)
            }
            _ => {
                static FORMAT: std::sync::LazyLock<FormatOptions<'static>> = std::sync::LazyLock::new(text_format);
                Self::Text(array, ArrayFormatter::try_new(array, &FORMAT)?)
            }
        })
    }
}

impl<'a> Values<'a> {
    fn list_view<O: OffsetSizeTrait>(
        array: &'a ArrayRef,
        list: &'a GenericListViewArray<O>,
    ) -> Result<Self, ArrowError> {
        let starts = list.offsets().iter().zip(list.sizes());
        let bounds = starts.map(|(start, size)| (start.as_usize(), start.as_usize() + size.as_usize())).collect();
        Ok(Self::List(array, bounds, Box::new(Self::new(list.values())?)))
    }

    fn runs<K: RunEndIndexType>(runs: &'a RunArray<K>) -> Result<Self, ArrowError> {
        let places = (0..runs.len()).map(|row| runs.get_physical_index(row)).collect();
        Ok(Self::Runs(places, Box::new(Self::new(runs.values())?)))
    }
}

/// One value of a column.
struct Item<'a> {
    values: &'a Values<'a>,
    at: usize,
}

macro_rules! primitive {
    ($array:expr, $kind:ty, $at:expr, $serializer:expr) => {{
        let array = $array.as_primitive::<$kind>();
        if array.is_null($at) { $serializer.serialize_none() } else { array.value($at).serialize($serializer) }
    }};
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = self.at;
        match self.values {
            Values::Null => serializer.serialize_none(),
            Values::Int8(array) => primitive!(array, Int8Type, at, serializer),
            Values::Int16(array) => primitive!(array, Int16Type, at, serializer),
            Values::Int32(array) => primitive!(array, Int32Type, at, serializer),
            Values::Int64(array) => primitive!(array, Int64Type, at, serializer),
            Values::UInt8(array) => primitive!(array, UInt8Type, at, serializer),
            Values::UInt16(array) => primitive!(array, UInt16Type, at, serializer),
            Values::UInt32(array) => primitive!(array, UInt32Type, at, serializer),
            Values::UInt64(array) => primitive!(array, UInt64Type, at, serializer),
            Values::Float16(array) => {
                let array = array.as_primitive::<Float16Type>();
                float(array.is_valid(at).then(|| array.value(at).to_f64()), serializer)
            }
            Values::Float32(array) => {
                let array = array.as_primitive::<Float32Type>();
                let value = array.is_valid(at).then(|| array.value(at));
                match value {
                    // As f32: 0.1 stays 0.1 and does not become 0.10000000149011612.
                    Some(value) if value.is_finite() => serializer.serialize_f32(value),
                    value => float(value.map(f64::from), serializer),
                }
            }
            Values::Float64(array) => {
                let array = array.as_primitive::<Float64Type>();
                float(array.is_valid(at).then(|| array.value(at)), serializer)
            }
            Values::Bool(array) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => serializer.serialize_bool(array.as_boolean().value(at)),
            },
            Values::Utf8(array) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => serializer.serialize_str(array.as_string::<i32>().value(at)),
            },
            Values::LargeUtf8(array) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => serializer.serialize_str(array.as_string::<i64>().value(at)),
            },
            Values::Utf8View(array) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => serializer.serialize_str(array.as_string_view().value(at)),
            },
            Values::Binary(array) => match (array.is_null(at), serializer.is_human_readable()) {
                (true, _) => serializer.serialize_none(),
                (false, false) => serializer.serialize_bytes(array.as_binary::<i64>().value(at)),
                (false, true) => {
                    let bytes = array.as_binary::<i64>().value(at);
                    serializer.collect_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
                }
            },
            Values::List(array, bounds, items) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => {
                    let (start, end) = bounds[at];
                    let mut list = serializer.serialize_seq(Some(end - start))?;
                    for at in start..end {
                        list.serialize_element(&Item { values: items, at })?;
                    }
                    list.end()
                }
            },
            Values::Struct(array, fields) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => {
                    let mut object = serializer.serialize_map(Some(fields.len()))?;
                    for (name, values) in fields {
                        object.serialize_entry(name, &Item { values, at })?;
                    }
                    object.end()
                }
            },
            Values::Map(array, bounds, keys, values) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => {
                    let (start, end) = bounds[at];
                    let mut object = serializer.serialize_map(Some(end - start))?;
                    for at in start..end {
                        object.serialize_entry(&Item { values: keys, at }, &Item { values, at })?;
                    }
                    object.end()
                }
            },
            Values::Dictionary(array, places, values) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => Item { values, at: places[at] }.serialize(serializer),
            },
            Values::Runs(places, values) => Item { values, at: places[at] }.serialize(serializer),
            Values::Union(places, values) => {
                let (kind, at) = places[at];
                Item { values: &values[kind], at }.serialize(serializer)
            }
            Values::Text(array, formatter) => match array.is_null(at) {
                true => serializer.serialize_none(),
                false => serializer.collect_str(&formatter.value(at).try_to_string().map_err(S::Error::custom)?),
            },
        }
    }
}

fn float<S: Serializer>(value: Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        None => serializer.serialize_none(),
        // serde_json would write null, and a null that was a number is a wrong answer.
        Some(value) if !value.is_finite() && serializer.is_human_readable() => Err(S::Error::custom(format!(
            "{value} is no number in JSON; hint: use nullif or coalesce in the statement, or ask for MsgPack or Arrow"
        ))),
        Some(value) => serializer.serialize_f64(value),
    }
}
