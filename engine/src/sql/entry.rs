//! A SQL entry: a statement of the manifest, checked once, planned once per form of its tables, run per request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use serde_json::{Map, Value};

use crate::failure::Failure;

use super::answer::Shape;
use super::check::{Checked, Source, check};
use super::engine::{InputTable, Shared, SqlAnswer, schemas_of};
use super::errors::{Said, failure, is_exhausted, message, over_memory, place_of, run_failure};
use super::kept::{Form, KeptPlans};
use super::params::{ParamType, declared_values, listed};
use super::plan::logical;
use super::run::RunError;
use super::scan::{TableData, Tables};
use super::seen::{Known, Seen};
use super::stop::RunContext;

/// A SQL entry as the manifest describes it.
#[derive(Debug, Clone, Default)]
pub struct SqlSpec {
    pub name: String,
    pub sql: String,
    /// Names of the tables that a request brings.
    pub input: Vec<String>,
    pub params: BTreeMap<String, ParamType>,
    /// Columns of an input, where the manifest declares them: JSON and MsgPack rows then have these types, and the
    /// statement is planned at start.
    pub schemas: BTreeMap<String, Vec<(String, ParamType)>>,
    /// What an answer in JSON or MsgPack is made of.
    pub output: Shape,
    pub limits: EntryLimits,
}

/// Bounds of one entry, beside its time and within those of the engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct EntryLimits {
    /// Most rows of an answer.
    pub rows: Option<usize>,
    /// Most memory of one run, bytes.
    pub memory: Option<usize>,
}

/// A SQL entry: checked once, planned once per form of its tables.
#[derive(Debug)]
pub struct SqlEntry {
    shared: Arc<Shared>,
    who: String,
    checked: Checked,
    schemas: BTreeMap<String, SchemaRef>,
    spec: SqlSpec,
    plans: KeptPlans,
    seen: Seen,
}

impl SqlEntry {
    /// Checks the statement against what the manifest declares, and plans it where all columns are known.
    pub(super) fn new(shared: Arc<Shared>, spec: SqlSpec) -> Result<Self, String> {
        let checked = check(&spec.sql, Source::Manifest)?;
        if let Some(name) = checked.params.iter().find(|name| !spec.params.contains_key(*name)) {
            return Err(format!(
                "parameter ${name} is not declared in params; declared are {}",
                listed(spec.params.keys())
            ));
        }
        if let Some(name) = spec.params.keys().find(|name| !checked.params.contains(*name)) {
            return Err(format!("parameter \"{name}\" is declared but not used; hint: write it as ${name}"));
        }
        if let Some(name) =
            checked.tables.iter().find(|name| !spec.input.contains(name) && !shared.catalog.is_known(name))
        {
            let known: Vec<String> = spec.input.iter().cloned().chain(shared.catalog.names()).collect();
            let place = place_of(&spec.sql, name);
            return Err(format!("no table \"{name}\"{place}; the tables are {}", listed(known.iter())));
        }
        if let Some(name) = spec.schemas.keys().find(|name| !spec.input.contains(name)) {
            return Err(format!(
                "a schema is given for \"{name}\", which is no input; the inputs are {}",
                listed(spec.input.iter())
            ));
        }
        let schemas = spec.schemas.iter().map(|(name, columns)| (name.clone(), declared_schema(columns))).collect();
        let entry = SqlEntry {
            shared,
            who: format!("entry \"{}\"", spec.name),
            checked,
            schemas,
            spec,
            plans: KeptPlans::default(),
            seen: Seen::default(),
        };
        entry.plan_at_start()?;
        Ok(entry)
    }

    /// The entry as the manifest describes it.
    pub fn spec(&self) -> &SqlSpec {
        &self.spec
    }

    /// What is known of an input before its rows are read.
    pub(super) fn known(&self, input: &str) -> Known {
        match self.schemas.get(input) {
            Some(schema) => Known::Declared(Arc::clone(schema)),
            None => self.seen.known(input, &self.checked.columns),
        }
    }

    /// Runs the entry on the calling thread. `params` may hold more than the statement uses.
    pub fn run(
        &self,
        inputs: Vec<InputTable>,
        params: &Map<String, Value>,
        context: &RunContext,
    ) -> Result<SqlAnswer, Failure> {
        let shared = &self.shared;
        let invalid = |reason| Failure::invalid(format!("{}: {reason}", self.who));
        let values = declared_values(&self.spec.params, params).map_err(invalid)?;
        let inferred: Vec<String> =
            inputs.iter().filter(|table| table.inferred).map(|table| table.name.clone()).collect();
        let mut tables = self.inputs(inputs).map_err(invalid)?;
        let since = shared.add_own(&self.checked, &mut tables);
        if let Some(name) = self.checked.tables.iter().find(|name| !tables.contains_key(*name)) {
            let who = &self.who;
            let text = format!(
                "{who}: nobody has put table \"{name}\" since the worker started; hint: client.put(\"{name}\", data)"
            );
            return Err(Failure { status: Some(409), ..Failure::invalid(text) });
        }
        let schemas = schemas_of(&tables);
        let statement = Said { who: &self.who, sql: &self.spec.sql, tables: &schemas, memory: shared.memory.bytes };
        let wrong = |error: DataFusionError| failure(&statement, &error);
        for name in &inferred {
            self.leave_what_is_asked_for(name, &mut tables).map_err(invalid)?;
        }

        let prepared = shared.kept.of(&tables);
        let mut plans = 0;
        let form = match self.plans.find(&tables) {
            Some(form) => form,
            None => {
                plans += 1;
                self.plan_form(&tables).map_err(wrong)?
            }
        };
        let copy = match form.take(&values) {
            Some(copy) => copy,
            None => {
                plans += 1;
                shared.planner_runs.fetch_add(1, Ordering::Relaxed);
                shared.runtime.block_on(form.plan(&prepared.state, &values)).map_err(wrong)?
            }
        };
        copy.arm(&tables, &values, context).map_err(wrong)?;
        let limits = shared.answer_limits(self.spec.limits.rows);
        let (task, pool) = match self.spec.limits.memory {
            Some(most) => {
                let (task, pool) = shared.memory.limited(&prepared.task, most);
                (task, Some((pool, most)))
            }
            None => (Arc::clone(&prepared.task), None),
        };
        // Only a plan whose run came to its end is used again: after a failure, tasks of the run may be at work in it still.
        match shared.run(&copy, &task, context, limits) {
            Ok(answer) => {
                form.give_back(copy, values);
                inferred.iter().for_each(|name| self.seen.keep(name, &tables[name].schema));
                Ok(SqlAnswer { plans, since, ..answer })
            }
            Err(error) => {
                copy.halt();
                let refused = pool.and_then(|(pool, most)| Some((most, pool.refused()?)));
                Err(match (&error, refused) {
                    (RunError::DataFusion(error), Some((most, asked))) if is_exhausted(error) => {
                        over_memory(&statement, error, most, asked)
                    }
                    _ => run_failure(&statement, error),
                })
            }
        }
    }

    /// Takes away the columns of an input that the statement has no name for: whether they are there makes no difference to
    /// its plan.
    fn leave_what_is_asked_for(&self, name: &str, tables: &mut Tables) -> Result<(), String> {
        let Some(table) = tables.get(name) else { return Ok(()) };
        let asked = |(_, field): &(usize, &Arc<Field>)| self.checked.columns.has(field.name());
        let columns: Vec<usize> = table.schema.fields().iter().enumerate().filter(asked).map(|(at, _)| at).collect();
        if columns.len() < table.schema.fields().len() {
            let project = |error: arrow_schema::ArrowError| format!("input \"{name}\": {error}");
            let schema = Arc::new(table.schema.project(&columns).map_err(project)?);
            let batches = table.batches.iter().map(|batch| batch.project(&columns)).collect::<Result<_, _>>();
            let data = TableData::new(schema, batches.map_err(project)?)?;
            tables.insert(name.to_owned(), Arc::new(data));
        }
        Ok(())
    }

    /// The declared inputs out of what the request brings.
    fn inputs(&self, inputs: Vec<InputTable>) -> Result<Tables, String> {
        let mut tables = Tables::new();
        for mut table in inputs {
            if let ("", [only]) = (table.name.as_str(), self.spec.input.as_slice()) {
                table.name.clone_from(only);
            }
            if !self.spec.input.contains(&table.name) {
                return Err(format!(
                    "\"{}\" is no input; the inputs are {}",
                    table.name,
                    listed(self.spec.input.iter())
                ));
            }
            let data = TableData::new(table.schema, table.batches)
                .map_err(|reason| format!("input \"{}\": {reason}", table.name))?;
            if tables.insert(table.name.clone(), Arc::new(data)).is_some() {
                return Err(format!("input \"{}\" is given twice", table.name));
            }
        }
        match self.spec.input.iter().find(|name| !tables.contains_key(*name)) {
            Some(name) => Err(format!("input \"{name}\" is missing; the request has {}", listed(tables.keys()))),
            None => Ok(tables),
        }
    }

    /// Plans the statement for tables like these and keeps the plan.
    fn plan_form(&self, tables: &Tables) -> Result<Arc<Form>, DataFusionError> {
        let shared = &self.shared;
        shared.planner_runs.fetch_add(1, Ordering::Relaxed);
        let types: BTreeMap<String, DataType> =
            self.spec.params.iter().map(|(name, kind)| (name.clone(), kind.data_type())).collect();
        let state = &shared.kept.of(tables).state;
        let plan = logical(state, &self.checked, tables, &types)?;
        let facts = shared.facts(tables, false);
        let form = shared.runtime.block_on(Form::new(state, plan, tables, facts))?;
        Ok(self.plans.keep(form, tables))
    }

    /// Finds what is wrong with the statement before a request does, where its columns are known.
    fn plan_at_start(&self) -> Result<(), String> {
        let mut tables = Tables::new();
        for name in &self.spec.input {
            let Some(schema) = self.schemas.get(name) else { return Ok(()) };
            let data = TableData::new(Arc::clone(schema), Vec::new())?;
            tables.insert(name.clone(), Arc::new(data));
        }
        self.shared.add_own(&self.checked, &mut tables);
        if self.checked.tables.iter().any(|name| !tables.contains_key(name)) {
            return Ok(()); // a table that a client puts later
        }
        match self.plan_form(&tables) {
            Ok(_) => Ok(()),
            Err(error) => {
                let statement = Said {
                    who: &self.who,
                    sql: &self.spec.sql,
                    tables: &schemas_of(&tables),
                    memory: self.shared.memory.bytes,
                };
                Err(message(&statement, &error))
            }
        }
    }
}

fn declared_schema(columns: &[(String, ParamType)]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(name, kind.data_type(), true)).collect();
    Arc::new(Schema::new(fields))
}
