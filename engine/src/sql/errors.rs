//! What a caller reads when SQL fails: whose statement, where in it, and what there was instead.

use std::collections::BTreeMap;

use arrow_schema::{ArrowError, SchemaRef};
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use molt_ipc_shm::Outcome;
use serde_json::json;

use crate::failure::Failure;

use super::params::listed;
use super::run::RunError;
use super::stop::Stopped;

/// A statement that failed, as its caller knows it.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// Its name: `entry "order_totals"`.
    pub who: &'a str,
    pub sql: &'a str,
    /// What it could read.
    pub tables: &'a BTreeMap<String, SchemaRef>,
    /// Bytes of memory that it shares with all others.
    pub memory: usize,
}

/// The failure of a request whose statement could not be planned or did not run to its end.
pub fn failure(said: &Said<'_>, error: &DataFusionError) -> Failure {
    let (who, text) = (said.who, message(said, error));
    if let Some((what, _)) =
        text.split_once(" Please try increasing the config: `datafusion.runtime.max_temp_directory_size`")
    {
        let hint = "hint: select fewer rows or columns, or give the worker more (--spill)";
        return limit_failure(format!("{who}: {what}; {hint}"), json!({"limit": "spill"}));
    }
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
            return limit_failure(
                format!(
                    "{who}: the memory for SQL is used up, {} bytes for all that runs: {text}; hint: select fewer rows or \
                     columns, or give the worker more (--sql-memory, --spill)",
                    said.memory
                ),
                json!({"limit": "memory", "most": said.memory}),
            );
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

/// The failure of a run.
pub fn run_failure(said: &Said<'_>, error: RunError) -> Failure {
    match error {
        RunError::Stopped(stopped) => stop_failure(said.who, stopped),
        RunError::DataFusion(error) => failure(said, &error),
        RunError::TooMuch(what, most) => limit_failure(
            format!(
                "{}: the answer has more than {most} {what}, which is the limit; hint: add LIMIT, or select less",
                said.who
            ),
            json!({"limit": what, "most": most}),
        ),
    }
}

/// Whether it is memory that ran out.
pub fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

/// The failure of a run that asked for more memory than its entry allows.
pub fn over_memory(said: &Said<'_>, error: &DataFusionError, most: usize, asked: usize) -> Failure {
    limit_failure(
        format!(
            "{}: the run takes more memory than the {most} bytes of the entry's max_memory: {}; hint: select fewer rows or \
             columns, or raise it",
            said.who,
            message(said, error)
        ),
        json!({"limit": "memory", "most": most, "asked": asked}),
    )
}

/// A limit was reached: programs find which, and its number, in the details.
fn limit_failure(text: String, details: serde_json::Value) -> Failure {
    Failure { details: Some(details), ..Failure::internal(text) }
}

/// The failure of a run that was stopped.
pub fn stop_failure(who: &str, stopped: Stopped) -> Failure {
    match stopped {
        Stopped::Cancelled => Failure::new(Outcome::Cancelled, format!("{who} was cancelled while it ran")),
        Stopped::Deadline => Failure::new(Outcome::Timeout, format!("{who} reached its deadline while it ran")),
    }
}

/// The error in words, with its place in the statement where DataFusion knows it.
pub fn message(said: &Said<'_>, error: &DataFusionError) -> String {
    let tables = said.tables;
    let place = match error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        Some(span) => at(span.start.line, span.start.column),
        None => first_place(said.sql, error),
    };
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

fn at(line: u64, column: u64) -> String {
    format!(" at line {line}, column {column}")
}

/// Where a name stands in a statement for the first time; nothing where it does not.
pub fn place_of(sql: &str, name: &str) -> String {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap_or_default();
    let place = tokens.iter().find_map(|TokenWithSpan { token, span }| match token {
        Token::Word(word) if word.value.eq_ignore_ascii_case(name) => Some(at(span.start.line, span.start.column)),
        _ => None,
    });
    place.unwrap_or_default()
}

/// Where the first name stands that the error speaks of and the statement has.
fn first_place(sql: &str, error: &DataFusionError) -> String {
    if let DataFusionError::SchemaError(error, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field } = &**error
    {
        return place_of(sql, &field.name);
    }
    let text = error.find_root().strip_backtrace();
    quoted(&text).map(|name| place_of(sql, name)).find(|place| !place.is_empty()).unwrap_or_default()
}

/// What stands between quotes in a message: names out of the statement, mostly.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split(['"', '\'', '`']).skip(1).step_by(2).filter(|name| !name.is_empty())
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
        "Io error: ",
    ];
    let line = prefixes.iter().fold(line, |line, prefix| line.strip_prefix(prefix).unwrap_or(line));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
