//! Moments: parameters and the clock mean the same instant whatever the zone of the column beside them, or without one.

use arrow_array::TimestampMicrosecondArray;

use super::*;
use crate::sql::check::{Source, check};
use crate::sql::memory::Memory;
use crate::sql::plan::{logical, session};
use crate::sql::scan::{TableData, Tables};

/// One second before noon of 2026-06-01 in UTC, noon, and a second after: in the zone of Berlin, in UTC, without a zone.
fn around(noon: i64) -> InputTable {
    let moments = || TimestampMicrosecondArray::from_iter_values((-1..2).map(|second| noon + second * 1_000_000));
    let here: ArrayRef = Arc::new(moments().with_timezone("Europe/Berlin"));
    let utc: ArrayRef = Arc::new(moments().with_timezone("UTC"));
    let offset: ArrayRef = Arc::new(moments().with_timezone("-07:30"));
    table(
        "t",
        vec![("n", ints(-1..2)), ("here", here), ("utc", utc), ("there", offset), ("plain", Arc::new(moments()))],
    )
}

const NOON: i64 = 1_780_315_200_000_000;
const COLUMNS: [&str; 4] = ["here", "utc", "there", "plain"];

#[test]
fn a_declared_timestamp_is_one_instant_in_every_zone() {
    let engine = engine();
    let types = [("from", ParamType::Timestamp), ("to", ParamType::Timestamp)];
    for (condition, wanted) in [
        ("{c} >= $from and {c} < $to", vec![0]),
        ("$from <= {c} and $to > {c}", vec![0]),
        ("{c} between $from and $to", vec![0, 1]),
        ("{c} not between $from and $to", vec![-1]),
        ("{c} in ($from, $to)", vec![0, 1]),
        ("{c} = $from or {c} > $to", vec![0]),
        ("{c} - interval '1 second' >= $from and {c} >= $to", vec![1]),
        ("{c} >= $from - interval '1 second' and {c} <> $to", vec![-1, 0]),
        ("case when {c} > $from then {c} <= $to else false end", vec![1]),
        ("({c} is not distinct from $from) and $to is not null", vec![0]),
        ("coalesce(nullif({c}, $from), $to) = $to", vec![0, 1]),
        ("{c} >= (select max($to)) and $from is not null", vec![1]),
    ] {
        for column in COLUMNS {
            let sql = format!("select n from t where {} order by n", condition.replace("{c}", column));
            let entry = engine.prepare(spec("e", &sql, &["t"], &types)).unwrap();
            for (from, to) in
                [("2026-06-01T12:00:00Z", "2026-06-01T14:00:01+02:00"), ("2026-06-01T12:00:00", "2026-06-01 12:00:01")]
            {
                let given = params(json!({"from": from, "to": to}));
                let answer = entry.run(vec![around(NOON)], &given, &RunContext::default());
                let answer = answer.unwrap_or_else(|error| panic!("{sql}: {}", error.message));
                let wanted: Vec<Value> = wanted.iter().map(|n| json!({"n": n})).collect();
                assert_eq!(rows(&answer), json!(wanted), "{sql} from {from}");
            }
        }
    }
}

#[test]
fn the_clock_is_one_instant_in_every_zone() {
    let engine = engine();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    for column in COLUMNS {
        for condition in [
            "{c} > now() - interval '1 minute' and now() + interval '1 minute' > {c}",
            "{c} between now() - interval '1 minute' and current_timestamp + interval '1 minute'",
            "abs(date_part('epoch', {c}) - date_part('epoch', now())) < 60",
        ] {
            let sql = format!("select count(*) as n from t where {}", condition.replace("{c}", column));
            let entry = engine.prepare(spec("e", &sql, &["t"], &[])).unwrap();
            let kept = entry.run(vec![around(now)], &Map::new(), &RunContext::default()).unwrap();
            assert_eq!(rows(&kept), json!([{"n": 3}]), "{sql}");
            let fresh = engine.query(&sql, vec![around(now)], &Map::new(), &RunContext::default()).unwrap();
            assert_eq!(rows(&fresh), json!([{"n": 3}]), "{sql}");
        }
    }
}

#[test]
fn timestamps_in_rows_are_the_instants_that_a_table_has() {
    let engine = engine();
    let resident = around(NOON);
    engine.put_table("resident", resident.schema, resident.batches).unwrap();
    for column in COLUMNS {
        let sql = format!("select r.n from r join resident on r.at = {column} order by r.n");
        let mut declared = spec("e", &sql, &["r"], &[]);
        declared.schemas.insert("r".into(), vec![("n".into(), ParamType::Int64), ("at".into(), ParamType::Timestamp)]);
        let entry = engine.prepare(declared).unwrap();
        let body = br#"[{"n": 1, "at": "2026-06-01T12:00:00Z"}, {"n": 2, "at": "2026-06-01T14:00:00"}]"#;
        let decoded = rows::decode(&entry, rows::RowFormat::Json, body).unwrap();
        let answer = entry.run(decoded.tables, &decoded.params, &RunContext::default()).unwrap();
        assert_eq!(rows(&answer), json!([{"n": 1}]), "{column}");
    }
}

#[test]
fn a_column_is_compared_as_it_is_and_the_parameter_in_its_zone() {
    let memory = Memory::new(1 << 20, None).unwrap();
    let state = session(&memory, 1, 3);
    let data = around(NOON);
    let data = TableData::new(data.schema, data.batches).unwrap();
    let tables = Tables::from([("t".to_owned(), Arc::new(data))]);
    let types = BTreeMap::from([("from".to_owned(), ParamType::Timestamp.data_type())]);
    for column in COLUMNS {
        let sql = format!("select n from t where {column} >= $from and {column} < $from + interval '1 day'");
        let checked = check(&sql, Source::Manifest).unwrap();
        let plan = state.optimize(&logical(&state, &checked, &tables, &types).unwrap()).unwrap();
        let plan = plan.display_indent().to_string();
        assert!(
            !plan.contains(&format!("CAST(t.{column}")),
            "a cast of each row costs more than the comparison: {plan}"
        );
    }
}
