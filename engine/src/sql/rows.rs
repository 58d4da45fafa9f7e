//! Rows in JSON or MsgPack become Arrow batches, read straight from the bytes into columns.
//!
//! A body is an array of objects, the rows of an entry's only input, or one object:
//! `{"orders": [{...}, ...], "min": 10}` holds a table under the name of each input; the rest are parameters.
//!
//! Types come from the manifest's schema where it has one. Else they are inferred over all rows: integers are int64, numbers
//! with a fraction (or both) float64, text utf8, true and false bool, nothing but null the null type. What the first request
//! that is answered had is remembered (`seen`). A column that mixes others, a nested value, or a value that would lose digits
//! is an error naming row and column. A key that a row lacks is null. Depth is bounded by what is read: a row holds single
//! values only, parameters at most [`MAX_DEPTH`] levels.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use rmp_serde::decode::Error as DecodeError;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::failure::Failure;

use super::column::{Cell, Column};
use super::engine::InputTable;
use super::entry::SqlEntry;
use super::params::listed;
use super::seen::Known;

/// Deepest nesting of a parameter in MsgPack; JSON has serde_json's own bound of 128.
pub const MAX_DEPTH: usize = 100;
/// Most columns of a table of rows.
const MAX_COLUMNS: usize = 2_000;
/// Most cells a body may become: absent keys are null cells that cost the sender nothing, so rows times columns is bounded
/// by the body's length.
const CELLS_PER_BYTE: usize = 4;
const FREE_CELLS: usize = 1 << 16;

/// How a body of rows is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    Json,
    MsgPack,
}

/// A decoded body: tables by input name, and what else was beside them.
#[derive(Debug)]
pub struct Rows {
    pub tables: Vec<InputTable>,
    pub params: Map<String, Value>,
}

/// Decodes `body` for `entry`. Messages name entry, input, row (from 0) and column.
pub fn decode(entry: &SqlEntry, format: RowFormat, body: &[u8]) -> Result<Rows, Failure> {
    let inputs: Vec<(&str, Known)> = entry.spec().input.iter().map(|name| (name.as_str(), entry.known(name))).collect();
    decode_inputs(&inputs, format, body)
        .map_err(|reason| Failure::invalid(format!("entry \"{}\": {reason}", entry.spec().name)))
}

pub(super) fn decode_inputs(inputs: &[(&str, Known)], format: RowFormat, body: &[u8]) -> Result<Rows, String> {
    let seed = BodySeed { inputs, budget: FREE_CELLS + CELLS_PER_BYTE * body.len() };
    match format {
        RowFormat::Json => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            let rows = seed.deserialize(&mut deserializer).map_err(|error| format!("not rows in JSON: {error}"))?;
            deserializer.end().map_err(|error| format!("not rows in JSON: {error}"))?;
            Ok(rows)
        }
        RowFormat::MsgPack => {
            let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
            deserializer.set_max_depth(MAX_DEPTH);
            let rows = seed.deserialize(&mut deserializer).map_err(|error| format!("not rows in MsgPack: {error}"))?;
            match de::IgnoredAny::deserialize(&mut deserializer) {
                Err(DecodeError::InvalidMarkerRead(end)) if end.kind() == ErrorKind::UnexpectedEof => Ok(rows),
                _ => Err("not rows in MsgPack: bytes follow the value".into()),
            }
        }
    }
}

/// The body: rows, or an object of tables and parameters.
struct BodySeed<'a> {
    inputs: &'a [(&'a str, Known)],
    budget: usize,
}

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = Rows;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Rows, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = Rows;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of objects, or an object with a table under each input's name")
    }

    /// What encodes "nothing", for a statement that needs nothing: a missing input is noticed when the statement runs.
    fn visit_unit<E: de::Error>(self) -> Result<Rows, E> {
        Ok(Rows { tables: Vec::new(), params: Map::new() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, rows: A) -> Result<Rows, A::Error> {
        let [(name, known)] = self.inputs else {
            let names: Vec<String> = self.inputs.iter().map(|(name, _)| name.to_string()).collect();
            return Err(de::Error::custom(format!(
                "an array stands for the only input, but the inputs are {}; hint: send an object of tables",
                listed(names.iter())
            )));
        };
        let table = TableSeed { name, known, budget: self.budget }.visit_seq(rows)?;
        Ok(Rows { tables: vec![table], params: Map::new() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Rows, A::Error> {
        let mut rows = Rows { tables: Vec::new(), params: Map::new() };
        let mut budget = self.budget;
        while let Some(key) = fields.next_key::<String>()? {
            match self.inputs.iter().find(|(name, _)| *name == key) {
                Some((name, known)) => {
                    let table: InputTable = fields.next_value_seed(TableSeed { name, known, budget })?;
                    if rows.tables.iter().any(|known| known.name == table.name) {
                        return Err(de::Error::custom(format!("table \"{name}\" is given twice")));
                    }
                    let cells = table.batches.iter().map(|batch| batch.num_rows() * batch.num_columns()).sum();
                    budget = budget.saturating_sub(cells);
                    rows.tables.push(table);
                }
                None => {
                    let value = fields.next_value()?;
                    rows.params.insert(key, value);
                }
            }
        }
        Ok(rows)
    }
}

/// One table: an array of objects.
struct TableSeed<'a> {
    name: &'a str,
    known: &'a Known,
    /// Most cells, absent ones included.
    budget: usize,
}

impl<'de> DeserializeSeed<'de> for TableSeed<'_> {
    type Value = InputTable;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<InputTable, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TableSeed<'_> {
    type Value = InputTable;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an array of objects, the rows of \"{}\"", self.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<InputTable, A::Error> {
        let mut columns = Columns::new(self.known);
        let mut count = 0;
        while rows.next_element_seed(RowSeed { table: self.name, row: count, columns: &mut columns })?.is_some() {
            count += 1;
            if count * columns.columns.len() > self.budget {
                return Err(de::Error::custom(format!(
                    "table \"{}\" has {} columns and more than {} rows, most of it absent keys: too sparse for its length",
                    self.name,
                    columns.columns.len(),
                    count - 1
                )));
            }
        }
        columns.finish(self.name, count).map_err(de::Error::custom)
    }
}

/// The columns of a table while its rows are read.
struct Columns {
    names: Vec<String>,
    columns: Vec<Column>,
    places: HashMap<String, usize>,
    /// Those that are known are all there are; a key beyond them is skipped.
    complete: bool,
    /// The types are those of the values, and not declared.
    inferred: bool,
}

impl Columns {
    fn new(known: &Known) -> Self {
        let mut columns = Self {
            names: Vec::new(),
            columns: Vec::new(),
            places: HashMap::new(),
            complete: !matches!(known, Known::Nothing | Known::Seen { complete: false, .. }),
            inferred: !matches!(known, Known::Declared(_)),
        };
        match known {
            Known::Nothing => {}
            Known::Declared(schema) => {
                for field in schema.fields() {
                    columns.add(field.name().clone(), Column::declared(field.data_type()));
                }
            }
            Known::Seen { schema, .. } => {
                for field in schema.fields() {
                    columns.add(field.name().clone(), Column::remembered(field.data_type()));
                }
            }
        }
        columns
    }

    fn add(&mut self, name: String, column: Column) -> usize {
        self.places.insert(name.clone(), self.columns.len());
        self.names.push(name);
        self.columns.push(column);
        self.columns.len() - 1
    }

    /// The place of a key. Rows mostly have the same keys in the same order: `guess` is looked at first.
    fn place(&mut self, key: &str, guess: usize) -> Result<Option<usize>, String> {
        if self.names.get(guess).is_some_and(|name| name == key) {
            return Ok(Some(guess));
        }
        match self.places.get(key) {
            Some(place) => Ok(Some(*place)),
            None if self.complete => Ok(None),
            None if self.columns.len() == MAX_COLUMNS => Err(format!("more than {MAX_COLUMNS} columns")),
            None => Ok(Some(self.add(key.to_string(), Column::default()))),
        }
    }

    fn finish(self, name: &str, rows: usize) -> Result<InputTable, String> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        let mut fields = Vec::with_capacity(self.columns.len());
        for (column_name, column) in self.names.iter().zip(self.columns) {
            let array = column.finish(rows);
            fields.push(Field::new(column_name, array.data_type().clone(), true));
            arrays.push(array);
        }
        let schema = Arc::new(Schema::new(fields));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)
            .map_err(|error| format!("table \"{name}\": {error}"))?;
        Ok(InputTable { name: name.to_string(), schema, batches: vec![batch], inferred: self.inferred })
    }
}

/// One row: an object of single values.
struct RowSeed<'a> {
    table: &'a str,
    row: usize,
    columns: &'a mut Columns,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an object as row {} of \"{}\"", self.row, self.table)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut guess = 0;
        loop {
            let fault = |place: &str, reason: String| {
                de::Error::custom(format!("table \"{}\", row {}, column \"{place}\": {reason}", self.table, self.row))
            };
            let Some(place) = fields.next_key_seed(KeySeed { columns: &mut *self.columns, guess })? else {
                return Ok(());
            };
            let Some(place) = place else {
                fields.next_value::<de::IgnoredAny>()?;
                continue;
            };
            guess = place + 1;
            let cell = fields.next_value_seed(CellSeed)?;
            let column = &mut self.columns.columns[place];
            if let Err(reason) = column.push(self.row, cell) {
                return Err(fault(&self.columns.names[place], reason));
            }
        }
    }
}

/// A key, looked up without making a string of it.
struct KeySeed<'a> {
    columns: &'a mut Columns,
    guess: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a column name")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Option<usize>, E> {
        self.columns.place(key, self.guess).map_err(E::custom)
    }
}

/// A value of a row.
struct CellSeed;

impl<'de> DeserializeSeed<'de> for CellSeed {
    type Value = Cell<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("null, a boolean, a number or text")
    }

    fn visit_unit<E>(self) -> Result<Cell<'de>, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Cell<'de>, E> {
        Ok(Cell::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Cell<'de>, E> {
        Ok(Cell::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Cell<'de>, E> {
        Ok(i64::try_from(number).map_or(Cell::Big(number), Cell::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Cell<'de>, E> {
        Ok(Cell::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell<'de>, E> {
        Ok(Cell::Text(text.to_string().into()))
    }

    // Nested values are read past, never into memory, so that the error can name row and column.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Cell<'de>, A::Error> {
        while items.next_element::<de::IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Cell<'de>, A::Error> {
        while fields.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested("an object"))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Cell<'de>, E> {
        Ok(Cell::Nested("binary data"))
    }
}
