//! Whether columns that were decoded without a look at their data are what their types promise: the same question that arrow
//! asks, answered for the columns that most tables are made of, several times as fast. arrow looks at each offset of a text by
//! itself; here all of them are compared in one go, and texts without a byte above 127 end wherever they like.

use arrow_array::{Array, OffsetSizeTrait, RecordBatch};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Schema};

/// Whether all columns are numbers, moments, truth values or texts, one after the other: those that [`is_valid`] judges.
pub fn is_flat(schema: &Schema) -> bool {
    schema.fields().iter().all(|field| match field.data_type() {
        DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 => true,
        other => other.is_primitive(),
    })
}

/// Whether each column of such a batch is valid. No column has been read before.
pub fn is_valid(batch: &RecordBatch) -> bool {
    batch.columns().iter().all(|column| {
        let data = column.to_data();
        match data.data_type() {
            DataType::Utf8 => are_texts_valid::<i32>(&data),
            DataType::LargeUtf8 => are_texts_valid::<i64>(&data),
            _ => data.validate_full().is_ok(),
        }
    })
}

fn are_texts_valid<O: OffsetSizeTrait>(data: &ArrayData) -> bool {
    if data.is_empty() {
        return data.validate_full().is_ok(); // it need not have an offset
    }
    if data.validate().is_err() || data.validate_nulls().is_err() {
        return false;
    }
    let offsets = data.buffer::<O>(0).get(..=data.len());
    offsets.is_some_and(|offsets| are_texts(offsets, data.buffers()[1].as_slice()))
}

/// Whether texts that follow one another, each from its offset to the next, lie in `bytes` and are UTF-8.
fn are_texts<O: OffsetSizeTrait>(offsets: &[O], bytes: &[u8]) -> bool {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return false };
    // Without a way out at the first that is wrong: many are compared at a time.
    let rise = offsets.iter().zip(&offsets[1..]).fold(true, |rise, (start, end)| rise & (start <= end));
    let (Some(first), Some(last)) = (first.to_usize(), last.to_usize()) else { return false };
    let Some(bytes) = bytes.get(first..last).filter(|_| rise) else { return false };
    if bytes.is_ascii() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    offsets.iter().all(|offset| text.is_char_boundary(offset.as_usize() - first))
}

#[cfg(test)]
mod tests {
    use arrow_buffer::Buffer;
    use arrow_schema::Field;

    use super::*;

    /// Pseudorandom numbers of a seed (xorshift).
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, bound: u64) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound) as usize
        }
    }

    /// Right and wrong texts: what arrow takes is taken, and what it refuses is refused.
    #[test]
    fn texts_are_judged_as_arrow_judges_them() {
        let mut draw = Draw(0x1234_5678_9abc_def1);
        let words = ["", "a", "plain", "ä", "€", "🦀", "a longer one, with ä in it", "\u{7f}", "\0"];
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..40_000 {
            let most = [8, words.len() as u64][draw.below(2)];
            let (mut bytes, mut offsets) = (b"xx"[..draw.below(3)].to_vec(), Vec::new());
            offsets.push(bytes.len() as i64);
            for _ in 0..1 + draw.below(70) {
                bytes.extend_from_slice(words[if most == 8 { draw.below(3) } else { draw.below(most) }].as_bytes());
                offsets.push(bytes.len() as i64);
            }
            for _ in 0..draw.below(3) {
                match draw.below(4) {
                    0 => {
                        let at = draw.below(offsets.len() as u64);
                        offsets[at] += [-1, 1, -1_000, 1_000, i64::from(i32::MIN)][draw.below(5)];
                    }
                    1 if !bytes.is_empty() => {
                        let at = draw.below(bytes.len() as u64);
                        bytes[at] = draw.below(256) as u8;
                    }
                    2 => drop(bytes.pop()),
                    _ => bytes.push(0xe2),
                }
            }
            let len = offsets.len() - 1;
            let arrow = |kind: DataType, offsets: Buffer| {
                ArrayData::try_new(kind, len, None, 0, vec![offsets, Buffer::from_slice_ref(&bytes)], vec![]).is_ok()
            };
            let small: Vec<i32> = offsets.iter().map(|offset| *offset as i32).collect();
            let is_taken = are_texts(&small, &bytes);
            assert_eq!(is_taken, arrow(DataType::Utf8, Buffer::from_slice_ref(&small)), "{small:?} {bytes:?}");
            assert_eq!(
                are_texts(&offsets, &bytes),
                arrow(DataType::LargeUtf8, Buffer::from_slice_ref(&offsets)),
                "{offsets:?} {bytes:?}"
            );
            if is_taken { taken += 1 } else { refused += 1 }
        }
        assert!(taken > 10_000 && refused > 10_000, "{taken} taken, {refused} refused");
    }

    #[test]
    fn columns_with_columns_or_views_within_are_not_judged_here() {
        let flat = |kind: DataType| {
            is_flat(&Schema::new(vec![Field::new("a", DataType::Int8, true), Field::new("b", kind, true)]))
        };
        assert!(
            flat(DataType::Utf8)
                && flat(DataType::Boolean)
                && flat(DataType::Decimal128(38, 2))
                && flat(DataType::Date32)
        );
        let list = DataType::new_list(DataType::Utf8, true);
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        for kind in [DataType::Utf8View, DataType::Binary, DataType::Null, list, dictionary] {
            assert!(!flat(kind.clone()), "{kind}");
        }
    }
}
