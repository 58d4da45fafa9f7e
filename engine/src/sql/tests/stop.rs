//! Deadlines, cancelling and bounds.

use datafusion::common::DataFusionError;

use super::*;
use crate::cancel::CancelToken;
use crate::sql::check::{Source, check};
use crate::sql::memory::Memory;
use crate::sql::plan::{logical, session};
use crate::sql::run::AnswerLimits;
use crate::sql::scan::{TableData, Tables};
use crate::sql::stop::planning;

/// A statement that works for minutes, in joins that give nothing or much.
const ENDLESS: [&str; 7] = [
    "select count(*) as n from t l join t r on l.a * r.a + 1 < l.b - 100000000000",
    "select count(*) as n from t l, t m, t r where l.a + m.a > r.b + 1000000000",
    "select count(*) as n from t l join t r on l.b % 2 = r.b % 2 and l.a + r.a < 0",
    "select count(*) as n from t where a % 2 in (select b % 2 from t)",
    "select count(*) as n from t l where exists (select 1 from t r where r.a % 2 = l.b % 2)",
    "select count(*) as n from t l where not exists (select 1 from t r where r.a % 2 = l.b % 2)",
    "select count(*) as n from t l where exists (select 1 from t r where r.a >= 0)",
];

#[test]
fn a_deadline_ends_joins_that_would_run_for_minutes() {
    let engine = engine();
    for sql in ENDLESS {
        let start = Instant::now();
        let context = RunContext { deadline: Some(start + Duration::from_millis(300)), ..RunContext::default() };
        let failure = engine.query(sql, vec![many()], &Map::new(), &context).unwrap_err();
        assert_eq!(failure.outcome, Outcome::Timeout, "{sql}: {}", failure.message);
        assert!(start.elapsed() < Duration::from_secs(10), "{sql}: {:?}", start.elapsed());
    }
}

#[test]
fn cancelling_ends_a_run_wherever_it_works_and_the_entry_serves_on() {
    let engine = engine();
    for sql in ENDLESS {
        let entry = engine.prepare(spec("e", sql, &["t"], &[])).unwrap();
        let small = || vec![table("t", vec![("a", ints(0..3)), ("b", ints(0..3))])];
        let first = rows(&entry.run(small(), &Map::new(), &RunContext::default()).unwrap());
        let cancel = CancelToken::new();
        let context = RunContext { cancel: cancel.clone(), ..RunContext::default() };
        let input = many();
        let buffer = input.batches[0].column(0).as_primitive::<Int64Type>().values().inner().clone();
        let at_rest = buffer.strong_count();
        let start = Instant::now();
        let answer = std::thread::scope(|scope| {
            let running = scope.spawn(|| entry.run(vec![input], &Map::new(), &context));
            // More owners of the column than before: a scan has handed out slices. That may be over by the time this
            // thread looks (a join works on copies), so it looks for a while only; every moment is good for cancelling.
            while buffer.strong_count() <= at_rest && start.elapsed() < Duration::from_millis(300) {
                std::thread::yield_now();
            }
            cancel.cancel();
            running.join().unwrap()
        });
        assert_eq!(answer.unwrap_err().outcome, Outcome::Cancelled, "{sql}");
        // Also the parts of the run on other threads let go of the rows.
        while buffer.strong_count() > 1 {
            assert!(start.elapsed() < Duration::from_secs(20), "{sql}: {} owners", buffer.strong_count());
            std::thread::yield_now();
        }
        assert_eq!(rows(&entry.run(small(), &Map::new(), &RunContext::default()).unwrap()), first);
    }
}

#[test]
fn a_request_that_is_over_before_it_starts_is_not_run() {
    let engine = engine();
    let entry = summary(&engine);
    let (table, _) = orders(3, 1, 0.0, 1);
    let context = RunContext { deadline: Some(Instant::now()), ..RunContext::default() };
    let failure = entry.run(vec![table], &params(json!({"min": 0, "factor": 1})), &context).unwrap_err();
    assert_eq!(failure.outcome, Outcome::Timeout);
}

#[test]
fn an_answer_and_the_memory_behind_it_are_bounded() {
    let limits = SqlLimits {
        threads: 2,
        memory_bytes: 4 << 20,
        answer: AnswerLimits { rows: 1_000, bytes: 4_000 },
        spill: None,
    };
    let engine = SqlEngine::new(limits).unwrap();
    let ask = |sql: &str| engine.query(sql, vec![many()], &Map::new(), &RunContext::default());
    for (sql, expected) in [
        ("select true as x from t", "more than 1000 rows"),
        ("select a, b from t limit 900", "more than 4000 bytes"),
        ("select a, count(*) as n from t group by a order by n limit 1", "memory for SQL is used up"),
    ] {
        let failure = ask(sql).unwrap_err();
        assert_eq!(failure.outcome, Outcome::Internal, "{sql}");
        assert!(failure.message.contains(expected), "{sql}: {}", failure.message);
    }
    // A slice of a large table counts as what it is, not as the table.
    assert_eq!(ask("select a from t limit 400").unwrap().rows(), 400);
}

#[test]
fn the_optimiser_ends_with_the_run_that_it_plans_for() {
    let memory = Memory::new(1 << 20, None).unwrap();
    let state = session(&memory, 1, 1);
    let data = TableData::new(many().schema, many().batches).unwrap();
    let tables = Tables::from([("t".to_owned(), Arc::new(data))]);
    let checked = check("select a from t where b > 1 + 1", Source::Client).unwrap();
    let plan = logical(&state, &checked, &tables, &BTreeMap::new()).unwrap();
    let over = RunContext { deadline: Some(Instant::now()), ..RunContext::default() };
    let error = planning(&over, || state.optimize(&plan)).unwrap_err();
    let DataFusionError::External(source) = error.find_root() else { panic!("{error}") };
    assert_eq!(source.downcast_ref::<Stopped>(), Some(&Stopped::Deadline));
    // What this thread plans next is for somebody else, also after a panic.
    assert!(state.optimize(&plan).is_ok());
    let panicked = std::panic::catch_unwind(|| planning(&over, || panic!("a rule of the optimiser")));
    assert!(panicked.is_err() && state.optimize(&plan).is_ok());
    let cancel = CancelToken::new();
    cancel.cancel();
    let cancelled = RunContext { cancel, ..RunContext::default() };
    assert!(planning(&cancelled, || state.optimize(&plan)).is_err());
}
