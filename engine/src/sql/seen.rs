//! What the rows of earlier requests had: columns and types where the manifest declares none.
//!
//! An entry means the same from one request to the next, so the columns and types of the first request that it answers are
//! kept. After that an absent key is a column of nulls, of the type that it had. Two things are added later, once: a column
//! that had nothing but nulls takes the type of its first value, and one of integers becomes one of numbers with the first
//! fraction. Integers by themselves are then numbers too: the same request is not answered now in one way and now in another.
//! A value that fits neither is the request's fault. Of a request that failed nothing is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::check::Asked;

/// Most columns that are kept of an input; those beyond are the request's own.
const MAX_COLUMNS: usize = 256;

/// What is known of an input before its rows are read.
#[derive(Debug, Clone)]
pub enum Known {
    Nothing,
    /// By the manifest.
    Declared(SchemaRef),
    /// By earlier requests. `complete`: the statement asks for no other column.
    Seen {
        schema: SchemaRef,
        complete: bool,
    },
}

/// The inputs of one entry.
#[derive(Debug, Default)]
pub struct Seen {
    inputs: Mutex<BTreeMap<String, SchemaRef>>,
}

impl Seen {
    /// What earlier requests had of that input.
    pub fn known(&self, input: &str, asked: &Asked) -> Known {
        match self.inputs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(input) {
            Some(schema) => Known::Seen { schema: Arc::clone(schema), complete: *asked != Asked::All },
            None => Known::Nothing,
        }
    }

    /// Keeps what a request had that was answered.
    pub fn keep(&self, input: &str, schema: &SchemaRef) {
        let mut inputs = self.inputs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match inputs.get_mut(input) {
            Some(known) if known.fields() == schema.fields() => {}
            Some(known) => *known = merged(known, schema),
            None => {
                let few: Vec<_> = schema.fields().iter().take(MAX_COLUMNS).cloned().collect();
                inputs.insert(input.to_owned(), Arc::new(Schema::new(few)));
            }
        }
    }
}

/// `known` with what `new` adds to it.
fn merged(known: &SchemaRef, new: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = known.fields().iter().cloned().collect();
    for field in new.fields() {
        match fields.iter().position(|known| known.name() == field.name()) {
            Some(at) => match (fields[at].data_type(), field.data_type()) {
                (DataType::Null, _) | (DataType::Int64, DataType::Float64) => fields[at] = Arc::clone(field),
                _ => {} // another request was quicker
            },
            None if fields.len() < MAX_COLUMNS => fields.push(Arc::clone(field)),
            None => {}
        }
    }
    Arc::new(Schema::new(fields))
}
