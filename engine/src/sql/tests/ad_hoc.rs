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

#[test]
fn a_statement_cannot_make_much_out_of_little() {
    let engine = engine();
    let input = || table("t", vec![("a", ints(0..20_000)), ("s", words((0..20_000).map(|n| REGIONS[n % 4])))]);
    let long = "a".repeat(8_000);
    let doubled = |step: &str| {
        let mut sql = "with s0 as (select s, make_array(s) as l from t)".to_owned();
        for number in 1..30 {
            sql += &format!(", s{number} as (select {step} from s{0})", number - 1);
        }
        sql + " select count(s) as n, count(l) as m from s29"
    };
    let columns: Vec<String> = (0..2_000).map(|number| format!("$x as c{number}")).collect();
    for (sql, given, limit) in [
        (
            format!("select length(replace(replace('{long}', 'a', '{long}'), 'a', '{long}')) as n"),
            json!({}),
            "replace may make",
        ),
        (format!("select length(replace(s, '', '{long}')) as n from t"), json!({}), "replace may make"),
        (
            format!("select length(regexp_replace(s, '', '{long}', 'g')) as n from t"),
            json!({}),
            "regexp_replace may make",
        ),
        (
            format!("select regexp_replace('{long}', '^.*$', '{}') as n", "\\\\0".repeat(1_000)),
            json!({}),
            "regexp_replace may make",
        ),
        (
            format!("select array_to_string(string_to_array('{long}', NULL), '{long}') as n"),
            json!({}),
            "array_to_string may make",
        ),
        (format!("select concat(s, '{long}', '{long}', '{long}') as n from t"), json!({}), "concat may make"),
        (format!("select concat_ws('{long}', s, s, s) as n from t"), json!({}), "concat_ws may make"),
        (format!("select to_char(now(), '{long}') as n from t"), json!({}), "to_char may make"),
        (doubled("s || s as s, l"), json!({}), "|| may make"),
        (doubled("concat(s, s) as s, l"), json!({}), "concat may make"),
        (doubled("overlay(s placing s from 1 for 0) as s, l"), json!({}), "overlay may make"),
        (doubled("encode(s::bytea, 'hex') as s, l"), json!({}), "encode may make"),
        (doubled("s, array_concat(l, l) as l"), json!({}), "array_concat may make"),
        (format!("select {} from t", columns.join(", ")), json!({"x": long}), "each counted as often as it is used"),
        (format!("select string_agg(s, '{long}') as n from t"), json!({}), "separator"),
    ] {
        let shown = &sql[..sql.len().min(90)];
        let start = Instant::now();
        let failure = engine.query(&sql, vec![input()], &params(given), &RunContext::default()).expect_err(shown);
        assert_eq!(failure.outcome, Outcome::InvalidInput, "{shown}: {}", failure.message);
        assert!(failure.message.contains(limit), "{shown}: {}", failure.message);
        assert!(start.elapsed() < Duration::from_secs(20), "{shown}: {:?}", start.elapsed());
    }
}

#[test]
fn functions_that_grow_are_what_they_were_within_their_bound() {
    let engine = engine();
    let input = || table("t", vec![("a", ints([1, 2, 2])), ("s", words(["x-y", "--", ""]))]);
    for (sql, expected) in [
        ("select replace(s, '-', '+') as x from t", json!(["x+y", "++", ""])),
        ("select replace(s, '', '.') as x from t", json!(["x-y", "--", ""])),
        ("select regexp_replace(s, '(x|-)', '<\\1>', 'g') as x from t", json!(["<x><->y", "<-><->", ""])),
        ("select s || '/' || a as x from t", json!(["x-y/1", "--/2", "/2"])),
        ("select 'a' || 'b' as x from t limit 1", json!(["ab"])),
        ("select s || null as x from t limit 1", json!([null])),
        ("select concat(s, a, null) as x from t", json!(["x-y1", "--2", "2"])),
        ("select concat_ws(',', s, null, a) as x from t", json!(["x-y,1", "--,2", ",2"])),
        ("select array_to_string(make_array(a, 3), '+') as x from t", json!(["1+3", "2+3", "2+3"])),
        (
            "select concat(s, '!') as x from t group by concat(s, '!') order by concat(s, '!')",
            json!(["!", "--!", "x-y!"]),
        ),
        ("select s || '!' as x from t group by s || '!' order by s || '!'", json!(["!", "--!", "x-y!"])),
        ("select string_agg(s, ';' order by s) as x from t", json!([";--;x-y"])),
        ("select sum(a) as x from t having max(s || '!') > 'a'", json!([5])),
    ] {
        let answer = engine.query(sql, vec![input()], &Map::new(), &RunContext::default());
        let answer = rows(&answer.unwrap_or_else(|error| panic!("{sql}: {}", error.message)));
        let values: Vec<&Value> = answer.as_array().unwrap().iter().map(|row| &row["x"]).collect();
        assert_eq!(json!(values), expected, "{sql}");
    }
    // The name of a column is what it was.
    let answer =
        engine.query("select s || 'a', concat(s, 'b') from t", vec![input()], &Map::new(), &RunContext::default());
    let names: Vec<String> = answer.unwrap().schema.fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["t.s || Utf8(\"a\")", "concat(t.s,Utf8(\"b\"))"]);
    // A list of many values is no growth.
    let list: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
    let sql = format!("select count(*) as x from t where array_has(make_array({}), a)", list.join(","));
    assert_eq!(
        rows(&engine.query(&sql, vec![input()], &Map::new(), &RunContext::default()).unwrap()),
        json!([{"x": 3}])
    );
}
