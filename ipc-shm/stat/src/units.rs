//! Figures for people: three digits that matter, a unit, never wider than a column has room for.

/// A count in at most five columns: 99999, then 123k, 1.23M.
pub fn count(n: u64) -> String {
    if n < 100_000 { n.to_string() } else { scaled(n as f64, &["", "k", "M", "G", "T", "P", "E"], 1000.0) }
}

/// Events a second.
pub fn rate(per_second: f64) -> String {
    match per_second {
        none if none <= 0.0 || none.is_nan() => "0".into(),
        few if few < 9.95 => format!("{few:.1}"),
        many => count(many.round() as u64),
    }
}

/// A length of time in at most six columns: 950ns, 12.3µs, 1.20s, 2m05s, 3h02m, 4d03h.
pub fn duration(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let seconds = ns / SECOND;
    match seconds {
        0..60 => {
            let short = scaled(ns as f64, &["ns", "µs", "ms", "s"], 1000.0);
            if ns < 1000 { format!("{ns}ns") } else { short }
        }
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        86_400..8_640_000 => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
        _ => format!("{}d", (seconds / 86_400).min(99_999)),
    }
}

/// A length of time that nobody measures: whole seconds, or what `duration` says of longer ones.
pub fn whole(ns: u64) -> String {
    if ns < 60_000_000_000 { format!("{}s", ns / 1_000_000_000) } else { duration(ns) }
}

/// Bytes in at most seven columns: 0B, 64KiB, 12.3MiB.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n}B");
    }
    scaled(n as f64, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 1024.0)
}

/// A share of one, in percent; nothing that is there reads as 0%, nothing that is not all as 100%.
pub fn percent(part: u64, whole: u64) -> String {
    match (part as f64 / whole.max(1) as f64 * 100.0, part) {
        (_, 0) => "0%".into(),
        (share, _) if share < 1.0 => "<1%".into(),
        (share, _) if part < whole => format!("{}%", (share.round() as u64).min(99)),
        _ => "100%".into(),
    }
}

fn scaled(value: f64, units: &[&str], step: f64) -> String {
    let (mut value, mut unit) = (value, 0);
    // What would be rounded up to the next unit belongs to it.
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let unit = units[unit];
    match value {
        whole if whole.fract() == 0.0 && step > 1000.0 => format!("{whole}{unit}"),
        small if small < 9.995 => format!("{small:.2}{unit}"),
        middle if middle < 99.95 => format!("{middle:.1}{unit}"),
        large => format!("{large:.0}{unit}"),
    }
}

/// A name from shared memory as it may be shown: nothing in it moves the cursor or colours the screen.
pub fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_say_their_unit() {
        let durations = [(0, "0ns"), (950, "950ns"), (12_340, "12.3µs"), (999_960, "1.00ms"), (1_234_567, "1.23ms")];
        for (ns, text) in durations {
            assert_eq!(duration(ns), text);
        }
        for (seconds, text) in [(59, "59.0s"), (60, "1m00s"), (7384, "2h03m"), (90_061, "1d01h")] {
            assert_eq!(duration(seconds * 1_000_000_000), text);
        }
        for (n, text) in [(0, "0"), (99_999, "99999"), (123_456, "123k"), (999_999, "1.00M"), (1_234_567, "1.23M")] {
            assert_eq!(count(n), text);
        }
        for (n, text) in [(0, "0B"), (1023, "1023B"), (65_536, "64KiB"), (12_900_000, "12.3MiB"), (1 << 30, "1GiB")] {
            assert_eq!(bytes(n), text);
        }
        for (per_second, text) in [(0.0, "0"), (0.5, "0.5"), (9.96, "10"), (3412.4, "3412"), (f64::NAN, "0")] {
            assert_eq!(rate(per_second), text);
        }
        for (part, whole, text) in
            [(0, 9, "0%"), (1, 999, "<1%"), (998, 999, "99%"), (9, 9, "100%"), (1, 0, "100%"), (1, 2, "50%")]
        {
            assert_eq!(percent(part, whole), text);
        }
    }

    #[test]
    fn no_figure_is_wider_than_its_column() {
        for n in (0..64).flat_map(|power| [1_u64 << power, (1 << power) - 1]).chain([u64::MAX]) {
            assert!(duration(n).chars().count() <= 6, "{}", duration(n));
            assert!(count(n).len() <= 5 && bytes(n).len() <= 7, "{} {}", count(n), bytes(n));
        }
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\u{9b}c\n"), "a?[2Jb?c?");
    }
}
