//! No row that fulfils a condition is in a stretch that is left out: random tables and conditions of every type.

use std::collections::BTreeSet;

use arrow_array::types::Int8Type;
use arrow_array::{
    BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array,
    LargeStringArray, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::common::{DFSchema, internal_err};
use datafusion::prelude::SessionContext;

use super::*;

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

/// Rows from number `start` on: every column rises with it, more or less, so that zones differ.
fn batch(draw: &mut Draw, start: usize, rows: usize) -> RecordBatch {
    let mut rising = |nulls: u64| -> Vec<Option<i64>> {
        (start..start + rows)
            .map(|row| {
                let number = row as i64 / 8 + draw.below(6) as i64 - 20;
                (draw.below(nulls) > 0).then_some(number)
            })
            .collect()
    };
    let float = |number: &Option<i64>| {
        number.map(|number| match number.rem_euclid(23) {
            7 => f64::NAN,
            11 => -f64::NAN,
            _ if number == 0 => -0.0,
            _ if number == 1 => 0.0,
            19 if number > 40 => f64::INFINITY,
            _ => number as f64 - 1.0,
        })
    };
    let text = |number: &Option<i64>| {
        number.map(|number| format!("{}{:04}", ["a", "ß", ""][number.rem_euclid(3) as usize], number + 100))
    };
    let long =
        |number: &Option<i64>| text(number).map(|text| if text.ends_with("77") { text.repeat(90) } else { text });
    let floats: Vec<Option<f64>> = rising(9).iter().map(float).collect();
    let plain: Vec<Option<f64>> = rising(9).iter().map(|number| number.map(|number| number as f64 / 4.0)).collect();
    let words: Vec<Option<String>> =
        rising(7).iter().map(|number| number.map(|number| format!("w{:03}", number + 30))).collect();
    let words: DictionaryArray<Int8Type> = words.iter().map(Option::as_deref).collect();
    let money =
        Decimal128Array::from_iter(rising(9).iter().map(|number| number.map(|number| i128::from(number) * 125)));
    let moments = TimestampMicrosecondArray::from_iter(
        rising(9).iter().map(|number| number.map(|number| number * 3_600_000_000)),
    );
    let columns: [(&str, ArrayRef); 13] = [
        ("int", Arc::new(Int64Array::from_iter(rising(9)))),
        ("whole", Arc::new(Int64Array::from_iter_values(start as i64..(start + rows) as i64))),
        (
            "unsigned",
            Arc::new(UInt64Array::from_iter(rising(9).iter().map(|number| number.map(|number| (number + 20) as u64)))),
        ),
        ("float", Arc::new(Float64Array::from_iter(floats.clone()))),
        ("single", Arc::new(Float32Array::from_iter(floats.iter().map(|float| float.map(|float| float as f32))))),
        ("plain", Arc::new(Float64Array::from_iter(plain))),
        ("text", Arc::new(StringArray::from_iter(rising(9).iter().map(text)))),
        ("note", Arc::new(LargeStringArray::from_iter(rising(9).iter().map(long)))),
        ("word", Arc::new(words)),
        ("flag", Arc::new(BooleanArray::from_iter(rising(9).iter().map(|number| number.map(|number| number > 20))))),
        ("day", Arc::new(Date32Array::from_iter(rising(2).iter().map(|number| number.map(|number| number as i32))))),
        ("money", Arc::new(money.with_precision_and_scale(12, 2).unwrap())),
        ("moment", Arc::new(moments.with_timezone("+02:00"))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true))).unwrap()
}

/// A comparison of a column of that kind with something of that kind.
fn comparison(draw: &mut Draw) -> String {
    let number = draw.below(90) as i64 - 25;
    let (column, value) = match draw.below(12) {
        0 => ("int", number.to_string()),
        1 => ("unsigned", (number + 20).to_string()),
        2 => (
            "float",
            ["0.0", "-0.0", "12.0", "'NaN'::double", "30", "'Infinity'::double"][draw.below(6) as usize].into(),
        ),
        3 => ("single", ["0.0", "-0.0", "12.0", "'NaN'::real", "30"][draw.below(5) as usize].into()),
        4 => ("plain", format!("{}", number as f64 / 4.0)),
        5 => ("text", format!("'{}{:04}'", ["a", "ß", ""][draw.below(3) as usize], number + 100)),
        6 => ("note", format!("'{}{:04}'", ["a", "ß", ""][draw.below(3) as usize], number + 100)),
        7 => ("word", format!("'w{:03}'", number + 30)),
        8 => ("day", format!("date '{}'", ["1970-01-11", "1969-12-20", "1970-03-01"][draw.below(3) as usize])),
        9 => ("money", format!("{}", number as f64 * 1.25)),
        10 => ("moment", format!("timestamp '1970-01-0{}T05:00:00+01:00'", 1 + draw.below(4))),
        _ => ("whole", (draw.below(700)).to_string()),
    };
    match draw.below(13) {
        0 => format!("{column} is null"),
        1 => format!("{column} is not null"),
        2 => format!("{column} in ({value}, {value})"),
        3 => format!("{column} not in ({value})"),
        4 => format!("{column} between {value} and {value}"),
        5 if matches!(column, "text" | "note" | "word") => format!("{column} like 'a01%'"),
        5 if matches!(column, "int" | "unsigned" | "whole") => format!("{column} + 1 > {value}"),
        6 if matches!(column, "int" | "unsigned" | "whole") => format!("cast({column} as double) <= {value}"),
        6 if matches!(column, "float" | "plain" | "single") => format!("-{column} < {value}"),
        // What does not rise with the column says nothing of what lies between its bounds.
        6 if column == "moment" => {
            ["moment::time >= time '18:00'", "moment::time < time '03:00'", "cast(moment as date) > date '1970-01-02'"]
                [draw.below(3) as usize]
                .into()
        }
        12 if matches!(column, "int" | "unsigned" | "whole") => {
            format!("cast({column} as boolean) {} {}", ["=", "<>"][draw.below(2) as usize], draw.below(2) == 0)
        }
        12 if column == "moment" => "moment >= date '1970-01-02'".into(),
        12 if column == "float" => format!("cast(float as real) {} {value}", ["<", ">="][draw.below(2) as usize]),
        7 => "flag".into(),
        8 => "not flag".into(),
        _ => format!("{column} {} {value}", ["<", "<=", "=", "<>", ">", ">="][draw.below(6) as usize]),
    }
}

fn condition(draw: &mut Draw, depth: u64) -> String {
    match draw.below(3 + depth) {
        0..3 => comparison(draw),
        3 => format!("({} and {})", condition(draw, depth - 1), condition(draw, depth - 1)),
        4 => format!("({} or {})", condition(draw, depth - 1), condition(draw, depth - 1)),
        _ => format!("not ({})", condition(draw, depth - 1)),
    }
}

#[test]
fn no_row_that_is_wanted_is_left_out() {
    let context = SessionContext::new();
    let mut draw = Draw(0x2545_f491_4f6c_dd1d);
    let (mut left_out, mut judged) = (0, 0);
    for _ in 0..40 {
        let (mut batches, mut start) = (Vec::new(), 0);
        for _ in 0..1 + draw.below(5) {
            let rows = draw.below(260) as usize;
            let whole = batch(&mut draw, start, rows + 7);
            // Slices, as a large batch is given out in: offsets are not zero.
            batches.push(whole.slice(draw.below(7) as usize, rows));
            start += rows;
        }
        let schema = batches[0].schema();
        let columns = DFSchema::try_from(Arc::clone(&schema)).unwrap();
        let zone_rows = 1 + draw.below(60) as usize;
        let maps = ZoneMaps::new(schema, batches.clone(), zone_rows);
        for _ in 0..100 {
            let sql = condition(&mut draw, 2);
            let expr = context.parse_sql_expr(&sql, &columns).unwrap();
            let Ok(expr) = context.create_physical_expr(expr, &columns) else { continue };
            let wanted = batches.iter().enumerate().flat_map(|(number, batch)| {
                let Ok(values) = expr.evaluate(batch) else { return Vec::new() }; // a number of another type: no answer at all
                let values = values.into_array(batch.num_rows()).unwrap();
                let found = values.as_boolean();
                (0..batch.num_rows())
                    .filter(|row| found.is_valid(*row) && found.value(*row))
                    .map(|row| (number, row))
                    .collect()
            });
            let Some(kept) = maps.kept(&expr, &|| Ok(())).unwrap() else { continue };
            let read: BTreeSet<(usize, usize)> = kept
                .iter()
                .flat_map(|stretch| (stretch.start..stretch.start + stretch.rows).map(|row| (stretch.batch, row)))
                .collect();
            for place in wanted {
                assert!(read.contains(&place), "{sql}: row {place:?} is left out, zones of {zone_rows} rows");
            }
            left_out += start - read.len();
            judged += start;
        }
    }
    // Maps that know nothing leave nothing out.
    assert!(judged > 100_000 && left_out * 3 > judged, "{left_out} of {judged} rows were left out");
}

#[test]
fn stretches_are_whole_runs_within_a_batch() {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let batch = RecordBatch::try_from_iter([("n", values)]).unwrap();
    let maps = ZoneMaps::new(batch.schema(), vec![batch.clone(), batch.clone()], 10);
    let columns = DFSchema::try_from(batch.schema()).unwrap();
    let kept = |sql: &str| {
        let context = SessionContext::new();
        let expr = context.parse_sql_expr(sql, &columns).unwrap();
        maps.kept(&context.create_physical_expr(expr, &columns).unwrap(), &|| Ok(())).unwrap()
    };
    let stretch = |batch, start, rows| Stretch { batch, start, rows };
    assert_eq!(kept("n between 25 and 44"), Some(vec![stretch(0, 20, 30), stretch(1, 20, 30)]));
    assert_eq!(kept("n > 500"), Some(Vec::new()));
    assert_eq!(kept("n >= 0"), None);
    assert_eq!(kept("n % 7 = 3"), None);
}

#[test]
fn columns_of_one_name_and_types_without_order_are_never_judged() {
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let other: ArrayRef = Arc::new(Int64Array::from(vec![100, 200]));
    let list: ArrayRef =
        Arc::new(arrow_array::ListArray::from_iter_primitive::<arrow_array::types::Int64Type, _, _>([
            Some(vec![Some(1)]),
            None,
        ]));
    let field = |name: &str, array: &ArrayRef| arrow_schema::Field::new(name, array.data_type().clone(), true);
    let schema = Arc::new(arrow_schema::Schema::new(vec![field("n", &one), field("n", &other), field("list", &list)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![one, other, list]).unwrap();
    let maps = ZoneMaps::new(schema, vec![batch], 1);
    assert!(maps.learn("n", &|| Ok(())).unwrap().is_none());
    assert!(maps.learn("list", &|| Ok(())).unwrap().is_none());
    assert!(maps.learn("missing", &|| Ok(())).unwrap().is_none());
}

#[test]
fn extremes_are_those_of_the_rows_or_are_not_told() {
    let mut draw = Draw(0x0dd0_5eed);
    for round in 0..30 {
        let rows = 1 + draw.below(300) as usize;
        let batch = batch(&mut draw, 0, rows);
        let maps = ZoneMaps::new(batch.schema(), vec![batch.clone()], 1 + draw.below(50) as usize);
        for (index, field) in batch.schema().fields().iter().enumerate() {
            assert!(maps.extremes(index).is_none(), "nothing has asked for {} yet", field.name());
            let known = maps.learn(field.name(), &|| Ok(())).unwrap().is_some();
            let told = maps.extremes(index);
            let (least, greatest) = super::extremes(batch.column(index)).unwrap();
            match field.name().as_str() {
                "float" | "single" | "plain" | "word" => assert!(told.is_none(), "{}", field.name()),
                "note" => assert!(told.is_none_or(|told| told == (least, greatest)), "round {round}: note"),
                name if least.is_null() => assert!(known && told.is_none(), "round {round}: {name}"),
                name => assert_eq!(told, Some((least, greatest)), "round {round}: {name}"),
            }
        }
    }
}

#[test]
fn looking_at_a_column_ends_when_its_run_does_and_is_done_once() {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let columns = DFSchema::try_from(batch.schema()).unwrap();
    let context = SessionContext::new();
    let expr = context.parse_sql_expr("n > 950", &columns).unwrap();
    let condition = context.create_physical_expr(expr, &columns).unwrap();
    let maps = ZoneMaps::new(batch.schema(), vec![batch], 10);
    let asked = std::cell::Cell::new(0);
    let check = |last: usize| {
        let asked = &asked;
        move || match asked.replace(asked.get() + 1) {
            count if count == last => internal_err!("the run is over"),
            _ => Ok(()),
        }
    };
    maps.kept(&condition, &check(5)).unwrap_err();
    assert_eq!(asked.replace(0), 6, "it ends with the zone that it was at");
    let kept = maps.kept(&condition, &check(usize::MAX)).unwrap().unwrap();
    assert_eq!((kept[0].start, kept[0].rows, asked.replace(0)), (950, 50, 100), "nothing came of the one that ended");
    assert_eq!(maps.kept(&condition, &check(0)).unwrap(), Some(kept), "and it is known from then on");
}
