//! Dates and timestamps as text, read with Arrow's own parser.

use arrow_array::timezone::Tz;
use arrow_array::types::Date32Type;
use datafusion::arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};

/// Days since 1970-01-01 for `2026-11-23`.
pub fn parse_date(text: &str) -> Option<i32> {
    // Arrow's parser also takes timestamps and plain numbers of days: a date has just this shape.
    let text = text.trim();
    let shaped = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if shaped { Date32Type::parse(text) } else { None }
}

/// Microseconds since 1970-01-01 in UTC for `2026-11-23T18:05:00.25+01:00`; without an offset it is UTC already.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let utc: Tz = "+00:00".parse().ok()?;
    string_to_datetime(&utc, text.trim()).ok().map(|moment| moment.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_timestamps_have_one_reading() {
        assert_eq!(parse_date("1970-01-11"), Some(10));
        for wrong in ["", "10", "1970-1-11", "1970-02-30", "1970-01-11T00:00:00"] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
        assert_eq!(parse_timestamp("1970-01-01T00:00:01.000002Z"), Some(1_000_002));
        assert_eq!(parse_timestamp("1970-01-01 01:00:01+01:00"), Some(1_000_000));
        assert_eq!(parse_timestamp("1970-01-01T00:00:01"), Some(1_000_000));
        assert_eq!(parse_timestamp("soon"), None);
    }
}
