//! One number for each combination of codes that a partition has seen.

use arrow_array::{Array, UInt32Array};
use datafusion::common::{DataFusionError, Result as DfResult};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Combinations of numbers below this are found in an array.
const SMALL: u32 = 1 << 7;

/// The combinations of a partition's run, numbered in the order in which they were first seen.
///
/// A column's code is counted from 1 on, and null is 0. With one column that is the number. With more, each column after the
/// first has a step that numbers the pairs of the number so far and its own code.
#[derive(Debug, Default)]
pub struct Numbers {
    steps: Vec<Pairs>,
}

impl Numbers {
    /// For combinations of so many columns.
    pub fn new(columns: usize) -> Self {
        Self { steps: (1..columns).map(|_| Pairs::default()).collect() }
    }

    /// The number of each row; `columns` have the codes, as many as `new` was told.
    pub fn of(&mut self, columns: &[&UInt32Array]) -> DfResult<Vec<u32>> {
        let Some((first, others)) = columns.split_first() else { return Ok(Vec::new()) };
        let mut numbers = counted(first);
        for (pairs, codes) in self.steps.iter_mut().zip(others) {
            for (number, code) in numbers.iter_mut().zip(counted(codes)) {
                *number = pairs.number(*number, code)?;
            }
        }
        Ok(numbers)
    }

    /// The codes of each number, column by column; `None`: null.
    pub fn codes(&self, numbers: &UInt32Array) -> Vec<UInt32Array> {
        let mut numbers = numbers.values().to_vec();
        let mut columns = Vec::with_capacity(self.steps.len() + 1);
        for pairs in self.steps.iter().rev() {
            let second = numbers.iter().map(|number| pairs.seen[*number as usize].1).collect();
            numbers.iter_mut().for_each(|number| *number = pairs.seen[*number as usize].0);
            columns.push(uncounted(second));
        }
        columns.push(uncounted(numbers));
        columns.reverse();
        columns
    }

    /// Bytes that the combinations take.
    pub fn bytes(&self) -> usize {
        let of = |pairs: &Pairs| {
            pairs.seen.capacity() * size_of::<(u32, u32)>()
                + pairs.near.capacity() * size_of::<u32>()
                + pairs.far.allocation_size()
        };
        self.steps.iter().map(of).sum()
    }
}

/// Numbers for pairs of numbers.
#[derive(Debug, Default)]
struct Pairs {
    /// The pairs by their numbers.
    seen: Vec<(u32, u32)>,
    /// Of pairs of small numbers, the number and one; 0: not seen.
    near: Vec<u32>,
    far: HashMap<(u32, u32), u32, RandomState>,
}

impl Pairs {
    #[inline]
    fn number(&mut self, first: u32, second: u32) -> DfResult<u32> {
        if first < SMALL && second < SMALL {
            let at = (first * SMALL + second) as usize;
            return match self.near.get(at) {
                Some(number @ 1..) => Ok(number - 1),
                _ => {
                    self.near.resize((SMALL * SMALL) as usize, 0);
                    let number = self.next((first, second))?;
                    self.near[at] = number + 1;
                    Ok(number)
                }
            };
        }
        if let Some(number) = self.far.get(&(first, second)) {
            return Ok(*number);
        }
        let number = self.next((first, second))?;
        self.far.insert((first, second), number);
        Ok(number)
    }

    #[cold]
    fn next(&mut self, pair: (u32, u32)) -> DfResult<u32> {
        // The last is left out: an array keeps the number and one.
        let number = u32::try_from(self.seen.len()).ok().filter(|number| *number < u32::MAX);
        self.seen.push(pair);
        number.ok_or_else(|| DataFusionError::ResourcesExhausted("more than 2^32 groups".into()))
    }
}

/// Codes from 1 on, 0 for null.
fn counted(codes: &UInt32Array) -> Vec<u32> {
    match codes.nulls().filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => codes.values().iter().zip(nulls).map(|(code, valid)| if valid { code + 1 } else { 0 }).collect(),
        None => codes.values().iter().map(|code| code + 1).collect(),
    }
}

fn uncounted(numbers: Vec<u32>) -> UInt32Array {
    numbers.into_iter().map(|number| number.checked_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_has_a_number_and_leads_back() {
        for columns in 1..=3 {
            let mut numbers = Numbers::new(columns);
            let mut by_combination = std::collections::HashMap::new();
            for batch in 0..4_u32 {
                // Below and above what an array holds, and null.
                let code = |row: u32, column: u32| {
                    let code = (row * 31 + column * row + batch) % [5, 200, 100_000][column as usize];
                    (row % 7 != column).then_some(code)
                };
                let codes: Vec<UInt32Array> =
                    (0..columns as u32).map(|column| (0..3_000).map(|row| code(row, column)).collect()).collect();
                let found = numbers.of(&codes.iter().collect::<Vec<_>>()).unwrap();
                for (row, number) in found.iter().enumerate() {
                    let combination: Vec<Option<u32>> =
                        codes.iter().map(|codes| codes.is_valid(row).then(|| codes.value(row))).collect();
                    let known = *by_combination.entry(combination).or_insert(*number);
                    assert_eq!(known, *number);
                }
                let back = numbers.codes(&UInt32Array::from(found));
                assert_eq!(back, codes);
            }
            let distinct: std::collections::HashSet<_> = by_combination.values().collect();
            assert_eq!(distinct.len(), by_combination.len());
            assert_eq!(numbers.bytes() > 0, columns > 1);
        }
    }
}
