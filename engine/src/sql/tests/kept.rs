//! Plans that are kept: made once, right every time.

use super::*;

#[test]
fn the_planner_runs_once_and_answers_stay_right_over_2000_runs_of_changing_rows_and_values() {
    let engine = engine();
    let entry = summary(&engine);
    let context = RunContext::default();
    for run in 0..2_000_u64 {
        let (min, factor) = ((run * 37 % 1000) as f64, (run % 5) as i64 - 2);
        let (table, expected) = orders(1 + (run as usize * 53) % 3_000, run, min, factor);
        let answer = entry.run(vec![table], &params(json!({"min": min, "factor": factor})), &context).unwrap();
        assert_eq!(answer.plans, u32::from(run == 0), "run {run}");
        assert_eq!(rows(&answer), expected, "run {run}");
    }
    assert_eq!(engine.planner_runs(), 1);
}

#[test]
fn plans_are_kept_over_all_threads_too() {
    let engine = engine();
    let entry = summary(&engine);
    for run in 0..20 {
        let (table, expected) = orders(100_000 + run * 1_000, run as u64, 500.0, 1);
        let answer = entry.run(vec![table], &params(json!({"min": 500, "factor": 1})), &RunContext::default()).unwrap();
        assert_eq!((answer.plans, rows(&answer)), (u32::from(run == 0), expected), "run {run}");
    }
    assert_eq!(engine.planner_runs(), 1);
}

#[test]
fn threads_that_run_one_entry_at_once_do_not_meet_in_one_plan() {
    let engine = engine();
    let entry = summary(&engine);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let entry = &entry;
            scope.spawn(move || {
                for run in 0..200 {
                    let min = (thread * 200) as f64;
                    let (table, expected) = orders(500, thread * 1_000 + run, min, thread as i64);
                    let given = params(json!({"min": min, "factor": thread}));
                    assert_eq!(rows(&entry.run(vec![table], &given, &RunContext::default()).unwrap()), expected);
                }
            });
        }
    });
    assert!(engine.planner_runs() <= 8, "{} plans for 4 threads", engine.planner_runs());
}

#[test]
fn every_kind_of_operator_gives_the_same_answer_from_a_kept_plan_as_from_a_new_one() {
    let engine = engine();
    for (index, sql) in [
        "select count(*) as n, count(b) as m, min(a) as lo, max(a) as hi from t",
        "select a, b from t where a > $x order by b desc, a limit 5",
        "select distinct b % 3 as r from t order by r",
        "select a, row_number() over (partition by b % 2 order by a, b) as n, sum(b) over (order by a, b) as s from t order by a, b",
        "select (select max(b) from t where a < $x) as top, count(*) as n from t where b >= (select avg(b) from t)",
        "select l.a, r.b from t l left join t r on l.a = r.b and l.b > r.a + $x order by l.a, r.b",
        "select count(*) as n from t l join t r on l.a < r.b and l.b > $x",
        "select count(*) as n from t l, t r where l.a + r.a > $x",
        "select a from t where a in (select b from t where b > $x) union all select -1 order by a",
        "select a from t where exists (select 1 from t u where u.b = t.a and u.a > $x) order by a",
        "with w as (select a % 5 as k, sum(b) as s from t group by 1) select k, s, $x as x from w where s > $x order by k",
        "select b % 4 as k, array_agg(a order by a) as items, approx_percentile_cont(b, 0.5) as p from t group by 1 order by 1",
        "select case when a > $x then 'big' when a is null then null else 'small' end as size, count(*) as n from t group by 1 order by 1",
        "select a from t where a between $x and $x + 10 or cast(a as varchar) like '1%' order by a",
        "select a from t where a in ($x, $x + 1, $x + 2, $x + 3, $x + 4) order by a",
        "select a, b from t order by a, b limit $x",
        "select approx_percentile_cont(b, $x / 20.0) as p from t",
        "select a, lag(a, $x) over (order by a, b) as before from t order by a, b",
        "select a from t except select b from t where b < $x order by a",
        "select column1 + $x as y from (values (1), (2)) order by y",
        "select round(avg(a), 3) as m, stddev(b) as d from t having count(*) > $x",
        "select a, unnest([b, $x]) as u from t order by a, u limit 20",
    ]
    .into_iter()
    .enumerate()
    {
        let types: &[(&str, ParamType)] = if sql.contains("$x") { &[("x", ParamType::Int64)] } else { &[] };
        let entry = engine.prepare(spec("entry", sql, &["t"], types)).unwrap_or_else(|error| panic!("{sql}: {error}"));
        for run in 0..6_i64 {
            let size = [40, 0, 7, 200, 40, 1][run as usize];
            let rows_of = || vec![table("t", vec![("a", ints((0..size).map(|i| (i * 7 + run) % 50))), ("b", ints((0..size).map(|i| (i * i + run) % 23)))])];
            let given = if types.is_empty() { json!({}) } else { json!({"x": run * 3}) };
            let kept = entry.run(rows_of(), &params(given.clone()), &RunContext::default());
            let fresh = engine.query(sql, rows_of(), &params(given), &RunContext::default());
            let (kept, fresh) = (kept.unwrap_or_else(|error| panic!("{sql}: {}", error.message)), fresh.unwrap());
            assert_eq!(rows(&kept), rows(&fresh), "statement {index}, run {run}: {sql}");
            let needs_values = sql.contains("limit $x") || sql.contains("lag(a, $x)");
            assert_eq!(kept.plans > 0, run == 0 || needs_values, "statement {index}, run {run}: {sql}");
        }
    }
}

#[test]
fn plans_that_hold_their_values_are_kept_per_value() {
    let engine = engine();
    let entry = engine
        .prepare(spec("first", "select a from t order by a limit $n", &["t"], &[("n", ParamType::Int64)]))
        .unwrap();
    for (n, planned) in [(1, true), (2, true), (1, false), (2, false), (1, false)] {
        let answer = entry
            .run(vec![table("t", vec![("a", ints(0..9))])], &params(json!({"n": n})), &RunContext::default())
            .unwrap();
        assert_eq!((answer.rows(), answer.plans > 0), (n, planned));
    }
}

#[test]
fn the_clock_goes_on_in_a_kept_plan() {
    let engine = engine();
    let entry = engine
        .prepare(spec(
            "now",
            "select now() as t, current_date as d, a from t where now() > timestamp '2020-01-01'",
            &["t"],
            &[],
        ))
        .unwrap();
    let ask = || {
        let answer = entry.run(vec![table("t", vec![("a", ints([1]))])], &Map::new(), &RunContext::default()).unwrap();
        let row = rows(&answer)[0].clone();
        (answer.plans > 0, row["t"].as_str().unwrap().to_string(), row["d"].as_str().unwrap().to_string())
    };
    let (first, second) = (ask(), ask());
    assert!(first.0 && !second.0);
    assert!(first.1 < second.1 && second.1.starts_with(&second.2), "{first:?} {second:?}");
}

#[test]
fn a_kept_plan_holds_no_rows_between_runs() {
    let engine = engine();
    let entry = summary(&engine);
    let (table, _) = orders(100, 1, 0.0, 1);
    let column = Arc::downgrade(table.batches[0].column(1));
    entry.run(vec![table], &params(json!({"min": 0, "factor": 1})), &RunContext::default()).unwrap();
    assert_eq!(column.strong_count(), 0);
}

#[test]
fn an_answer_of_whole_columns_is_the_input_itself() {
    let engine = engine();
    let entry = engine.prepare(spec("all", "select a from t", &["t"], &[])).unwrap();
    let input = table("t", vec![("a", ints(0..1_000))]);
    let start = input.batches[0].column(0).as_primitive::<Int64Type>().values().as_ptr();
    let answer = entry.run(vec![input], &Map::new(), &RunContext::default()).unwrap();
    assert_eq!(answer.batches[0].column(0).as_primitive::<Int64Type>().values().as_ptr(), start);
}

/// Not a check of speed: prints what keeping plans saves, for `cargo test --release kept_plans_save -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn kept_plans_save_planning() {
    let engine = engine();
    let entry = summary(&engine);
    let sql = entry.spec().sql.clone();
    let (input, _) = orders(10_000, 7, 500.0, 1);
    let given = params(json!({"min": 500, "factor": 1}));
    let context = RunContext::default();
    let median = |mut run: Box<dyn FnMut() + '_>| {
        let mut times: Vec<Duration> = (0..2_000)
            .map(|_| {
                let start = Instant::now();
                run();
                start.elapsed()
            })
            .collect();
        times.sort();
        (times[1_000], times[1_980])
    };
    let kept = median(Box::new(|| drop(entry.run(vec![input.clone()], &given, &context).unwrap())));
    let fresh = median(Box::new(|| drop(engine.query(&sql, vec![input.clone()], &given, &context).unwrap())));
    println!("10,000 rows: kept plan {kept:?}, planned each time {fresh:?} (median, p99)");
}
