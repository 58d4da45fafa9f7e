//! Whether a column's texts come again and again, by a look at some of them.

use std::collections::HashSet;

use arrow_array::cast::AsArray;
use arrow_array::{Array, StringArrayType};
use arrow_schema::DataType;

use crate::sql::scan::TableData;

/// Fewer rows are not looked at: whatever they are, numbers for them cost little.
const FEW_ROWS: usize = 1 << 10;
/// A row of so many is looked at.
const SHARE: usize = 64;
/// No fewer rows than that, and no more.
const ROWS: [usize; 2] = [1 << 7, 1 << 10];

/// Whether of rows that lie evenly over the table no more than two thirds have a text that none of those before them has.
pub fn is_repeated(data: &TableData, column: usize) -> bool {
    if data.rows <= FEW_ROWS {
        return true;
    }
    let rows = (data.rows / SHARE).clamp(ROWS[0], ROWS[1]);
    let mut places = (0..rows).map(|number| (number as u128 * data.rows as u128 / rows as u128) as usize).peekable();
    let (mut before, mut texts) = (0, HashSet::with_capacity_and_hasher(rows, foldhash::fast::RandomState::default()));
    for batch in &data.batches {
        let end = before + batch.num_rows();
        let here = std::iter::from_fn(|| places.next_if(|place| *place < end)).map(|place| place - before);
        let column = batch.column(column);
        match column.data_type() {
            DataType::Utf8 => look(&mut texts, column.as_string::<i32>(), here),
            DataType::LargeUtf8 => look(&mut texts, column.as_string::<i64>(), here),
            DataType::Utf8View => look(&mut texts, column.as_string_view(), here),
            _ => return false,
        }
        before = end;
    }
    texts.len() <= rows * 2 / 3
}

fn look<'a>(
    seen: &mut HashSet<&'a str, foldhash::fast::RandomState>,
    texts: impl StringArrayType<'a> + Copy,
    rows: impl Iterator<Item = usize>,
) {
    seen.extend(rows.filter(|row| texts.is_valid(*row)).map(|row| texts.value(row)));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    use super::*;

    fn data(texts: impl Iterator<Item = String>, batches: usize) -> TableData {
        let texts: Vec<String> = texts.collect();
        let batch = |texts: &[String]| {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..texts.len() as i64));
            RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap()
        };
        let batches: Vec<_> = texts.chunks(texts.len().div_ceil(batches)).map(batch).collect();
        TableData::new(batches[0].schema(), batches).unwrap()
    }

    #[test]
    fn texts_that_come_again_are_told_from_those_that_do_not() {
        for batches in [1, 7] {
            let few = |rows: usize| data((0..rows).map(|row| format!("text {}", row * 7 % 30)), batches);
            let many = |rows: usize| data((0..rows).map(|row| format!("text {row}")), batches);
            // In order: a look at the first of them would see one.
            let runs = |rows: usize| data((0..rows).map(|row| format!("text {}", row / 50)), batches);
            assert!(is_repeated(&few(10_000), 1) && is_repeated(&few(1_000_000), 1));
            assert!(!is_repeated(&many(10_000), 1) && !is_repeated(&many(1_000_000), 1));
            assert!(is_repeated(&many(1_000), 1), "so few cost little");
            assert!(!is_repeated(&runs(1_000_000), 1));
            assert!(!is_repeated(&few(10_000), 0), "numbers are no texts");
        }
    }
}
