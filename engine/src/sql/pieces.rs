//! The rows of a table in memory, shared out to the partitions of a scan.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::RecordBatch;

use super::scan::TableData;
use super::zones::Stretch;

/// One partition's share of the rows, in order, as slices of at most two DataFusion batches.
pub struct Pieces {
    data: Arc<TableData>,
    left: VecDeque<Stretch>,
    piece: usize,
}

impl Pieces {
    /// Partition `partition` of `partitions` gets one run of consecutive rows: of all, or of those in `stretches`.
    pub fn new(
        data: Arc<TableData>,
        stretches: Option<Vec<Stretch>>,
        partition: usize,
        partitions: usize,
        batch_size: usize,
    ) -> Self {
        let stretches = stretches.unwrap_or_else(|| {
            let whole = |(batch, rows): (usize, &RecordBatch)| Stretch { batch, start: 0, rows: rows.num_rows() };
            data.batches.iter().enumerate().map(whole).collect()
        });
        let all: usize = stretches.iter().map(|stretch| stretch.rows).sum();
        let bound = |part: usize| (all as u128 * part as u128 / partitions.max(1) as u128) as usize;
        let (first, end) = (bound(partition), bound(partition + 1));
        let (mut before, mut left) = (0, VecDeque::new());
        for stretch in stretches {
            let own = (first.max(before)..end.min(before + stretch.rows)).len();
            if own > 0 {
                left.push_back(Stretch { start: stretch.start + first.saturating_sub(before), rows: own, ..stretch });
            }
            before += stretch.rows;
        }
        Self { data, left, piece: batch_size.max(1) }
    }
}

impl Iterator for Pieces {
    /// A piece, and whether it is less than a batch.
    type Item = (RecordBatch, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let stretch = self.left.front_mut()?;
        let (start, here) = (stretch.start, stretch.rows);
        let batch = &self.data.batches[stretch.batch];
        // A tail shorter than a piece goes along: 10,000 rows are one piece, not 8,192 and a remnant.
        let take = if here <= 2 * self.piece { here } else { self.piece };
        (stretch.start, stretch.rows) = (start + take, here - take);
        if stretch.rows == 0 {
            self.left.pop_front();
        }
        let is_slice = take < batch.num_rows();
        Some((if is_slice { batch.slice(start, take) } else { batch.clone() }, is_slice))
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    fn table(sizes: &[usize]) -> Arc<TableData> {
        let mut next = 0_i64;
        let batches: Vec<RecordBatch> = sizes
            .iter()
            .map(|size| {
                let values: ArrayRef = Arc::new(Int64Array::from_iter_values(next..next + *size as i64));
                next += *size as i64;
                RecordBatch::try_from_iter([("x", values)]).unwrap()
            })
            .collect();
        let schema =
            RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![0_i64])) as ArrayRef)]).unwrap().schema();
        Arc::new(TableData::new(schema, batches).unwrap())
    }

    #[test]
    fn partitions_share_out_every_row_once_in_order_and_copy_none() {
        for sizes in [&[][..], &[0, 0], &[5], &[3, 0, 40, 1], &[100, 7, 7]] {
            let data = table(sizes);
            for partitions in 1..5 {
                let mut seen = Vec::new();
                for partition in 0..partitions {
                    for (piece, _) in Pieces::new(Arc::clone(&data), None, partition, partitions, 8) {
                        assert!(piece.num_rows() <= 16 && piece.num_rows() > 0);
                        let values = piece.column(0).as_primitive::<Int64Type>();
                        let start = values.values().as_ptr() as usize;
                        assert!(data.batches.iter().any(|batch| {
                            let whole = batch.column(0).as_primitive::<Int64Type>().values();
                            (whole.as_ptr() as usize..=whole.as_ptr() as usize + 8 * whole.len()).contains(&start)
                        }));
                        seen.extend(values.values().iter().copied());
                    }
                }
                assert_eq!(seen, (0..data.rows as i64).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn partitions_share_out_the_rows_of_the_stretches_alone() {
        let data = table(&[50, 3, 40]);
        let stretch = |batch, start, rows| Stretch { batch, start, rows };
        let stretches = vec![stretch(0, 10, 25), stretch(1, 0, 3), stretch(2, 39, 1)];
        let expected: Vec<i64> = (10..35).chain(50..53).chain(92..93).collect();
        for partitions in 1..6 {
            let (mut seen, mut sizes) = (Vec::new(), Vec::new());
            for partition in 0..partitions {
                let before = seen.len();
                for (piece, _) in Pieces::new(Arc::clone(&data), Some(stretches.clone()), partition, partitions, 8) {
                    seen.extend(piece.column(0).as_primitive::<Int64Type>().values().iter().copied());
                }
                sizes.push(seen.len() - before);
            }
            assert_eq!(seen, expected);
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
        assert!(Pieces::new(data, Some(Vec::new()), 0, 2, 8).next().is_none());
    }
}
