//! Both plans of an aggregate answer the same: random tables of every kind of text, and every way in which texts are asked for.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use datafusion::arrow::compute::cast;
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::{collect, displayable};

use futures::{StreamExt, TryStreamExt};

use super::*;
use crate::sql::check::{Source, check};
use crate::sql::memory::Memory;
use crate::sql::plan::{PlanCopy, logical, session};
use crate::sql::scan::{TableData, TableFacts, Tables};
use crate::sql::stop::RunContext;
use crate::sql::zones::ZONE_ROWS;

/// Pseudorandom numbers of a seed (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Short and long ones, the empty one among them, that differ at their ends.
fn text(number: u64) -> String {
    match number % 4 {
        0 if number == 0 => String::new(),
        0 => format!("{number}"),
        1 => format!("a text {number}"),
        2 => format!("a text that is longer than sixteen bytes {number}"),
        _ => format!("{number} comes first, and what follows is the same"),
    }
}

fn texts(draw: &mut Draw, rows: usize, distinct: u64, nulls: bool, data_type: &DataType) -> ArrayRef {
    let text = (0..rows).map(|_| (!nulls || draw.below(6) > 0).then(|| text(draw.below(distinct))));
    cast(&StringArray::from_iter(text), data_type).unwrap()
}

fn facts(draw: &mut Draw, rows: usize, distinct: u64, data_type: &DataType) -> RecordBatch {
    let mut numbers = |below: u64| -> ArrayRef {
        Arc::new((0..rows).map(|_| (draw.below(20) > 0).then(|| draw.below(below) as i64)).collect::<Int64Array>())
    };
    let (k, n) = (numbers(12), numbers(1_000));
    let columns = [
        ("k", k),
        ("n", n),
        ("a", texts(draw, rows, distinct, false, data_type)),
        ("b", texts(draw, rows, 150, true, data_type)),
        ("c", texts(draw, rows, 3, true, data_type)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| (name, values, true))).unwrap()
}

/// Each name once, in some of them one twice.
fn dimension(draw: &mut Draw, data_type: &DataType) -> RecordBatch {
    let mut names: Vec<Option<String>> = (0..draw.below(14)).map(|number| Some(text(number))).collect();
    if draw.below(3) == 0 {
        names.push(None);
    }
    if draw.below(4) == 0 && names.len() > 2 {
        names[0] = names[1].clone();
    }
    let rows = names.len();
    let columns: [(&str, ArrayRef); 3] = [
        ("name", cast(&StringArray::from(names), data_type).unwrap()),
        ("id", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("zone", texts(draw, rows, 4, true, data_type)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| (name, values, true))).unwrap()
}

fn table(batches: Vec<RecordBatch>) -> Arc<TableData> {
    Arc::new(TableData::new(batches[0].schema(), batches).unwrap())
}

fn tables<const N: usize>(named: [(&str, Arc<TableData>); N]) -> Tables {
    named.into_iter().map(|(name, data)| (name.to_owned(), data)).collect()
}

fn planned(state: &SessionState, sql: &str, tables: &Tables, threads: usize) -> PlanCopy {
    let checked = check(sql, Source::Client).unwrap();
    let plan = state.optimize(&logical(state, &checked, tables, &BTreeMap::new()).unwrap()).unwrap();
    let facts = tables.iter().map(|(name, data)| (name.clone(), TableFacts::of(data, threads, true))).collect();
    futures::executor::block_on(PlanCopy::new(state, plan, &facts)).unwrap()
}

fn each_replaced(
    plan: &Arc<dyn ExecutionPlan>,
    replaced: impl Fn(&CodedGroupsExec) -> Arc<dyn ExecutionPlan>,
) -> (Arc<dyn ExecutionPlan>, usize) {
    let mut count = 0;
    let plan = Arc::clone(plan).transform_up(|node| {
        Ok(match node.downcast_ref::<CodedGroupsExec>() {
            Some(both) => {
                count += 1;
                Transformed::yes(replaced(both))
            }
            None => Transformed::no(node),
        })
    });
    (plan.data().unwrap(), count)
}

/// The plan with its texts as numbers alone, and how many there were.
fn coded_half(plan: &Arc<dyn ExecutionPlan>) -> (Arc<dyn ExecutionPlan>, usize) {
    each_replaced(plan, |both| Arc::clone(&both.coded))
}

/// The plan as it is for a run that has been found to be so.
fn taken(plan: &Arc<dyn ExecutionPlan>, is_coded: bool) -> Arc<dyn ExecutionPlan> {
    let is_taken = |both: &CodedGroupsExec| CodedGroupsExec {
        is_coded: OnceLock::from(is_coded),
        ..CodedGroupsExec::new(Arc::clone(&both.general), Arc::clone(&both.coded))
    };
    each_replaced(plan, |both| Arc::new(is_taken(both))).0
}

/// The rows as text, sorted.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let row = |batch: &RecordBatch, row: usize| {
        let value = |column: &ArrayRef| match column.is_null(row) {
            true => "null".to_owned(),
            false => array_value_to_string(column, row).unwrap(),
        };
        batch.columns().iter().map(value).collect::<Vec<_>>().join("|")
    };
    let mut rows: Vec<String> =
        batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|number| row(batch, number))).collect();
    rows.sort();
    rows
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap().block_on(work)
}

/// A statement, and how many of its aggregates have a second plan.
const STATEMENTS: [(&str, usize); 28] = [
    ("select a, count(*) as rows, sum(n) as n from f group by a", 0),
    ("select a, k, count(*) as rows, sum(n) as n from f group by a, k", 1),
    ("select a, b, c, count(*) as rows, min(n) as least from f group by a, b, c", 1),
    ("select c, k, b, sum(n) as n from f group by c, k, b", 1),
    ("select k, count(*) as rows from f group by k", 0),
    ("select b, c, sum(n) as n from f where n >= 300 group by b, c", 1),
    ("select b, c, sum(n) as n from f where n >= 980 or n is null group by b, c", 1),
    ("select a, b, count(*) as rows from f where a > 'a' and b <> c group by a, b", 1),
    ("select a, count(*) as rows from f where n < 0 group by a", 1),
    ("select a, k, min(b) as b, max(c) as c from f group by a, k", 1),
    ("select a, k, min(a) as first, count(*) as rows from f group by a, k", 0),
    ("select upper(a) as a, count(*) as rows from f group by upper(a)", 0),
    ("select upper(a) as a, k, count(*) as rows from f group by a, k having count(*) > 2", 1),
    ("select zone, b, sum(n) as n from f join d on a = name group by zone, b", 1),
    (
        "select zone, c, count(*) as rows, sum(n * k) as n from f join d on f.a = d.name where n >= 100 group by zone, c",
        1,
    ),
    ("select name, c, count(*) as rows from f join d on a = name group by name, c", 1),
    ("select a, zone, count(*) as rows from f join d on a = name group by a, zone", 1),
    ("select a, name, count(*) as rows from f join d on a = name group by a, name", 0),
    ("select zone, a, count(*) as rows from f left join d on b = name group by zone, a", 1),
    ("select zone, b, count(*) as rows, sum(n) as n from f join d on k = id group by zone, b", 1),
    ("select zone, count(*) as rows, max(a) as most from f join d on a = name group by zone", 1),
    ("select zone, b, count(*) as rows from f join d on a || '' = name group by zone, b", 1),
    ("select a, count(distinct b) as different from f group by a", 1),
    ("select a, c, first_value(n order by n, k) as first from f group by a, c", 0),
    ("select a, c, count(*) as rows from (select * from f where n > 100 union all select * from f) u group by a, c", 0),
    ("select distinct a, c from f", 1),
    ("select zone, sum(s) as s from (select a, sum(n) as s from f group by a) o join d on a = name group by zone", 1),
    (
        "select d.zone, e.zone as other, count(*) as rows from f join d on a = d.name join d e on b = e.name \
      group by d.zone, e.zone",
        1,
    ),
];

#[test]
fn both_plans_answer_the_same() {
    let mut draw = Draw(0x1234_5678_9abc_def1);
    let types = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View];
    for round in 0..40 {
        let memory = Memory::new(64 << 20, None).unwrap();
        let threads = 1 + round % 2;
        let state = session(&memory, threads, 3);
        let data_type = &types[draw.below(3) as usize];
        let distinct = [1, 5, 30, 4_000][draw.below(4) as usize];
        let most = [1, 50, 2_000][draw.below(3) as usize];
        let batches: Vec<RecordBatch> = (0..1 + draw.below(4))
            .map(|_| {
                let rows = draw.below(most + 1) as usize;
                facts(&mut draw, rows, distinct, data_type)
            })
            .collect();
        let tables = tables([("f", table(batches)), ("d", table(vec![dimension(&mut draw, data_type)]))]);
        for (sql, expected) in STATEMENTS {
            let mut copy = planned(&state, sql, &tables, threads);
            let (_, count) = coded_half(&copy.plan);
            let shown = displayable(copy.plan.as_ref()).indent(false).to_string();
            assert_eq!(count, expected, "round {round}: {sql}\n{shown}");
            let mut answer = None;
            for is_coded in [false, true, true, false, true] {
                copy.plan = taken(&copy.plan, is_coded);
                copy.arm(&tables, &BTreeMap::new(), &RunContext::default()).unwrap();
                let batches = run(collect(Arc::clone(&copy.plan), state.task_ctx())).unwrap();
                assert!(batches.iter().all(|batch| batch.schema() == copy.plan.schema()), "{sql}");
                let found = rows(&batches);
                assert_eq!(&found, answer.get_or_insert_with(|| found.clone()), "round {round}: {sql}\n{shown}");
                drop(batches);
                copy = copy.disarm().unwrap();
                assert_eq!(memory.environment.memory_pool.reserved(), 0, "{sql}");
            }
        }
    }
}

#[test]
fn a_text_is_looked_up_where_it_is_read_and_not_again() {
    let memory = Memory::new(64 << 20, None).unwrap();
    let state = session(&memory, 2, 3);
    let mut draw = Draw(7);
    let tables = tables([
        ("f", table(vec![facts(&mut draw, 5_000, 8, &DataType::Utf8)])),
        ("d", table(vec![dimension(&mut draw, &DataType::Utf8)])),
    ]);
    let sql = "select zone, c, sum(n) as n from f join d on a = name where n >= 100 group by zone, c order by n";
    let copy = planned(&state, sql, &tables, 2);
    let shown = displayable(coded_half(&copy.plan).0.as_ref()).indent(false).to_string();
    for part in [
        "NameExec: [zone, c]",
        "by=[#group@",
        "NumberExec: by=[zone, c]",
        "LookupJoinExec: Inner, on=[(name@0, a@",
        "CodeExec: [name, zone]",
        "CodeExec: [a, c], filter=n@0 >= 100",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(!shown.contains("FilterExec"), "{shown}");
}

/// Statements of many joins are looked through once, whether their texts are a table's or not.
#[test]
fn the_time_to_plan_does_not_double_with_each_join() {
    let memory = Memory::new(64 << 20, None).unwrap();
    let state = session(&memory, 1, 1);
    let mut draw = Draw(11);
    let f = table(vec![facts(&mut draw, 300, 8, &DataType::Utf8)]);
    let tables = tables([("f", Arc::clone(&f)), ("g", f), ("d", table(vec![dimension(&mut draw, &DataType::Utf8)]))]);
    for (from, key, expected) in [
        ("(select a, b, k from f union all select a, b, k from g)", "k = d{}.id", 0),
        ("(select a, b, k from f union all select a, b, k from g)", "b = d{}.name", 0),
        ("f", "k = d{}.id", 1),
        ("f", "b = d{}.name", 1),
    ] {
        let join = |number: usize| format!(" join d d{number} on u.{}", key.replace("{}", &number.to_string()));
        let joins: String = (0..30).map(join).collect();
        let sql = format!("select u.a, d3.zone, count(*) as rows from {from} u{joins} group by u.a, d3.zone");
        let copy = planned(&state, &sql, &tables, 1);
        assert_eq!(coded_half(&copy.plan).1, expected, "{sql}");
    }
}

/// Whoever is still at work on a run has nothing in common with the next one; the operators of one run have.
#[test]
fn each_run_has_numbers_of_its_own() {
    let memory = Memory::new(64 << 20, None).unwrap();
    let state = session(&memory, 1, 3);
    let mut draw = Draw(5);
    let tables = tables([
        ("f", table(vec![facts(&mut draw, 5_000, 8, &DataType::Utf8)])),
        ("d", table(vec![dimension(&mut draw, &DataType::Utf8)])),
    ]);
    let sql = "select zone, c, count(*) as rows from f join d on a = name group by zone, c";
    let copy = planned(&state, sql, &tables, 1);
    let (plan, _) = coded_half(&copy.plan);
    let next = renew(&plan, &mut Renewed::default()).unwrap();
    copy.arm(&tables, &BTreeMap::new(), &RunContext::default()).unwrap();
    // The former run begins while the next one has its rows, and ends after it.
    run(async {
        let execute = |plan: &Arc<dyn ExecutionPlan>| {
            datafusion::physical_plan::execute_stream(Arc::clone(plan), state.task_ctx()).unwrap()
        };
        let mut later = execute(&next);
        let first = later.next().await.unwrap().unwrap();
        let former: Vec<RecordBatch> = execute(&plan).try_collect().await.unwrap();
        let rest: Vec<RecordBatch> = later.try_collect().await.unwrap();
        let answer: Vec<RecordBatch> = [first].into_iter().chain(rest).collect();
        assert!(rows(&answer).len() > 5);
        assert_eq!(rows(&answer), rows(&former));
    });
    let shared = |plan: &Arc<dyn ExecutionPlan>| {
        let (mut codes, mut groups) = (Vec::new(), Vec::new());
        plan.apply(|node| {
            codes.extend(node.downcast_ref::<CodeExec>().into_iter().flat_map(CodeExec::codes));
            groups.extend(node.downcast_ref::<number::NumberExec>().map(number::NumberExec::groups));
            groups.extend(node.downcast_ref::<name::NameExec>().map(name::NameExec::groups));
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        (codes, groups)
    };
    let (former, next) = (shared(&plan), shared(&next));
    let distinct = |codes: &[usize]| codes.iter().collect::<std::collections::BTreeSet<_>>().len();
    // Both sides of the key have one; the two groups, one each.
    assert_eq!((former.0.len(), distinct(&former.0)), (4, 3));
    assert_eq!((next.0.len(), distinct(&next.0)), (4, 3));
    assert_eq!((distinct(&former.1), distinct(&next.1)), (1, 1));
    assert!(former.0.iter().all(|codes| !next.0.contains(codes)) && former.1[0] != next.1[0]);
}

/// The same plan serves runs whose texts come again and runs whose texts do not, and neither of its halves knows in the next
/// run what a condition left of the table in the one before.
#[test]
fn each_run_takes_the_plan_that_its_texts_ask_for() {
    const ROWS: usize = 5 * ZONE_ROWS;
    let memory = Memory::new(64 << 20, None).unwrap();
    let state = session(&memory, 1, 3);
    let tables = |distinct: u64, wanted_from: usize| -> Tables {
        let mut draw = Draw(distinct);
        let wanted: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (0..ROWS).map(|row| i64::from((wanted_from..wanted_from + 5_000).contains(&row))),
        ));
        let a = texts(&mut draw, ROWS, distinct, false, &DataType::Utf8);
        let batch = RecordBatch::try_from_iter([("a", a), ("wanted", wanted)]).unwrap();
        let data = TableData::new(batch.schema(), vec![batch]).unwrap().with_zones();
        [("f".to_owned(), Arc::new(data))].into_iter().collect()
    };
    let sql = "select a, count(*) as rows from f where wanted = 1 group by a";
    let mut copy = planned(&state, sql, &tables(5, 0), 1);
    let runs = [
        (5, 0, true),
        (40, ROWS / 2, true),
        (1_000_000, 0, false),
        (7, ROWS - 5_000, true),
        (1_000_000, ROWS / 2, false),
    ];
    for (distinct, wanted_from, is_coded) in runs {
        copy.arm(&tables(distinct, wanted_from), &BTreeMap::new(), &RunContext::default()).unwrap();
        let answer = run(collect(Arc::clone(&copy.plan), state.task_ctx())).unwrap();
        let counted: i64 =
            answer.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec()).sum();
        assert_eq!(counted, 5_000, "of {distinct} from {wanted_from}");
        let mut taken = Vec::new();
        copy.plan
            .apply(|node| {
                taken.extend(node.downcast_ref::<CodedGroupsExec>().map(|both| both.is_coded.get().copied()));
                Ok(TreeNodeRecursion::Continue)
            })
            .unwrap();
        assert_eq!(taken, [Some(is_coded)], "{distinct}");
        copy = copy.disarm().unwrap();
    }
}

/// More texts than a look at some of them has shown are an error where there is no memory for them, and nothing stays behind.
#[test]
fn texts_beyond_the_memory_are_an_error() {
    let memory = Memory::new(1 << 20, None).unwrap();
    let state = session(&memory, 1, 3);
    let texts =
        (0..40_000).map(|row| if row % 10 < 7 { "the same".to_owned() } else { format!("{} {row}", "x".repeat(90)) });
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let data = table(vec![RecordBatch::try_from_iter([("a", column)]).unwrap()]);
    let tables: Tables = [("f".to_owned(), data)].into_iter().collect();
    let copy = planned(&state, "select a, count(*) as rows from f where a is not null group by a", &tables, 1);
    copy.arm(&tables, &BTreeMap::new(), &RunContext::default()).unwrap();
    let error = run(collect(Arc::clone(&copy.plan), state.task_ctx())).unwrap_err();
    assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    drop(copy.disarm().unwrap());
    assert_eq!(memory.environment.memory_pool.reserved(), 0);
}
