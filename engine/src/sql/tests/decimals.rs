//! Decimals of 32 and 64 bits: what is computed with them is right, where a narrow result would wrap around.

use arrow_array::{Decimal32Array, Decimal64Array, Decimal128Array};
use arrow_schema::DataType;

use super::*;

/// Quantities, and prices of 2 decimal places near the top of what each type holds.
fn lines() -> (InputTable, Vec<i128>, Vec<i128>) {
    let quantities: Vec<i64> = (0..1_000).map(|n| 1_000_000 + n * 7).collect();
    let prices: Vec<i32> = (0..1_000).map(|n| 999_999_999 - n).collect();
    let narrow: ArrayRef =
        Arc::new(Decimal32Array::from_iter_values(prices.iter().copied()).with_precision_and_scale(9, 2).unwrap());
    let middle = prices.iter().map(|price| i64::from(*price) * 100_000_000);
    let middle: ArrayRef = Arc::new(Decimal64Array::from_iter_values(middle).with_precision_and_scale(18, 2).unwrap());
    let table = table("t", vec![("q", ints(quantities.iter().copied())), ("p32", narrow), ("p64", middle)]);
    let wide = |scale: i128| prices.iter().map(|price| i128::from(*price) * scale).collect::<Vec<_>>();
    (table, wide(1), wide(100_000_000))
}

#[test]
fn what_is_computed_with_narrow_decimals_is_right() {
    let engine = engine();
    let (table, p32, p64) = lines();
    let quantities: Vec<i128> = (0..1_000).map(|n| 1_000_000 + n * 7).collect();
    let of = |sql: &str| {
        let answer = engine.query(sql, vec![table.clone()], &Map::new(), &RunContext::default()).unwrap();
        let text = rows(&answer)[0]["x"].as_str().unwrap_or_else(|| panic!("{sql}: {:?}", rows(&answer))).to_owned();
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let written = |hundredths: i128| {
        let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let times = |prices: &[i128]| quantities.iter().zip(prices).map(|(q, p)| q * p).sum::<i128>();
    for (column, prices) in [("p32", &p32), ("p64", &p64)] {
        assert_eq!(of(&format!("select sum(q * {column}) as x from t")), written(times(prices)));
        assert_eq!(of(&format!("select sum({column} * q) as x from t")), written(times(prices)));
        assert_eq!(of(&format!("select sum({column}) as x from t")), written(prices.iter().sum()));
        assert_eq!(
            of(&format!("select sum({column} + {column}) as x from t")),
            written(2 * prices.iter().sum::<i128>())
        );
        assert_eq!(
            of(&format!("select max(s) as x from (select sum({column}) over () as s from t)")),
            written(prices.iter().sum())
        );
        assert_eq!(of(&format!("select sum(-{column}) * -1 as x from t")), written(prices.iter().sum()));
        let least = prices.iter().copied().min().unwrap();
        assert_eq!(of(&format!("select min({column}) as x from t where {column} between 0 and 1e17")), written(least));
        let all = format!("select cast(count(*) as varchar) as x from t where {column} < {}", i64::MAX);
        assert_eq!(of(&all), "1", "1,000 rows, without the zeros");
    }
    // Two of one type join by equality, and keep their type.
    let joined = "select a.p32 from t a join t b on a.p32 = b.p32 order by a.p32 limit 1";
    let answer = engine.query(joined, vec![table.clone()], &Map::new(), &RunContext::default()).unwrap();
    assert_eq!(answer.schema.field(0).data_type(), &DataType::Decimal32(9, 2));
}

#[test]
fn columns_that_are_only_handed_on_keep_type_and_values() {
    let engine = engine();
    let (table, ..) = lines();
    let batch = table.batches[0].clone();
    let sql = "select q, p32, p64 as renamed from t";
    let answer = engine.query(sql, vec![table.clone()], &Map::new(), &RunContext::default()).unwrap();
    assert_eq!(answer.batches[0].columns(), batch.columns());
    // 128 bits are what they were.
    let wide: ArrayRef = Arc::new(Decimal128Array::from_iter_values([150]).with_precision_and_scale(12, 2).unwrap());
    let wide = super::table("t", vec![("p", wide)]);
    let answer = engine.query("select p + p as x from t", vec![wide], &Map::new(), &RunContext::default()).unwrap();
    assert_eq!(answer.schema.field(0).data_type(), &DataType::Decimal128(13, 2));
}

#[test]
fn entries_with_parameters_are_guarded_too() {
    let engine = engine();
    let entry =
        engine.prepare(spec("e", "select sum(p32 * $n) as x from t", &["t"], &[("n", ParamType::Int64)])).unwrap();
    let (table, p32, _) = lines();
    for n in [1_i64, 1_000_000] {
        let answer = entry.run(vec![table.clone()], &params(json!({"n": n})), &RunContext::default()).unwrap();
        let hundredths = p32.iter().sum::<i128>() * i128::from(n);
        let expected = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        assert_eq!(rows(&answer)[0]["x"], json!(expected));
    }
}

/// Whatever a narrow decimal meets, the answer is that of the same numbers in 128 bits.
#[test]
fn every_meeting_of_a_narrow_decimal_and_a_large_number_is_one_of_wide_ones() {
    let engine = engine();
    let (table, p32, p64) = lines();
    let batch = &table.batches[0];
    let wide = |hundredths: &[i128]| -> ArrayRef {
        let numbers = Decimal128Array::from_iter_values(hundredths.iter().copied());
        Arc::new(numbers.with_precision_and_scale(38, 2).unwrap())
    };
    let huge: Vec<i64> = (0..1_000).map(|n| 4_000_000_000_000_000_000 + n).collect();
    let input = super::table(
        "t",
        vec![
            ("q", Arc::clone(batch.column(0))),
            ("huge", ints(huge)),
            ("p32", Arc::clone(batch.column(1))),
            ("p64", Arc::clone(batch.column(2))),
            ("w32", wide(&p32)),
            ("w64", wide(&p64)),
        ],
    );
    let all = |column: &str, sql: &str| {
        let sql = sql.replace("{p}", column);
        let answer = engine.query(&sql, vec![input.clone()], &Map::new(), &RunContext::default());
        answer.map(|answer| rows(&answer)).map_err(|failure| failure.message)
    };
    for sql in [
        "select count(*) as x from t where {p} between q and huge",
        "select count(*) as x from t where q between {p} and huge",
        "select count(*) as x from t where q not between 1 and {p}",
        "select count(*) as x from t where {p} in (huge, 99999999999999999)",
        "select count(*) as x from t where {p} not in (huge, q)",
        "select count(*) as x from t where huge in ({p}, q)",
        "select count(*) as x from t where {p} in (select huge from t)",
        "select count(*) as x from t where huge not in (select {p} from t)",
        "select count(*) as x from t where q < any (select {p} from t)",
        "select count(*) as x from t where q >= (select max({p}) from t)",
        "select max(v)::varchar as x from (select case when q % 2 = 0 then {p} else huge end as v from t)",
        "select max(v)::varchar as x from (select case when q % 2 = 0 then huge else {p} end as v from t)",
        "select sum(case {p} when huge then 1 when q then 2 else 3 end) as x from t",
        "select sum(case huge when {p} then 1 else 3 end) as x from t",
        "select max(v)::varchar as x from (select coalesce(nullif({p}, q), huge) as v from t)",
        "select max(v)::varchar as x from (select greatest({p}, huge) as v from t)",
        "select max(v)::varchar as x from (select {p} as v from t union all select huge from t)",
        "select max(v)::varchar as x from (select huge as v from t union select {p} from t)",
        "select count(*) as x from t a join t b on a.{p} = b.huge",
        "select count(*) as x from t a join t b on b.huge > a.{p} and a.q = b.q",
        "select count(*) as x from t a join (select huge as {p} from t) b using ({p})",
        "select count(*) as x from (select {p} as v from t intersect select huge from t)",
        "select sum(n) as x from (select count(*) over (order by {p} range between 90000000 preceding and 90000000 following) \
         as n from t)",
        "select sum(n) as x from (select count(*) over (order by {p} range between current row and 90000000000000000 \
         following) as n from t)",
    ] {
        for (narrow, wide) in [("p32", "w32"), ("p64", "w64")] {
            let expected = all(wide, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(all(narrow, sql), Ok(expected), "{sql} with {narrow}");
        }
    }
    // What only meets its like stays what it is.
    for sql in [
        "select case when q > 5 then p32 else null end as x from t limit 1",
        "select p32 as x from t union all select p32 from t limit 1",
        "select p32 as x from t where p32 in (select p32 from t) and p32 between p32 and p32 limit 1",
    ] {
        let answer = engine.query(sql, vec![input.clone()], &Map::new(), &RunContext::default()).unwrap();
        assert_eq!(answer.schema.field(0).data_type(), &DataType::Decimal32(9, 2), "{sql}");
    }
}
