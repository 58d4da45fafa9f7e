//! What a caller reads when SQL fails: whose statement, where in it, and what there was instead.

use std::collections::BTreeMap;

use arrow_schema::{ArrowError, SchemaRef};
use datafusion::common::{DataFusionError, SchemaError};
use molt_ipc_shm::Outcome;

use crate::failure::Failure;

use super::params::listed;
use super::stop::Stopped;

/// The failure of a request. `who` names the statement ("entry \"order_totals\""), `tables` are what it could read.
pub fn failure(who: &str, error: &DataFusionError, tables: &BTreeMap<String, SchemaRef>) -> Failure {
    let text = message(error, tables);
    let outcome = match error.find_root() {
        DataFusionError::External(source) => return external(who, source.as_ref(), &text),
        DataFusionError::ArrowError(source, _) => match &**source {
            ArrowError::ExternalError(source) => return external(who, source.as_ref(), &text),
            ArrowError::MemoryError(_) | ArrowError::IoError(..) | ArrowError::CDataInterface(_) => Outcome::Internal,
            _ => Outcome::InvalidInput, // overflow, division by zero, a cast that fails: the rows are wrong
        },
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_) => Outcome::InvalidInput,
        DataFusionError::ResourcesExhausted(_) => {
            return Failure::internal(format!(
                "{who}: the memory for SQL is used up: {text}; hint: select fewer rows or columns, or give the worker more"
            ));
        }
        _ => Outcome::Internal,
    };
    Failure::new(outcome, format!("{who}: {text}"))
}

fn external(who: &str, source: &(dyn std::error::Error + Send + Sync + 'static), text: &str) -> Failure {
    match source.downcast_ref::<Stopped>() {
        Some(stopped) => stop_failure(who, *stopped),
        None => Failure::internal(format!("{who}: {text}")),
    }
}

/// The failure of a run that was stopped.
pub fn stop_failure(who: &str, stopped: Stopped) -> Failure {
    match stopped {
        Stopped::Cancelled => Failure::new(Outcome::Cancelled, format!("{who} was cancelled while it ran")),
        Stopped::Deadline => Failure::new(Outcome::Timeout, format!("{who} reached its deadline while it ran")),
    }
}

/// The error in words, with its place in the statement where DataFusion knows it.
pub fn message(error: &DataFusionError, tables: &BTreeMap<String, SchemaRef>) -> String {
    let place = error
        .diagnostic()
        .and_then(|diagnostic| diagnostic.span)
        .map_or(String::new(), |span| format!(" at line {}, column {}", span.start.line, span.start.column));
    match error.find_root() {
        DataFusionError::SchemaError(schema_error, _) => match &**schema_error {
            SchemaError::FieldNotFound { field, .. } => missing_column(&field.name, &place, tables),
            SchemaError::AmbiguousReference { field } => {
                format!("column \"{}\"{place} is in more than one table; hint: write table.{0}", field.name)
            }
            other => first_line(&other.to_string()) + &place,
        },
        root => first_line(&root.strip_backtrace()) + &place,
    }
}

fn missing_column(name: &str, place: &str, tables: &BTreeMap<String, SchemaRef>) -> String {
    let present: Vec<String> = tables
        .iter()
        .map(|(table, schema)| format!("{table} has {}", listed(schema.fields().iter().map(|field| field.name()))))
        .collect();
    let twin = tables
        .values()
        .flat_map(|schema| schema.fields())
        .map(|field| field.name())
        .find(|column| column.as_str() != name && column.eq_ignore_ascii_case(name));
    let hint = twin.map_or(String::new(), |twin| {
        format!("; hint: names are folded to lower case unless quoted: write \"{twin}\" in double quotes")
    });
    format!("no column \"{name}\"{place}; {}{hint}", present.join("; "))
}

/// DataFusion's messages go on with internals and pleas for bug reports after the first line.
fn first_line(text: &str) -> String {
    let line = text.split("\n\nbacktrace").next().unwrap_or_default();
    let line = line
        .split("This issue was likely caused by a bug")
        .next()
        .unwrap_or_default()
        .trim_end_matches(['.', '\n', ' ']);
    let prefixes = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Schema error: ",
        "SQL error: ",
        "This feature is not implemented: ",
        "Resources exhausted: ",
        "Internal error: ",
    ];
    let line = prefixes.iter().fold(line, |line, prefix| line.strip_prefix(prefix).unwrap_or(line));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
