//! The entries that a worker has, and how each is run.

mod builtin;
mod native;
pub mod tables;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use molt_ipc_shm::worker::{Inflight, Payload, Resident};
use molt_ipc_shm::{Codec, Outcome};
use serde_json::{Map, Value};

use crate::alloc::Taken;
use crate::body::{self, Body};
use crate::cancel::CancelToken;
use crate::failure::Failure;
use crate::manifest::{Export, Kind, Manifest};
use crate::sql::{self, EntryLimits, InputTable, ParamType, RunContext, SqlEngine, SqlEntry, SqlSpec};

/// Ad-hoc SQL.
const QUERY: &str = "molt.query";
/// Entries that the segment has slots for.
pub const MOST: usize = 1024;

/// An entry's answer, before it is written.
#[derive(Debug)]
pub enum Output {
    /// Bytes in that codec.
    Bytes(Codec, Vec<u8>),
    /// The request's own payload, unchanged.
    Payload,
    /// A table.
    Table(SchemaRef, Vec<RecordBatch>),
    /// A resident table, where it lies.
    Resident(Arc<Resident>),
}

/// An entry's answer and what it cost beyond what the worker counts by itself.
#[derive(Debug)]
pub struct Ran {
    /// The answer.
    pub output: Output,
    /// Allocations in a library with an allocator of its own.
    pub taken: Taken,
    /// Bytes of tables that could not be read in place.
    pub copied_bytes: u64,
    /// Plans that SQL made.
    pub plans: u32,
    /// Since when the oldest of the worker's own tables that it read is published; `None`: it read none.
    pub tables_since: Option<Instant>,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self { output, taken: Taken::default(), copied_bytes: 0, plans: 0, tables_since: None }
    }
}

/// What an entry may ask while it runs.
#[derive(Debug)]
pub struct Run<'a> {
    /// The request.
    pub request: &'a Inflight,
    /// The answer's codec.
    pub accept: Codec,
    /// When its time is up.
    pub deadline: Instant,
    /// Raised when the caller takes it back.
    pub cancel: CancelToken,
    /// A buffer that is used again and again for bodies.
    pub scratch: &'a mut Vec<u8>,
}

/// One entry.
#[derive(Debug)]
pub struct Entry {
    /// What clients call it by.
    pub name: String,
    /// Its slot in the segment.
    pub slot: u32,
    /// The longest that a call may take.
    pub limit: Option<Duration>,
    /// Whether running it twice does no harm.
    pub idempotent: bool,
    code: Code,
}

#[derive(Debug)]
enum Code {
    Builtin(builtin::Builtin),
    Native(native::NativeEntry),
    Sql(Box<SqlEntry>),
    Query(SqlEngine),
    Tables(tables::TableEntry, SqlEngine),
}

/// All entries, by name.
#[derive(Debug)]
pub struct Registry {
    entries: HashMap<String, Entry>,
    /// Names in the order of their slots.
    pub names: Vec<String>,
}

impl Registry {
    /// Builds every entry of a manifest. The message of a failure names file, entry and field.
    pub fn build(manifest: &Manifest, sql: &SqlEngine, adhoc: bool) -> Result<Self, String> {
        let file = manifest.file.as_deref().unwrap_or(Path::new("built-in manifest"));
        let mut registry = Self { entries: HashMap::new(), names: Vec::new() };
        for export in &manifest.exports {
            let code = Self::code(export, file, sql)
                .map_err(|what| format!("manifest {}: entry \"{}\": {what}", file.display(), export.name))?;
            let idempotent = export.idempotent || !matches!(code, Code::Native(_));
            registry.add(&export.name, export.timeout(), idempotent, code);
        }
        for builtin in builtin::ALL {
            if !registry.entries.contains_key(builtin.name()) {
                registry.add(builtin.name(), None, true, Code::Builtin(builtin));
            }
        }
        for entry in tables::ALL {
            registry.add(entry.name(), None, true, Code::Tables(entry, sql.clone()));
        }
        if adhoc {
            registry.add(QUERY, None, true, Code::Query(sql.clone()));
        }
        if registry.names.len() > MOST {
            return Err(format!("manifest {}: {} entries, at most {MOST}", file.display(), registry.names.len()));
        }
        Ok(registry)
    }

    fn code(export: &Export, manifest: &Path, sql: &SqlEngine) -> Result<Code, String> {
        match (export.kind, &export.library) {
            (Kind::Native, Some(library)) => native::load(&export.name, library, manifest).map(Code::Native),
            (Kind::Native, None) => {
                builtin::ALL.into_iter().find(|builtin| builtin.name() == export.name).map(Code::Builtin).ok_or_else(
                    || {
                        let names = builtin::ALL.map(builtin::Builtin::name).join(", ");
                        format!("field \"library\" is missing, and it is none of the built-in entries ({names})")
                    },
                )
            }
            (Kind::Sql, _) => {
                let spec = spec_of(export)?;
                sql.prepare(spec)
                    .map(|entry| Code::Sql(Box::new(entry)))
                    .map_err(|what| format!("field \"sql\": {what}"))
            }
        }
    }

    fn add(&mut self, name: &str, limit: Option<Duration>, idempotent: bool, code: Code) {
        let slot = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.entries.insert(name.to_owned(), Entry { name: name.to_owned(), slot, limit, idempotent, code });
    }

    /// The entry of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// What to say to somebody who asked for an entry that is not there.
    pub fn unknown(&self, name: &str) -> Failure {
        let text = if name == QUERY {
            "this worker runs no ad-hoc SQL; hint: it was started with --no-adhoc-sql".to_owned()
        } else {
            format!(
                "no entry is called \"{name}\"; there are {}; hint: it belongs into the worker's manifest",
                self.names.join(", ")
            )
        };
        Failure::new(Outcome::UnknownEntry, text)
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.names.iter().filter_map(|name| self.entries.get(name))
    }
}

fn spec_of(export: &Export) -> Result<SqlSpec, String> {
    let kind = |field: &str, name: &str, text: &str| -> Result<ParamType, String> {
        text.parse().map_err(|what| format!("field \"{field}.{name}\": {what}"))
    };
    let columns = |field: String, columns: &Map<String, Value>| {
        let column = |(name, value): (&String, &Value)| {
            let text = value.as_str().ok_or_else(|| format!("field \"{field}.{name}\": {value} is no type"))?;
            Ok((name.clone(), kind(&field, name, text)?))
        };
        columns.iter().map(column).collect::<Result<Vec<_>, String>>()
    };
    let input = export.input.list();
    let mut schemas = std::collections::BTreeMap::new();
    match &export.schema {
        None => {}
        Some(Value::Object(schema)) if schema.values().all(Value::is_object) => {
            for (name, value) in schema {
                let inner = value.as_object().into_iter().next();
                schemas.insert(name.clone(), columns(format!("schema.{name}"), inner.unwrap_or(&Map::new()))?);
            }
        }
        Some(Value::Object(schema)) if input.len() == 1 => {
            schemas.insert(input[0].clone(), columns("schema".into(), schema)?);
        }
        Some(_) => return Err("field \"schema\": {\"column\": \"type\"}, or one such object for each input".into()),
    }
    let params = export.params.iter().map(|(name, text)| Ok((name.clone(), kind("params", name, text)?)));
    Ok(SqlSpec {
        name: export.name.clone(),
        sql: export.sql.clone().unwrap_or_default(),
        input,
        params: params.collect::<Result<_, String>>()?,
        schemas,
        output: export.output,
        limits: EntryLimits { rows: export.max_rows, memory: export.max_memory },
    })
}

impl Entry {
    /// Whether it is so short that handing it to another thread would cost more than running it. A successor copies the
    /// tables by such entries alone: it need not wait until a thread is free.
    pub fn is_short(&self, request: &Inflight) -> bool {
        let short = match &self.code {
            Code::Builtin(_) => true,
            Code::Tables(entry, _) => !entry.changes_tables(),
            Code::Native(_) | Code::Sql(_) | Code::Query(_) => false,
        };
        short && matches!(request.payload(), Ok(Payload::Inline(_)))
    }

    /// Runs it.
    #[inline(always)] // called from one place; else what it returns is copied once more
    pub fn run(&self, run: &mut Run<'_>) -> Result<Ran, Failure> {
        match &self.code {
            Code::Builtin(builtin) => builtin.run(run).map(Ran::from),
            Code::Native(entry) => entry.run(&self.name, run),
            Code::Sql(entry) => self.run_sql(entry, run),
            Code::Query(engine) => query(engine, run),
            Code::Tables(entry, engine) => entry.run(engine, run),
        }
    }

    fn run_sql(&self, entry: &SqlEntry, run: &mut Run<'_>) -> Result<Ran, Failure> {
        let context = RunContext { deadline: Some(run.deadline), cancel: run.cancel.clone() };
        let given = body::params(run.request)?;
        let (tables, mut params, copied_bytes) = match body::read(run.request, run.scratch)? {
            // No body at all: for statements that need none.
            Body::Bytes(_, []) => (Vec::new(), Map::new(), 0),
            Body::Tables(tables, copied) => (tables, Map::new(), copied),
            Body::Bytes(codec, bytes) => {
                let rows = sql::rows::decode(entry, body::row_format(&self.name, codec)?, bytes)?;
                (rows.tables, rows.params, 0)
            }
        };
        params.extend(given); // what the server vouches for wins over what the body says
        let answer = entry.run(tables, &params, &context)?;
        let (plans, tables_since) = (answer.plans, answer.since);
        tracing::debug!(plans, rows = answer.rows(), "statement run");
        let output = match run.accept {
            Codec::Arrow => Output::Table(answer.schema, answer.batches),
            codec => {
                let format = body::row_format(&self.name, codec)?;
                Output::Bytes(codec, sql::answer::encode(&answer, format, entry.spec().output)?)
            }
        };
        Ok(Ran { output, taken: Taken::default(), copied_bytes, plans, tables_since })
    }
}

/// Sets and tells when the worker began.
pub fn started() -> Instant {
    *builtin::STARTED.get_or_init(Instant::now)
}

/// Has `health` tell which manifest this worker serves.
pub fn serves(manifest: &Manifest) {
    if let Some(hash) = manifest.hash {
        let _ = builtin::MANIFEST.set(hash); // once: a worker has one manifest
    }
}

/// Ad-hoc SQL: the statement and its values travel as params, the tables beside them.
fn query(engine: &SqlEngine, run: &mut Run<'_>) -> Result<Ran, Failure> {
    let context = RunContext { deadline: Some(run.deadline), cancel: run.cancel.clone() };
    let mut given = body::params(run.request)?;
    let Some(Value::String(statement)) = given.remove("sql") else {
        return Err(Failure::invalid("query: the params hold no text called \"sql\""));
    };
    let values = match given.remove("params") {
        Some(Value::Object(values)) => values,
        None | Some(Value::Null) => Map::new(),
        Some(other) => return Err(Failure::invalid(format!("query: params are an object, not {other}"))),
    };
    let (tables, copied_bytes): (Vec<InputTable>, u64) = match run.request.payload() {
        Ok(Payload::Inline([])) => (Vec::new(), 0),
        _ => match body::read(run.request, run.scratch)? {
            Body::Tables(tables, copied) => (tables, copied),
            Body::Bytes(codec, _) => {
                return Err(Failure::invalid(format!(
                    "query: its tables are Arrow, the request came as {}",
                    codec.name()
                )));
            }
        },
    };
    let answer = engine.query(&statement, tables, &values, &context)?;
    let (plans, tables_since) = (answer.plans, answer.since);
    let output = Output::Table(answer.schema, answer.batches);
    Ok(Ran { output, taken: Taken::default(), copied_bytes, plans, tables_since })
}
