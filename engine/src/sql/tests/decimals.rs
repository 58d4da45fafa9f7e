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
