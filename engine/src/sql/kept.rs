//! Plans that are kept between requests.
//!
//! A statement is planned once per form of its tables: their columns and the magnitude of their sizes (which decides join
//! sides and the number of threads). The physical plan stays, and a run only puts rows and parameter values into it. A copy
//! serves one run at a time, so a form keeps as many as ran at once.
//!
//! Parameters are read from cells in each run, so new values need no new plan. Where DataFusion wants a value while it
//! plans (LIMIT $n, lag(x, $n)), the form falls back to plans that hold their values: one per set of values, the most recent
//! ones kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use datafusion::common::Result as DfResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;

use super::params::ParamValues;
use super::plan::{PlanCopy, is_clock, run_values, with_values};
use super::scan::{TableFacts, Tables};

/// Forms kept per statement.
const MAX_FORMS: usize = 16;
/// Idle plans kept per form.
const MAX_IDLE: usize = 16;

/// How large tables are, roughly: equal classes share a plan. Below 4,096 rows all are alike, then each class is 16 times
/// the one before.
pub fn size_class(rows: usize) -> u32 {
    (rows.max(1).ilog2() / 4).saturating_sub(2)
}

/// The forms of one statement, the most recently used first.
#[derive(Debug, Default)]
pub struct KeptPlans {
    forms: Mutex<Vec<Arc<Form>>>,
}

impl KeptPlans {
    /// The form made for tables like these, if there is one.
    pub fn find(&self, tables: &Tables) -> Option<Arc<Form>> {
        let mut forms = self.forms.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = forms.iter().position(|form| form.fits(tables))?;
        forms[..=at].rotate_right(1);
        Some(Arc::clone(&forms[0]))
    }

    /// Keeps a form made for tables like these, and gives the one to use; the one unused for longest may go. Where another
    /// thread was quicker that is its form: plans are made once.
    pub fn keep(&self, form: Form, tables: &Tables) -> Arc<Form> {
        let mut forms = self.forms.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(known) = forms.iter().find(|known| known.fits(tables)) {
            return Arc::clone(known);
        }
        let form = Arc::new(form);
        forms.insert(0, Arc::clone(&form));
        forms.truncate(MAX_FORMS);
        form
    }
}

/// A statement planned for one form of its tables.
#[derive(Debug)]
pub struct Form {
    facts: BTreeMap<String, TableFacts>,
    classes: BTreeMap<String, u32>,
    /// Before optimising, parameters open: where plans that hold their values start from.
    logical: LogicalPlan,
    /// Optimised with open parameters; `None`: values must be known to plan.
    open: Option<LogicalPlan>,
    /// The statement asks for the time: a plan that holds its values holds the time too, and serves once.
    asks_time: bool,
    /// Plans at rest, the most recently used last, with the values that they hold (none where cells are read).
    idle: Mutex<Vec<(ParamValues, PlanCopy)>>,
}

impl Form {
    /// Plans `logical` for tables like `tables`. `facts` are what the planner is told about them.
    pub async fn new(
        state: &SessionState,
        logical: LogicalPlan,
        tables: &Tables,
        facts: BTreeMap<String, TableFacts>,
    ) -> DfResult<Self> {
        let classes = tables.iter().map(|(name, data)| (name.clone(), size_class(data.rows))).collect();
        let asks_time = logical.get_parameter_names()?.iter().any(|id| is_clock(id));
        let mut form = Self { facts, classes, logical, open: None, asks_time, idle: Mutex::default() };
        // A statement that only plans with its values is not wrong; whatever is wrong with it comes again with them.
        if let Ok(optimised) = state.optimize(&form.logical)
            && let Ok(copy) = PlanCopy::new(state, optimised.clone(), &form.facts).await
        {
            form.open = Some(optimised);
            form.idle = Mutex::new(vec![(ParamValues::new(), copy)]);
        }
        Ok(form)
    }

    fn fits(&self, tables: &Tables) -> bool {
        self.facts.len() == tables.len()
            && tables.iter().all(|(name, data)| {
                self.classes.get(name) == Some(&size_class(data.rows))
                    && self.facts.get(name).is_some_and(|facts| facts.schema.fields() == data.schema.fields())
            })
    }

    /// A plan for these values, from those at rest.
    pub fn take(&self, values: &ParamValues) -> Option<PlanCopy> {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = match self.open {
            Some(_) => idle.len().checked_sub(1)?,
            None => idle.iter().rposition(|(held, _)| held == values)?,
        };
        Some(idle.remove(at).1)
    }

    /// A new plan for these values.
    pub async fn plan(&self, state: &SessionState, values: &ParamValues) -> DfResult<PlanCopy> {
        let optimised = match &self.open {
            Some(optimised) => optimised.clone(),
            None => state.optimize(&with_values(self.logical.clone(), &run_values(values))?)?,
        };
        PlanCopy::new(state, optimised, &self.facts).await
    }

    /// Puts a plan to rest after a run that gave its answer: rows, values and operators' state are let go.
    pub fn give_back(&self, copy: PlanCopy, values: ParamValues) {
        let values = match self.open {
            Some(_) => ParamValues::new(),
            None if self.asks_time => return,
            None => values,
        };
        let Ok(copy) = copy.disarm() else { return };
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        idle.push((values, copy));
        if idle.len() > MAX_IDLE {
            idle.remove(0);
        }
    }
}
