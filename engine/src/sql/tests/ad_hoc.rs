//! Ad-hoc queries: what they may, and how large they may be.

use super::*;

#[test]
fn ad_hoc_queries_read_what_they_are_given_and_nothing_else() {
    let engine = engine();
    engine.put_table("own", many().schema, many().batches).unwrap();
    let ask = |sql: &str, given: Value| {
        engine.query(sql, vec![table("t", vec![("a", ints([1, 2, 3]))])], &params(given), &RunContext::default())
    };
    let answer =
        ask("select t.a, own.b from t join own on t.a = own.a where t.a >= $min order by 1", json!({"min": 2}))
            .unwrap();
    assert_eq!(rows(&answer), json!([{"a": 2, "b": 2}, {"a": 3, "b": 3}]));
    assert_eq!(answer.plans, 1);
    for sql in [
        "select * from information_schema.tables",
        "select * from '/etc/passwd'",
        "select * from \"/etc/passwd.csv\"",
        "select * from other",
        "select @@version",
        "create table x as select 1",
        "set datafusion.execution.batch_size = 1",
        "copy t to '/tmp/molt-must-not-exist.csv'",
        "explain analyze select 1",
        "select nofunction(1)",
        "select nothing from t",
        "select 1 from t where a = $missing",
    ] {
        assert_eq!(ask(sql, json!({})).expect_err(sql).outcome, Outcome::InvalidInput, "{sql}");
    }
    assert!(!std::path::Path::new("/tmp/molt-must-not-exist.csv").exists());
    let failure = ask("select 1 from t", json!({"min": 2})).unwrap_err();
    assert!(failure.message.contains("\"min\" is not used"), "{}", failure.message);
}

#[test]
fn the_largest_statements_that_are_allowed_do_not_overflow_a_small_stack() {
    let engine = engine();
    let nested = |open: &str, close: &str, depth: usize| {
        format!("select {}a{} as x from t", open.repeat(depth), close.repeat(depth))
    };
    let statements = [
        format!("select a{} as x from t", " + 1".repeat(395)),
        format!("select a from t where a = 0{}", " or a = 1".repeat(195)),
        format!("select a from t where {} a > 0", "not ".repeat(250)),
        format!("select {} a as x from t", "- ".repeat(250)),
        format!("select a from t{}", " union all select a from t".repeat(98)),
        format!("select a as x from t where a in (0{})", ", 1".repeat(5_000)),
        nested("(", ")", 39),
        nested("abs(", ")", 39),
        nested("case when a > 0 then (", ") end", 38),
        format!("select a from {}t{}", "(select a from ".repeat(38), ") u".repeat(38)),
    ];
    for statement in &statements {
        let (engine, sql) = (engine.clone(), statement.clone());
        // 2 MiB is what a thread of the pool has.
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            let context =
                RunContext { deadline: Some(Instant::now() + Duration::from_secs(60)), ..RunContext::default() };
            engine.query(&sql, vec![table("t", vec![("a", ints([1, 2, 3]))])], &Map::new(), &context)
        });
        let answer = thread.unwrap().join().unwrap();
        assert!(answer.is_ok(), "{}: {}", &statement[..60.min(statement.len())], answer.unwrap_err().message);
    }
}

#[test]
fn several_batches_are_one_table_in_order() {
    let engine = engine();
    let mut input = table("t", vec![("a", ints(0..10))]);
    let whole = input.batches.remove(0);
    input.batches = vec![whole.slice(0, 3), whole.slice(3, 0), whole.slice(3, 7)];
    let answer = engine.query("select a from t", vec![input], &Map::new(), &RunContext::default()).unwrap();
    let seen: Vec<i64> =
        answer.batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}
