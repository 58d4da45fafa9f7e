//! Entries: how often they are called, how long they take.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::list::{Column, List};
use super::paint::{QUIET, fit};
use super::{Chosen, Seen};
use crate::units::{count, duration, rate};
use crate::watch::history::{EntryRates, Percentiles};
use crate::watch::snapshot::Snapshot;

const COLUMNS: [Column; 10] = [
    ("entry", 0, false),
    ("calls/s", 7, true),
    ("p50", 6, true),
    ("p95", 6, true),
    ("p99", 6, true),
    ("│", 1, false),
    ("calls", 6, true),
    ("p50", 6, true),
    ("p95", 6, true),
    ("p99", 6, true),
];

/// Entries as a table, the most called first.
pub fn list<'a>(seen: &Seen<'_>, now: &'a Snapshot, width: u16) -> List<'a> {
    let fixed: u16 = COLUMNS.iter().map(|(_, width, _)| width + 1).sum();
    let name_width = usize::from(width.saturating_sub(fixed - 1));
    let nothing = EntryRates::default();
    let rates = seen.rates.entries.iter().chain(std::iter::repeat(&nothing));
    let mut entries: Vec<_> = now.entries.iter().zip(rates).collect();
    entries.sort_by(|(one, _), (other, _)| other.calls.cmp(&one.calls).then_with(|| one.name.cmp(&other.name)));
    let figures = |percentiles: Option<Percentiles>| match percentiles {
        Some(Percentiles { p50, p95, p99 }) => [p50, p95, p99].map(|ns| Line::raw(duration(ns))),
        None => ["–"; 3].map(|none| Line::styled(none, QUIET)),
    };
    let rows = entries.into_iter().map(|(entry, rates)| {
        let style = if rates.per_second > 0.0 { ratatui::style::Style::new() } else { QUIET };
        let mut row = vec![Line::styled(fit(&entry.name, name_width), style)];
        row.push(Line::styled(rate(rates.per_second), style));
        row.extend(figures(rates.last));
        row.push(Line::styled("│", QUIET));
        let ever = if entry.calls > 0 { ratatui::style::Style::new() } else { QUIET };
        row.push(Line::styled(count(entry.calls), ever));
        row.extend(figures(rates.all));
        row
    });
    List {
        title: "Entries",
        right: String::new(),
        columns: &COLUMNS,
        rows: rows.collect(),
        empty: "the worker has none",
    }
}

/// What stands over the two groups of figures.
pub fn title(seen: &Seen<'_>) -> String {
    match seen.rates.interval_ns {
        0 => "since start".into(),
        ns => format!("last {} │ since start", duration(ns)),
    }
}

/// The page.
pub fn draw(frame: &mut Frame<'_>, area: Rect, seen: &Seen<'_>, now: &Snapshot, chosen: &mut Chosen) {
    let list = List { right: title(seen), ..list(seen, now, area.width) };
    list.draw_scrolled(frame, area, chosen);
}
