//! Resident tables, as clients see them: put, table, tables, drop, load.
//!
//! A table that a client puts changes hands where it lies: its extents become the worker's, nothing is copied. Every
//! process then reads the same bytes, by a lease.

use std::path::PathBuf;
use std::sync::Arc;

use molt_ipc_shm::worker::{Inflight, NotResident, Payload, Resident};
use molt_ipc_shm::{Codec, Outcome};
use serde_json::Value;

use crate::body;
use crate::failure::Failure;
use crate::sql::{LoadError, Loading, RunContext, SqlEngine, Stopped, TableData, Version, read_file};

use super::{Output, Ran, Run};

/// The longest name of a table, bytes.
const NAME_MOST: usize = 200;

/// What a client does with resident tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableEntry {
    /// Publishes the payload under a name.
    Put,
    /// Answers a table, to be read in place.
    Table,
    /// Lists what there is.
    Tables,
    /// Takes a table away.
    Drop,
    /// Publishes a file.
    Load,
    /// Lists the files that are being loaded.
    Loads,
    /// Lists what there is, to a successor that has it from now on.
    Handover,
}

/// Every one.
pub const ALL: [TableEntry; 7] = [
    TableEntry::Put,
    TableEntry::Table,
    TableEntry::Tables,
    TableEntry::Drop,
    TableEntry::Load,
    TableEntry::Loads,
    TableEntry::Handover,
];

impl TableEntry {
    /// What clients call it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "molt.put",
            Self::Table => "molt.table",
            Self::Tables => "molt.tables",
            Self::Drop => "molt.drop",
            Self::Load => "molt.load",
            Self::Loads => "molt.loads",
            Self::Handover => "molt.handover",
        }
    }

    /// Whether it may read a file or much memory, and changes what there is. The others take a moment.
    pub fn changes_tables(self) -> bool {
        matches!(self, Self::Put | Self::Drop | Self::Load)
    }

    /// Runs it.
    pub fn run(self, engine: &SqlEngine, run: &mut Run<'_>) -> Result<Ran, Failure> {
        let changing = self.changes_tables().then(|| engine.catalog().changing());
        if let Some(None) = changing {
            // Nothing was done yet, so the client library asks the successor instead.
            return Err(Failure::new(
                Outcome::Unavailable,
                "a successor of this worker has its tables; nothing was changed",
            ));
        }
        let output = match self {
            Self::Put => put(engine, run),
            Self::Table => return table(engine, run),
            Self::Tables => packed(&engine.catalog().list()),
            Self::Drop => packed(&engine.catalog().drop_table(&name_of(run)?)),
            Self::Load => load(engine, run),
            Self::Loads => packed(&engine.catalog().loads.list()),
            Self::Handover => match engine.catalog().hand_over() {
                Ok(listed) => packed(&listed),
                Err(changing) => {
                    let text = format!("{changing} tables are just being put, loaded or dropped; hint: ask again");
                    Err(Failure::new(Outcome::Busy, text))
                }
            },
        };
        output.map(Ran::from)
    }
}

fn text(run: &Run<'_>, field: &str) -> Result<String, Failure> {
    match body::params(run.request)?.remove(field) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Failure::invalid(format!("{}: the params hold no text called \"{field}\"", run.request.entry()))),
    }
}

/// The table's name, as SQL can say it.
fn name_of(run: &Run<'_>) -> Result<String, Failure> {
    let name = text(run, "name")?;
    if name.is_empty() || name.len() > NAME_MOST || name.contains(['\0', '"', '.']) {
        return Err(Failure::invalid(format!(
            "{name:?} cannot be a table's name; hint: 1 to {NAME_MOST} bytes, without dot, quote or NUL"
        )));
    }
    Ok(name)
}

fn packed(value: &impl serde::Serialize) -> Result<Output, Failure> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|error| Failure::internal(error.to_string()))?;
    Ok(Output::Bytes(Codec::MsgPack, bytes))
}

fn no_room(what: impl std::fmt::Display) -> Failure {
    Failure::new(Outcome::Busy, what.to_string())
}

/// The payload's bytes, the worker's from now on, wherever they came from.
fn taken_over(request: &Inflight) -> Result<Arc<Resident>, Failure> {
    let block = match request.payload().map_err(body::bad_handle)? {
        Payload::Arena(handle) => request.take_over(&handle).map_err(no_room)?,
        Payload::Inline(bytes) => {
            let block = request.result_block(bytes.len()).map_err(no_room)?;
            block.write(0, bytes);
            block
        }
        Payload::Tables(tables) => {
            return Err(Failure::invalid(format!("put takes one table, not {}", tables.len())));
        }
    };
    Ok(Resident::new(request.host().segment.map.clone(), block))
}

fn put(engine: &SqlEngine, run: &mut Run<'_>) -> Result<Output, Failure> {
    let name = name_of(run)?;
    if body::codec(run.request)? != Codec::Arrow {
        return Err(body::wrong_codec("molt.put", body::codec(run.request)?, "arrow"));
    }
    let resident = taken_over(run.request)?;
    let version = publish(engine, &name, resident, None)?;
    packed(&version.listed(&name))
}

/// Validates a table in full and gives it its name.
fn publish(
    engine: &SqlEngine,
    name: &str,
    resident: Arc<Resident>,
    source: Option<PathBuf>,
) -> Result<Version, Failure> {
    let invalid = |what: String| Failure::invalid(format!("table \"{name}\": {what}"));
    let read = resident.read().map_err(|fault| invalid(fault.to_string()))?;
    let data = TableData::new(read.schema, read.batches).map_err(invalid)?;
    Ok(engine.catalog().put(name, data, Some(resident), source))
}

fn table(engine: &SqlEngine, run: &mut Run<'_>) -> Result<Ran, Failure> {
    let name = name_of(run)?;
    match engine.catalog().version(&name) {
        Some(Version { resident: Some(resident), since, .. }) => {
            Ok(Ran { tables_since: Some(since), ..Output::Resident(resident).into() })
        }
        Some(_) => {
            let text = format!(
                "table \"{name}\" stays on disk and has no bytes in shared memory; hint: query it, or client.load() it as \
                 resident"
            );
            Err(Failure { status: Some(409), ..Failure::invalid(text) })
        }
        None => {
            if let Some(why) = engine.catalog().why_lost(&name) {
                let text = format!("table \"{name}\" is lost: {why}; hint: client.put(\"{name}\", data)");
                return Err(Failure { status: Some(404), ..Failure::invalid(text) });
            }
            let names = engine.catalog().names();
            let there = if names.is_empty() { "no table at all".into() } else { names.join(", ") };
            let text = format!("there is no table \"{name}\", there is {there}; hint: client.put(\"{name}\", data)");
            Err(Failure { status: Some(404), ..Failure::invalid(text) })
        }
    }
}

fn load(engine: &SqlEngine, run: &mut Run<'_>) -> Result<Output, Failure> {
    let (name, path) = (name_of(run)?, PathBuf::from(text(run, "path")?));
    let mut params = body::params(run.request)?;
    if let Some(Value::Bool(false)) = params.remove("resident") {
        let version = engine.catalog().attach(&name, &path).map_err(Failure::invalid)?;
        return packed(&version.listed(&name));
    }
    let ticket = params.remove("ticket").and_then(|ticket| ticket.as_str().map(str::to_owned)).unwrap_or_default();
    let context = RunContext { deadline: Some(run.deadline), cancel: run.cancel.clone() };
    let loading = Loading::new(&name, &path, &ticket, context);
    engine.catalog().loads.add(&loading);
    let (schema, batches) = read_file(&name, &path, &loading).map_err(|error| match error {
        LoadError::Unreadable(reason) => Failure::invalid(reason),
        LoadError::Stopped(stopped) => {
            let now = loading.progress();
            let text = format!(
                "table \"{name}\": {stopped} after {} rows, {} of {} bytes; nothing was changed",
                now.rows, now.bytes, now.total_bytes
            );
            Failure::new(if stopped == Stopped::Cancelled { Outcome::Cancelled } else { Outcome::Timeout }, text)
        }
    })?;
    loading.place();
    let resident =
        run.request.host().make_resident(&schema, batches.into_iter().map(Ok)).map_err(|error| match error {
            NotResident::NoRoom(full) => no_room(format!("table \"{name}\": {full}")),
            encoding => Failure::invalid(format!("table \"{name}\": {encoding}")),
        })?;
    let version = publish(engine, &name, resident, Some(path))?;
    packed(&version.listed(&name))
}
