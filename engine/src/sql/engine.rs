//! The SQL engine of a worker: DataFusion's threads, its memory, the tables that the worker holds, and the statements.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use crate::failure::Failure;

use super::bounded::{bounded, check_values};
use super::catalog::{Catalog, Version};
use super::check::{Checked, Source, check};
use super::entry::{SqlEntry, SqlSpec};
use super::errors::{Said, failure, run_failure, stop_failure};
use super::kept::size_class;
use super::memory::{Memory, Spill};
use super::params::inferred_values;
use super::plan::{PlanCopy, logical, run_values, session, with_values};
use super::run::{AnswerLimits, RunError, collect};
use super::scan::{TableData, TableFacts, Tables};
use super::stop::{RunContext, planning};

/// From this size class on (65,536 rows) a table is scanned by all threads: below, handing rows over costs more than it saves.
const WIDE_CLASS: u32 = 2;

/// Bounds of the engine.
#[derive(Debug, Clone)]
pub struct SqlLimits {
    /// Threads for large queries. Small ones run on the thread that asks.
    pub threads: usize,
    /// Memory of all running queries together, bytes. A tenth stays aside for what operators do not report.
    pub memory_bytes: usize,
    /// Largest answer of one statement.
    pub answer: AnswerLimits,
    /// Where sorts and aggregates may spill; `None`: they fail when memory is used up.
    pub spill: Option<Spill>,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            memory_bytes: 1 << 30,
            answer: AnswerLimits { rows: 10_000_000, bytes: 256 << 20 },
            spill: None,
        }
    }
}

/// A table that a request brings. Nothing copies its buffers, which may lie in shared memory.
#[derive(Debug, Clone)]
pub struct InputTable {
    /// Empty: the only input of the entry.
    pub name: String,
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Its types are those of the values in its rows: nobody declared them.
    pub inferred: bool,
}

/// An answer: batches of `schema`, none of them empty.
#[derive(Debug, Clone)]
pub struct SqlAnswer {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Plans that were made for this request: 0 where a kept one served.
    pub plans: u32,
    /// Since when the oldest of the worker's own tables that it was read from is published; `None`: it was read from none.
    pub since: Option<Instant>,
}

impl SqlAnswer {
    /// Rows of all batches.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Everything that SQL needs in a worker. One per worker; clones share it.
#[derive(Debug, Clone)]
pub struct SqlEngine {
    shared: Arc<Shared>,
}

/// What engine and entries share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) runtime: Runtime,
    limits: SqlLimits,
    pub(super) memory: Memory,
    pub(super) catalog: Catalog,
    /// Sessions for plans that are kept, and for plans that serve once: those take fewer passes of the optimiser.
    pub(super) kept: Sessions,
    once: Sessions,
    pub(super) planner_runs: AtomicU64,
}

/// One session on one partition, one on all threads.
#[derive(Debug)]
pub(super) struct Sessions {
    narrow: Prepared,
    wide: Prepared,
}

/// A session with its task context: making one copies the function registry.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) state: SessionState,
    pub(super) task: Arc<TaskContext>,
}

impl SqlEngine {
    /// Starts the engine's threads.
    pub fn new(limits: SqlLimits) -> Result<Self, String> {
        let threads = limits.threads.max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("molt-sql")
            .enable_time()
            .build()
            .map_err(|error| format!("cannot start {threads} threads for SQL: {error}"))?;
        let memory = Memory::new(limits.memory_bytes / 10 * 9, limits.spill.as_ref())
            .map_err(|error| format!("cannot set up SQL: {}", error.strip_backtrace()))?;
        let sessions = |passes| {
            let prepared = |partitions| {
                let state = session(&memory, partitions, passes);
                let task = state.task_ctx();
                Prepared { state, task }
            };
            Sessions { narrow: prepared(1), wide: prepared(threads) }
        };
        let (kept, once) = (sessions(3), sessions(1));
        let shared = Shared {
            runtime,
            limits,
            memory,
            catalog: Catalog::default(),
            kept,
            once,
            planner_runs: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Loads a file (CSV, Parquet, JSON lines, Arrow) as a table that every statement may name.
    pub fn load_table(&self, name: &str, path: &Path) -> Result<Version, String> {
        self.shared.catalog.load(name, path)
    }

    /// Names Parquet files that stay on disk as such a table.
    pub fn attach_table(&self, name: &str, path: &Path) -> Result<Version, String> {
        self.shared.catalog.attach(name, path)
    }

    /// The tables that the worker itself holds.
    pub fn catalog(&self) -> &Catalog {
        &self.shared.catalog
    }

    /// Adds or replaces a table that every statement may name.
    #[cfg(test)]
    pub fn put_table(&self, name: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Version, String> {
        let data = TableData::new(schema, batches).map_err(|reason| format!("table \"{name}\": {reason}"))?;
        Ok(self.shared.catalog.put(name, data, None, None))
    }

    /// Memory that runs hold now, bytes.
    #[cfg(test)]
    pub fn reserved(&self) -> usize {
        self.shared.memory.environment.memory_pool.reserved()
    }

    /// How often the planner ran since the start.
    #[cfg(test)]
    pub fn planner_runs(&self) -> u64 {
        self.shared.planner_runs.load(Ordering::Relaxed)
    }

    /// Checks a SQL entry at start. Tables named in the manifest are loaded before this.
    pub fn prepare(&self, spec: SqlSpec) -> Result<SqlEntry, String> {
        SqlEntry::new(Arc::clone(&self.shared), spec)
    }

    /// Runs a statement that came with its request: read-only by construction and bounded in every direction.
    pub fn query(
        &self,
        sql: &str,
        tables: Vec<InputTable>,
        params: &Map<String, Value>,
        context: &RunContext,
    ) -> Result<SqlAnswer, Failure> {
        const WHO: &str = "query";
        let shared = &self.shared;
        let invalid = |reason| Failure::invalid(format!("{WHO}: {reason}"));
        let checked = check(sql, Source::Client).map_err(invalid)?;
        let values = inferred_values(checked.params.iter().cloned(), params).map_err(invalid)?;
        let mut given = Tables::new();
        for table in tables {
            let data = TableData::new(table.schema, table.batches)
                .map_err(|reason| invalid(format!("table \"{}\": {reason}", table.name)))?;
            if given.insert(table.name.clone(), Arc::new(data)).is_some() {
                return Err(invalid(format!("table \"{}\" is given twice", table.name)));
            }
        }
        let since = shared.add_own(&checked, &mut given);
        let in_time = || context.stopped().map_or(Ok(()), |stopped| Err(stop_failure(WHO, stopped)));
        in_time()?;

        let prepared = shared.once.of(&given);
        let schemas = schemas_of(&given);
        let statement = Said { who: WHO, sql, tables: &schemas, memory: shared.memory.bytes };
        let planned = |error: DataFusionError| failure(&statement, &error);
        shared.planner_runs.fetch_add(1, Ordering::Relaxed);
        let plan = logical(&prepared.state, &checked, &given, &BTreeMap::new()).map_err(planned)?;
        let plan = bounded(with_values(plan, &run_values(&values)).map_err(planned)?).map_err(planned)?;
        in_time()?;
        let plan = planning(context, || prepared.state.optimize(&plan)).map_err(planned)?;
        check_values(&plan).map_err(planned)?;
        in_time()?;
        let facts = shared.facts(&given, true);
        let copy = shared.runtime.block_on(PlanCopy::new(&prepared.state, plan, &facts)).map_err(planned)?;
        copy.arm(&given, &values, context).map_err(planned)?;
        let answer = shared.run(&copy, &prepared.task, context, shared.limits.answer);
        copy.halt();
        let answer = answer.map_err(|error| run_failure(&statement, error))?;
        Ok(SqlAnswer { plans: 1, since, ..answer })
    }
}

impl Shared {
    /// Adds the worker's own tables that the statement names and the request does not bring. Since when the oldest of them is
    /// published, if there is one.
    pub(super) fn add_own(&self, checked: &Checked, tables: &mut Tables) -> Option<Instant> {
        let mut oldest = None;
        for name in &checked.tables {
            if let (false, Some((data, since))) = (tables.contains_key(name), self.catalog.read(name)) {
                tables.insert(name.clone(), data);
                oldest = Some(oldest.map_or(since, |oldest: Instant| oldest.min(since)));
            }
        }
        oldest
    }

    pub(super) fn facts(&self, tables: &Tables, exact: bool) -> BTreeMap<String, TableFacts> {
        tables
            .iter()
            .map(|(name, data)| {
                let partitions = if size_class(data.rows) >= WIDE_CLASS { self.limits.threads.max(1) } else { 1 };
                (name.clone(), TableFacts::of(data, partitions, exact))
            })
            .collect()
    }

    /// How large an answer may be that has a limit of rows of its own.
    pub(super) fn answer_limits(&self, rows: Option<usize>) -> AnswerLimits {
        let limits = self.limits.answer;
        AnswerLimits { rows: rows.unwrap_or(limits.rows).min(limits.rows), ..limits }
    }

    /// Runs an armed plan; the answer says neither plans nor age yet.
    pub(super) fn run(
        &self,
        copy: &PlanCopy,
        task: &Arc<TaskContext>,
        context: &RunContext,
        limits: AnswerLimits,
    ) -> Result<SqlAnswer, RunError> {
        let schema = copy.plan.schema();
        let batches = collect(self.runtime.handle(), Arc::clone(&copy.plan), Arc::clone(task), context, limits)?;
        Ok(SqlAnswer { schema, batches, plans: 0, since: None })
    }
}

impl Sessions {
    pub(super) fn of(&self, tables: &Tables) -> &Prepared {
        if tables.values().any(|data| size_class(data.rows) >= WIDE_CLASS) { &self.wide } else { &self.narrow }
    }
}

pub(super) fn schemas_of(tables: &Tables) -> BTreeMap<String, SchemaRef> {
    tables.iter().map(|(name, data)| (name.clone(), Arc::clone(&data.schema))).collect()
}
