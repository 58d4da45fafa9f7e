//! Tables of the worker whose place this one takes. They are copied into the new segment before the former worker is told to
//! go, so that every name leads to the same rows as before.
//!
//! Most of the copying is done while the former worker serves. Then this one takes the name over, asks the former to change
//! no table any more, copies what has changed meanwhile, and only then begins to serve: whoever was told that a table is
//! there finds it there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use molt_ipc_shm::client::{Called, Client, Failure, Payload, Reply, Request};
use molt_ipc_shm::worker::Host;
use molt_ipc_shm::{Address, Codec, Outcome};
use serde_json::json;
use tracing::{info, warn};

use crate::entries::tables::TableEntry;
use crate::sql::{Catalog, DiskTable, Listed, Lost, TableData};

/// The former worker answers at once, whatever its threads do; else it hangs.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long puts and loads may take that the former worker has begun. Clients wait for this one meanwhile.
const CHANGED_WITHIN: Duration = Duration::from_secs(30);
/// How often it is asked whether they are done.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// The worker that is to go, as its successor sees it.
#[derive(Debug)]
pub struct Predecessor {
    client: Client,
    /// Its tables, when they were asked for.
    listed: Vec<Listed>,
    /// What has been copied, and which version.
    copied: BTreeMap<String, u64>,
}

impl Predecessor {
    /// The live worker there, and the tables that `own` has not loaded itself. `None`: there is none, or it hangs.
    ///
    /// # Errors
    /// It serves, and its tables cannot be had: taking its place now would lose them.
    pub fn find(address: &Address, own: &Catalog) -> Result<Option<Self>, String> {
        let client = match Client::attach_to(address.clone(), Duration::ZERO) {
            Ok(client) => client,
            Err(failure) if failure.outcome == Outcome::Unavailable => {
                info!("no tables to take over: {failure}");
                return Ok(None);
            }
            Err(failure) => return Err(format!("the former worker lets nobody in: {failure}")),
        };
        let mut found = Self { client, listed: Vec::new(), copied: BTreeMap::new() };
        found.listed = found.list(TableEntry::Tables, own)?;
        Ok(Some(found))
    }

    /// Bytes that its tables will need.
    pub fn bytes(&self) -> u64 {
        self.listed.iter().filter(|table| table.resident && table.lost.is_none()).map(|table| table.bytes).sum()
    }

    /// Copies its tables. It serves meanwhile.
    ///
    /// # Errors
    /// The message names the table.
    pub fn copy(&mut self, host: &Host, catalog: &Catalog) -> Result<(), String> {
        for table in std::mem::take(&mut self.listed) {
            self.copy_one(&table, host, catalog)?;
        }
        Ok(())
    }

    /// Copies what has changed since, and has it change nothing more. For whoever has its name by now and does not serve
    /// yet.
    pub fn finish(mut self, host: &Host, catalog: &Catalog) {
        let loaded: Vec<String> = catalog.names().into_iter().filter(|name| !self.copied.contains_key(name)).collect();
        let listed = match self.list(TableEntry::Handover, &Catalog::default()) {
            Ok(listed) => listed,
            Err(error) => {
                warn!(%error, "tables that were put just now may be missing");
                return;
            }
        };
        let listed: Vec<Listed> = listed.into_iter().filter(|table| !loaded.contains(&table.name)).collect();
        let gone = self.copied.keys().filter(|name| listed.iter().all(|table| table.name != **name));
        gone.for_each(|name| {
            catalog.drop_table(name);
        });
        for table in &listed {
            if self.copied.get(&table.name) == Some(&table.version) {
                continue;
            }
            if let Err(error) = self.copy_one(table, host, catalog) {
                warn!(%error, "a table that was put just now is missing");
            }
        }
        info!(tables = listed.len(), "tables of the former worker are here");
    }

    fn list(&self, entry: TableEntry, own: &Catalog) -> Result<Vec<Listed>, String> {
        let said = |what: &dyn std::fmt::Display| format!("the tables of the former worker cannot be had: {what}");
        let until = Instant::now() + CHANGED_WITHIN;
        let reply = loop {
            match self.call(entry.name(), &[], Codec::MsgPack) {
                // Tables are just being put or loaded.
                Err(failure) if failure.outcome == Outcome::Busy && Instant::now() < until => {
                    std::thread::sleep(ASK_EVERY);
                }
                // One that is older than this question: what it has now is the best there is.
                Err(failure) if failure.outcome == Outcome::UnknownEntry && entry == TableEntry::Handover => {
                    break self.call(TableEntry::Tables.name(), &[], Codec::MsgPack);
                }
                other => break other,
            }
        };
        let bytes = reply.map_err(|failure| said(&failure))?.to_vec();
        let listed: Vec<Listed> = rmp_serde::from_slice(&bytes).map_err(|error| said(&error))?;
        Ok(listed.into_iter().filter(|table| !table.retired && own.version(&table.name).is_none()).collect())
    }

    fn copy_one(&mut self, listed: &Listed, host: &Host, catalog: &Catalog) -> Result<(), String> {
        let said = |what: &dyn std::fmt::Display| format!("table \"{}\" of the former worker: {what}", listed.name);
        if let Some(lost) = Lost::of(listed) {
            catalog.lose(&listed.name, lost);
            return Ok(());
        }
        if let (false, Some(path)) = (listed.resident, &listed.source) {
            let disk = DiskTable::open(path).map_err(|what| said(&what))?;
            catalog.adopt(listed, TableData::on_disk(disk), None);
            self.copied.insert(listed.name.clone(), listed.version);
            return Ok(());
        }
        let params = rmp_serde::to_vec_named(&json!({"name": listed.name})).map_err(|error| said(&error))?;
        let reply = match self.call(TableEntry::Table.name(), &params, Codec::Arrow) {
            // Dropped since: it is not listed any more next time.
            Err(failure) if failure.outcome == Outcome::InvalidInput => return Ok(()),
            other => other.map_err(|failure| said(&failure))?,
        };
        let table = reply.into_table().map_err(|failure| said(&failure))?;
        let batches = table.batches.into_iter().map(Ok);
        let resident = host.make_resident(&table.schema, batches).map_err(|full| said(&full))?;
        let read = resident.read().map_err(|fault| said(&fault))?;
        let data = TableData::new(read.schema, read.batches).map_err(|what| said(&what))?;
        catalog.adopt(listed, data, Some(resident));
        self.copied.insert(listed.name.clone(), listed.version);
        Ok(())
    }

    /// Asks this worker and no other: a successor of its would be this process.
    fn call(&self, entry: &str, params: &[u8], accept: Codec) -> Result<Reply, Failure> {
        let request = Request {
            entry: entry.as_bytes(),
            params,
            payload: Payload::Bytes(&[]),
            codec: Codec::Json as u8,
            accept: accept as u8,
            idempotent: None,
            resend: false,
            timeout: Some(ANSWERS_WITHIN),
            fallback_timeout: ANSWERS_WITHIN,
            trace: None,
        };
        let mut called = self.client.call(&request)?;
        loop {
            match called {
                Called::Reply(reply, _) if reply.outcome == Outcome::Ok => return Ok(reply),
                Called::Reply(reply, _) => return Err(reply.into_failure()),
                Called::Interrupted(pending) => called = self.client.resume(pending)?,
            }
        }
    }
}
