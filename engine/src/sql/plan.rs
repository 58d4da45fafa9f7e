//! From a checked statement to a physical plan, in steps that can be kept: logical plan, optimised plan, physical plan.
//!
//! Names are resolved in the tables handed in and nowhere else: there is no catalogue, no file, no table function and no
//! information schema to reach, so a statement cannot read what it was not given.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_schema::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue, TableReference, plan_err};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableProviderFilterPushDown,
    TableSource, Values, WindowUDF,
};
use datafusion::optimizer::Optimizer;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{ParserOptions, SqlToRel};

use super::check::Checked;
use super::coded_groups::{code_groups, reset};
use super::decimals;
use super::group_limit::limit_groups;
use super::instants;
use super::lookup_join::look_up_joins;
use super::memory::Memory;
use super::params::{ParamCell, ParamFunction, ParamValues};
use super::scan::{SlotTable, TableFacts, TableSlot, Tables, own_slices_for_sorts};
use super::stop::{RunContext, StopCell, make_joins_stoppable, stoppable_rules};

/// Most nodes of a logical plan: WITH queries are in place of their names by then.
const MAX_NODES: usize = 2_000;

/// Functions of the clock become parameters of every run: DataFusion would fold the time of planning into a kept plan.
static CLOCK: LazyLock<[(&str, DataType); 3]> = LazyLock::new(|| {
    [
        ("now", DataType::Timestamp(TimeUnit::Nanosecond, Some(instants::UTC.into()))),
        ("current_date", DataType::Date32),
        ("current_time", DataType::Time64(TimeUnit::Nanosecond)),
    ]
});

/// Rows of a batch where several threads work on a question: fewer batches cost less each, and what an operator holds of one
/// still lies in a core's cache.
const WIDE_BATCH: usize = 1 << 14;

/// A join's smaller side is collected whole up to so many bytes, for all threads to look up in. Larger, and both sides are dealt
/// out by the hashes of their keys, which copies the larger one too.
const COLLECTED_SIDE: usize = 8 << 20;

/// A DataFusion session set up for low latency.
pub fn session(memory: &Memory, partitions: usize, passes: usize) -> SessionState {
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false);
    if partitions > 1 {
        config = config.with_batch_size(WIDE_BATCH);
    }
    let options = config.options_mut();
    options.optimizer.max_passes = passes;
    // A filter learnt in one run would stay in a kept plan, where it drops rows of the next.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.hash_join_single_partition_threshold = COLLECTED_SIDE;
    // Keys of a build side within so narrow a range are looked up in an array, however few of them there are: a quarter of a
    // megabyte, and no hashes.
    options.execution.perfect_hash_join_small_build_threshold = 1 << 16;
    options.sql_parser.collect_spans = true;
    // Else `timestamptz` is a type without a zone, which is then taken for the wall clock of whatever it is compared with.
    options.execution.time_zone = Some(instants::UTC.into());
    options.execution.sort_spill_reservation_bytes = memory.sort_reserve();
    // Rules that look for what our leaves do not have: files to push filters into, remote inputs to buffer.
    let unused = ["HashJoinBuffering"];
    let rules = PhysicalOptimizer::new().rules.into_iter().filter(|rule| !unused.contains(&rule.name())).collect();
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(&memory.environment))
        .with_default_features()
        .with_optimizer_rules(stoppable_rules(Optimizer::new().rules))
        .with_physical_optimizer_rules(rules)
        .build()
}

/// The logical plan of a statement over `tables`. Parameters stay open, with the types of `types` where it has one.
pub fn logical(
    state: &SessionState,
    checked: &Checked,
    tables: &Tables,
    types: &BTreeMap<String, DataType>,
) -> DfResult<LogicalPlan> {
    let names = Names {
        state,
        tables: tables
            .iter()
            .map(|(name, data)| {
                let table = NamedTable { schema: Arc::clone(&data.schema), is_pruned: data.is_pruned() };
                (name.clone(), Arc::new(table) as _)
            })
            .collect(),
    };
    let options = &state.config().options().sql_parser;
    let parser = ParserOptions {
        parse_float_as_decimal: options.parse_float_as_decimal,
        enable_ident_normalization: options.enable_ident_normalization,
        collect_spans: options.collect_spans,
        ..ParserOptions::default()
    };
    let plan = SqlToRel::new_with_options(&names, parser).sql_statement_to_plan(checked.statement.clone())?;
    // The tree of the statement was searched already; this looks at what became of it.
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    check_nodes(&plan)?;
    let plan = rewrite(plan, &|expr| match expr {
        Expr::Placeholder(Placeholder { id, field }) => {
            let field = match types.get(id.trim_start_matches('$')) {
                Some(kind) => Some(Arc::new(Field::new("", kind.clone(), true))),
                None => field,
            };
            Ok(Transformed::yes(Expr::Placeholder(Placeholder { id, field })))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if args.is_empty() => {
            match CLOCK.iter().find(|(name, _)| *name == func.name()) {
                Some((name, kind)) => Ok(Transformed::yes(Expr::Placeholder(Placeholder {
                    id: format!("${name}()"),
                    field: Some(Arc::new(Field::new("", kind.clone(), true))),
                }))),
                None => Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))),
            }
        }
        other => Ok(Transformed::no(other)),
    })?;
    rewrite_operands(plan)
}

/// Gives operands the types that they are computed with, where DataFusion's own choice would be wrong or dear.
fn rewrite_operands(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let node = decimals::widened_sides(node)?;
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = expr.transform_up(|expr| {
                let widened = decimals::widened(expr, &schema)?;
                widened.transform_data(|expr| Ok(instants::aligned(expr, &schema)))
            })?;
            Ok(if changed.transformed { changed.update_data(|expr| name.restore(expr)) } else { changed })
        })?;
        node.map_data(LogicalPlan::recompute_schema)
    })
    .map(|plan| plan.data)
}

/// `values` and the clock, by the identifiers that open parameters have in a logical plan.
pub fn run_values(values: &ParamValues) -> ParamValues {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    const DAY: i64 = 86_400_000_000_000;
    let clock = [
        ("$now()", ScalarValue::TimestampNanosecond(Some(nanos), Some(instants::UTC.into()))),
        ("$current_date()", ScalarValue::Date32(Some((nanos / DAY) as i32))),
        ("$current_time()", ScalarValue::Time64Nanosecond(Some(nanos % DAY))),
    ];
    let clock = clock.into_iter().map(|(id, value)| (id.to_string(), value));
    values.iter().map(|(name, value)| (format!("${name}"), value.clone())).chain(clock).collect()
}

/// Whether an open parameter is the clock's and not the statement's own.
pub fn is_clock(id: &str) -> bool {
    id.ends_with("()")
}

/// The plan with values in place of its open parameters (identifiers as [`run_values`] makes them).
pub fn with_values(plan: LogicalPlan, values: &ParamValues) -> DfResult<LogicalPlan> {
    rewrite(plan, &|expr| match expr {
        Expr::Placeholder(Placeholder { id, .. }) => match values.get(&id) {
            Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
            None => plan_err!("parameter {id} has no value"),
        },
        other => Ok(Transformed::no(other)),
    })
}

/// A physical plan and the cells through which a run gives it rows, values and limits. Serves one run at a time.
#[derive(Debug)]
pub struct PlanCopy {
    pub plan: Arc<dyn ExecutionPlan>,
    tables: BTreeMap<String, Arc<TableSlot>>,
    params: BTreeMap<String, Arc<ParamCell>>,
    stop: Arc<StopCell>,
}

impl PlanCopy {
    /// The physical plan of an optimised logical plan. Parameters still open are read from cells in each run.
    pub async fn new(
        state: &SessionState,
        optimised: LogicalPlan,
        facts: &BTreeMap<String, TableFacts>,
    ) -> DfResult<Self> {
        let stop = Arc::new(StopCell::default());
        let mut tables = BTreeMap::new();
        let optimised = optimised
            .transform_up_with_subqueries(|node| match node {
                LogicalPlan::TableScan(mut scan) => {
                    let name = scan.table_name.table();
                    let Some(facts) = facts.get(name) else { return plan_err!("no table {name}") };
                    let slot: &Arc<TableSlot> = tables.entry(name.to_string()).or_default();
                    let provider = SlotTable { facts: facts.clone(), slot: Arc::clone(slot), stop: Arc::clone(&stop) };
                    scan.source = provider_as_source(Arc::new(provider));
                    Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
                }
                other => Ok(Transformed::no(other)),
            })?
            .data;
        let params = std::cell::RefCell::new(BTreeMap::<String, Arc<ParamCell>>::new());
        let optimised = rewrite(optimised, &|expr| match expr {
            Expr::Placeholder(Placeholder { id, field: Some(field) }) => {
                let cell = Arc::clone(params.borrow_mut().entry(id.clone()).or_default());
                let function = ParamFunction::new(id, field.data_type().clone(), cell);
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
                    Arc::new(ScalarUDF::from(function)),
                    vec![],
                ))))
            }
            Expr::Placeholder(Placeholder { id, field: None }) => plan_err!("the type of parameter {id} is not known"),
            other => Ok(Transformed::no(other)),
        })?;
        let plan = DefaultPhysicalPlanner::default().create_physical_plan(&optimised, state).await?;
        let plan = look_up_joins(code_groups(limit_groups(plan)?)?)?;
        let plan = own_slices_for_sorts(make_joins_stoppable(plan, &stop)?)?;
        let params = params.into_inner();
        if let Some((id, _)) = params.iter().find(|(_, cell)| cell.was_asked_while_empty()) {
            return plan_err!("the value of parameter {id} is part of the plan");
        }
        Ok(Self { plan, tables, params, stop })
    }

    /// Gives the plan what a run works on.
    pub fn arm(&self, tables: &Tables, values: &ParamValues, context: &RunContext) -> DfResult<()> {
        for (name, slot) in &self.tables {
            let data =
                tables.get(name).ok_or_else(|| DataFusionError::Internal(format!("table {name} has no rows")))?;
            slot.set(Some(Arc::clone(data)));
        }
        let values = run_values(values);
        for (id, cell) in &self.params {
            let value =
                values.get(id).ok_or_else(|| DataFusionError::Internal(format!("parameter {id} has no value")))?;
            cell.set(Some(value.clone()));
        }
        self.stop.set(Some(context.clone()));
        Ok(())
    }

    /// Ends whatever of a run is still at work on other threads. The plan serves no more: they may hold its operators.
    pub fn halt(&self) {
        self.stop.set(None);
    }

    /// Lets go of a run: its rows and values, and the state of its operators (hash tables, build sides, buffered batches).
    pub fn disarm(self) -> DfResult<Self> {
        self.tables.values().for_each(|slot| slot.set(None));
        self.params.values().for_each(|cell| cell.set(None));
        self.stop.set(None);
        let plan = reset(&self.plan)?;
        Ok(Self { plan, ..self })
    }
}

/// Rewrites every expression of a plan, subqueries included; columns keep their names, and schemas follow the new types.
pub fn rewrite(plan: LogicalPlan, change: &dyn Fn(Expr) -> DfResult<Transformed<Expr>>) -> DfResult<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = expr.transform_up(change)?;
            Ok(if changed.transformed { changed.update_data(|expr| name.restore(expr)) } else { changed })
        })?;
        if !node.transformed {
            // A subquery or an input may have new types even where this node has no changed expression of its own.
            return Ok(Transformed::no(node.data.recompute_schema()?));
        }
        node.map_data(|node| match node {
            // Types of VALUES come from the values; recompute_schema leaves them as they were.
            LogicalPlan::Values(Values { values, .. }) => LogicalPlanBuilder::values(values)?.build(),
            other => other.recompute_schema(),
        })
    })
    .map(|plan| plan.data)
}

fn check_nodes(plan: &LogicalPlan) -> DfResult<()> {
    let mut nodes = 0;
    plan.apply_with_subqueries(|_| {
        nodes += 1;
        Ok(if nodes > MAX_NODES { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if nodes > MAX_NODES {
        return plan_err!("the statement has more than {MAX_NODES} steps");
    }
    Ok(())
}

/// A table known by its columns alone: what the logical plan needs.
#[derive(Debug)]
struct NamedTable {
    schema: SchemaRef,
    is_pruned: bool,
}

impl TableSource for NamedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// A scan that knows the conditions may read less; the rows that it gives are filtered all the same.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let helps = |filter: &Expr| {
            let queries = |expr: &Expr| {
                Ok(matches!(
                    expr,
                    Expr::ScalarSubquery(_)
                        | Expr::InSubquery(_)
                        | Expr::Exists(_)
                        | Expr::SetComparison(_)
                        | Expr::OuterReferenceColumn(..)
                ))
            };
            self.is_pruned && !filter.is_volatile() && !filter.exists(queries).unwrap_or(true)
        };
        let answer = |helps| match helps {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(|filter| answer(helps(filter))).collect())
    }
}

/// Where names in a statement lead: the tables handed in, and DataFusion's own functions.
struct Names<'a> {
    state: &'a SessionState,
    tables: BTreeMap<String, Arc<dyn TableSource>>,
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        if let (TableReference::Bare { table }, Some(source)) = (&name, self.tables.get(name.table())) {
            debug_assert_eq!(&**table, name.table());
            return Ok(Arc::clone(source));
        }
        Err(DataFusionError::Plan(format!(
            "no table \"{name}\"; the tables are {}",
            super::params::listed(self.tables.keys())
        )))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
