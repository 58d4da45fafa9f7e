//! What the operators of one plan share in a run, and what they share in the next: nothing of the run before, which some
//! thread may still be at work on when its answer is complete.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;

use super::code::CodeExec;
use super::codes::Codes;
use super::name::NameExec;
use super::number::{Groups, NumberExec};

/// What stands for what was shared in the run before.
#[derive(Default)]
pub struct Renewed {
    codes: Vec<(Arc<Codes>, Arc<Codes>)>,
    groups: Vec<(Arc<Groups>, Arc<Groups>)>,
}

impl Renewed {
    /// Numbers for the same texts, of which none is known yet.
    pub fn codes(&mut self, former: &Arc<Codes>) -> Arc<Codes> {
        instead(&mut self.codes, former, |_| Codes::default())
    }

    /// Groups by the same columns, of which none is known yet.
    pub fn groups(&mut self, former: &Arc<Groups>) -> Arc<Groups> {
        instead(&mut self.groups, former, Groups::renewed)
    }
}

fn instead<T>(known: &mut Vec<(Arc<T>, Arc<T>)>, former: &Arc<T>, make: impl FnOnce(&T) -> T) -> Arc<T> {
    if let Some((_, new)) = known.iter().find(|(old, _)| Arc::ptr_eq(old, former)) {
        return Arc::clone(new);
    }
    let new = Arc::new(make(former));
    known.push((Arc::clone(former), Arc::clone(&new)));
    new
}

/// A plan by numbers for another run.
pub fn renew(plan: &Arc<dyn ExecutionPlan>, renewed: &mut Renewed) -> DfResult<Arc<dyn ExecutionPlan>> {
    let mut children = Vec::with_capacity(plan.children().len());
    for child in plan.children() {
        children.push(renew(child, renewed)?);
    }
    if let Some(code) = plan.downcast_ref::<CodeExec>() {
        return Ok(Arc::new(code.renewed(children.swap_remove(0), renewed)));
    }
    if let Some(number) = plan.downcast_ref::<NumberExec>() {
        return Ok(Arc::new(number.renewed(children.swap_remove(0), renewed)));
    }
    if let Some(name) = plan.downcast_ref::<NameExec>() {
        return Ok(Arc::new(name.renewed(children.swap_remove(0), renewed)));
    }
    replace_children_if_necessary(Arc::clone(plan), children)?.reset_state()
}
