//! What is shown while it runs and when it is over.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

/// Durations, as a distribution.
#[derive(Debug, Clone)]
pub struct Times {
    histogram: Histogram<u64>,
}

impl Default for Times {
    fn default() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds that are in order") }
    }
}

impl Times {
    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.histogram.saturating_record(time.as_micros().max(1) as u64);
    }

    /// Adds another's.
    pub fn join(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("the same bounds");
    }

    /// The time, in milliseconds, that a share of them did not exceed.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.histogram.value_at_quantile(share) as f64 / 1000.0
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count() == 0 {
            return out.write_str("(none)");
        }
        let (half, most) = (self.quantile_ms(0.5), self.quantile_ms(0.99));
        let longest = self.histogram.max() as f64 / 1000.0;
        write!(out, "p50 {half:.1} ms, p99 {most:.1} ms, longest {longest:.1} ms ({} times)", self.count())
    }
}

/// A live line.
pub fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} {msg}");
    let bar = ProgressBar::new(length).with_prefix(what);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// One line of a summary.
pub fn line(name: &str, text: fmt::Arguments<'_>) {
    println!("{name:<14} {text}");
}
