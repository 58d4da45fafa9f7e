//! Tables in: an ArrowArrayStream, read batch by batch. What arrow-rs's own reader does, but for two things: a column whose
//! type cannot be carried is refused by its name, and a producer that fails without a word does not end in a panic.

use std::ffi::CStr;
use std::sync::Arc;

use arrow_array::ffi::{FFI_ArrowArray, from_ffi_and_data_type};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{RecordBatch, RecordBatchOptions, StructArray};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

/// Types within types that an Arrow reader follows: its verifier stops at 64, and a schema's own levels are among them.
const NESTED_MOST: usize = 56;

/// A stream whose columns can all be carried.
#[derive(Debug)]
pub struct Incoming {
    stream: FFI_ArrowArrayStream,
    schema: SchemaRef,
}

impl Incoming {
    /// Takes a stream and reads its schema.
    ///
    /// # Errors
    /// In words that name the column.
    pub fn new(mut stream: FFI_ArrowArrayStream) -> Result<Self, String> {
        let (Some(get_schema), Some(_), Some(_)) = (stream.get_schema, stream.get_next, stream.release) else {
            return Err("it has been read already".into());
        };
        let mut schema = FFI_ArrowSchema::empty();
        // SAFETY: a stream that is not released has this function; it fills a schema that is the caller's.
        let code = unsafe { get_schema(&mut stream, &mut schema) };
        if code != 0 {
            return Err(format!("its schema cannot be had: {}", last_error(&mut stream, code)));
        }
        if let Some(refused) = schema.children().find_map(|column| unknown(column, &mut Vec::new())) {
            return Err(refused);
        }
        let schema = Schema::try_from(&schema).map_err(|error| error.to_string())?;
        match schema.fields().iter().find_map(|column| not_carried(column)) {
            Some(refused) => Err(refused),
            None => Ok(Self { stream, schema: Arc::new(schema) }),
        }
    }

    /// Its columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn batch(&self, array: FFI_ArrowArray) -> Result<RecordBatch, ArrowError> {
        let kind = DataType::Struct(self.schema.fields().clone());
        // SAFETY: the stream's producer promises that its arrays are of its schema, as the interface asks of it.
        let data = unsafe { from_ffi_and_data_type(array, kind) }?;
        let options = RecordBatchOptions::new().with_row_count(Some(data.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), StructArray::from(data).into_parts().1, &options)
    }
}

impl Iterator for Incoming {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let get_next = self.stream.get_next?;
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: as for the schema; a released array is the end.
        let code = unsafe { get_next(&mut self.stream, &mut array) };
        if code != 0 {
            return Some(Err(ArrowError::CDataInterface(last_error(&mut self.stream, code))));
        }
        (!array.is_released()).then(|| self.batch(array))
    }
}

/// What the producer says of its failure.
fn last_error(stream: &mut FFI_ArrowArrayStream, code: i32) -> String {
    // SAFETY: the text is the stream's until its next call, and is copied before that.
    let text = stream.get_last_error.map(|get| unsafe { get(stream) }).filter(|text| !text.is_null());
    match text {
        // SAFETY: the interface promises a NUL-terminated text.
        Some(text) => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        None => std::io::Error::from_raw_os_error(code).to_string(),
    }
}

/// A column of a type that this library does not know: the innermost one of those that it consists of.
fn unknown(field: &FFI_ArrowSchema, path: &mut Vec<String>) -> Option<String> {
    let error = Field::try_from(field).err()?;
    path.push(field.name().unwrap_or_default().to_owned());
    if path.len() <= NESTED_MOST {
        let inner = field.children().chain(field.dictionary()).find_map(|child| unknown(child, path));
        if inner.is_some() {
            return inner;
        }
    }
    let what = format!("the Arrow type \"{}\" is not known here ({error})", field.format());
    Some(refusal(&path.join("."), &what, "cast it to another type"))
}

/// A column of a type that Arrow IPC has no form for, or that no reader follows.
fn not_carried(column: &Field) -> Option<String> {
    let deep = |depth: usize| format!("its type is nested {depth} deep, at most {NESTED_MOST} can be carried");
    match depth(column.data_type()) {
        depth if depth > NESTED_MOST => Some(refusal(column.name(), &deep(depth), "flatten it")),
        _ => without_form(column.data_type()).map(|kind| {
            let what = format!("its type {} holds {kind}, which Arrow IPC has no form for", column.data_type());
            refusal(column.name(), &what, "decode the inner one first")
        }),
    }
}

fn refusal(column: &str, what: &str, hint: &str) -> String {
    format!("column \"{column}\" cannot be carried: {what}; hint: {hint}, or leave the column out")
}

/// The types that a type is made of.
fn parts(kind: &DataType) -> Vec<&DataType> {
    match kind {
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _)
        | DataType::RunEndEncoded(_, inner) => vec![inner.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::Dictionary(_, values) => vec![values],
        _ => Vec::new(),
    }
}

/// How many types lie within each other.
fn depth(kind: &DataType) -> usize {
    1 + parts(kind).into_iter().map(depth).max().unwrap_or(0)
}

/// What of a type cannot be written, in words.
fn without_form(kind: &DataType) -> Option<&'static str> {
    match kind {
        DataType::Dictionary(_, values) if matches!(**values, DataType::Dictionary(..)) => {
            Some("a dictionary of a dictionary")
        }
        DataType::RunEndEncoded(_, values) if matches!(values.data_type(), DataType::RunEndEncoded(..)) => {
            Some("runs of runs")
        }
        _ => parts(kind).into_iter().find_map(without_form),
    }
}
