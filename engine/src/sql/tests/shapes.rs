//! What plans look like where it decides how long they take.

use datafusion::physical_plan::displayable;

use super::*;
use crate::sql::check::{Source, check};
use crate::sql::memory::Memory;
use crate::sql::plan::{PlanCopy, logical, session};
use crate::sql::scan::{TableData, TableFacts, Tables};

/// The physical plan of a statement over tables that two threads scan.
fn shape(sql: &str, tables: Vec<InputTable>) -> String {
    let memory = Memory::new(1 << 20, None).unwrap();
    let state = session(&memory, 2, 3);
    let tables: Tables = tables
        .into_iter()
        .map(|table| (table.name, Arc::new(TableData::new(table.schema, table.batches).unwrap())))
        .collect();
    let checked = check(sql, Source::Client).unwrap();
    let plan = state.optimize(&logical(&state, &checked, &tables, &BTreeMap::new()).unwrap()).unwrap();
    let facts = tables.iter().map(|(name, data)| (name.clone(), TableFacts::of(data, 2, true))).collect();
    let copy = futures::executor::block_on(PlanCopy::new(&state, plan, &facts)).unwrap();
    displayable(copy.plan.as_ref()).indent(false).to_string()
}

#[test]
fn a_dimension_of_some_megabytes_is_collected_and_the_larger_side_stays_where_it_is() {
    let dimension = |rows: i64| {
        let columns = ["k", "a", "b", "c"].map(|name| (name, ints(0..rows)));
        let names: Vec<String> = (0..rows).map(|row| format!("n{row}")).collect();
        table("d", columns.into_iter().chain([("name", words(names.iter().map(String::as_str)))]).collect())
    };
    let facts = |rows: i64| {
        let names: Vec<String> = (0..rows).map(|row| format!("n{}", row % 1_000)).collect();
        table("f", vec![("k", ints(0..rows)), ("name", words(names.iter().map(String::as_str)))])
    };
    for (condition, kind) in [("f.k = d.k", "inner"), ("f.k = d.k", "left"), ("f.name = d.name", "inner")] {
        let sql =
            format!("select count(*) as n, sum(d.a) + sum(d.b) + sum(d.c) as s from f {kind} join d on {condition}");
        let plan = shape(&sql, vec![facts(300_000), dimension(60_000)]);
        assert!(plan.contains("LookupJoinExec") && !plan.contains("Hash("), "{sql}\n{plan}");
        // Sides of about one size are dealt out to the threads by their keys.
        let plan = shape(&sql, vec![facts(1_500_000), dimension(500_000)]);
        assert!(plan.contains("Hash("), "{sql}\n{plan}");
    }
}
