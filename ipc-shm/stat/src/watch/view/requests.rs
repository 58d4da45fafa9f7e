//! Requests in flight, the oldest first.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::Chosen;
use super::list::{Column, List};
use super::paint::{QUIET, fit, of};
use crate::units::duration;
use crate::watch::health::Level;
use crate::watch::requests::{Age, Open};
use crate::watch::snapshot::Snapshot;

const COLUMNS: [Column; 7] = [
    ("age", 8, true),
    ("state", 7, false),
    ("entry", 0, false),
    ("deadline", 13, true),
    ("pid", 8, true),
    ("ch", 5, true),
    ("id", 8, true),
];

fn deadline(open: &Open) -> Line<'static> {
    match open.left_ns {
        None => Line::styled("–", QUIET),
        Some(left) if left < 0 => Line::styled(format!("{} ago", duration(left.unsigned_abs())), of(Level::Look)),
        Some(left) => Line::raw(format!("in {}", duration(left.unsigned_abs()))),
    }
}

/// Requests as a table.
pub fn list(now: &Snapshot, width: u16) -> List<'_> {
    let fixed: u16 = COLUMNS.iter().map(|(_, width, _)| width + 1).sum();
    let name_width = usize::from(width.saturating_sub(fixed - 1));
    let rows = now.requests.iter().map(|open| {
        let age = match open.age {
            Age::Exactly(ns) => duration(ns),
            Age::AtLeast(ns) => format!("> {}", duration(ns)),
        };
        let (state, style) = if open.running { ("running", Style::new()) } else { ("queued", QUIET) };
        let id = open.id.to_string();
        vec![
            Line::raw(age),
            Line::styled(state, style),
            match &open.entry {
                Some(entry) => Line::raw(fit(entry, name_width)),
                None => Line::styled(fit("(frame overwritten)", name_width), QUIET),
            },
            deadline(open),
            Line::raw(open.pid.to_string()),
            Line::raw(open.channel.to_string()),
            Line::raw(if id.len() <= 8 { id } else { format!("…{}", &id[id.len() - 7..]) }),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let open: u64 = now.channels.iter().map(|channel| u64::from(channel.queued) + u64::from(channel.running)).sum();
    let right = if open as usize > rows.len() { format!("the first {} of {open}", rows.len()) } else { String::new() };
    List { title: "Requests in flight", right, columns: &COLUMNS, rows, empty: "nothing is in flight" }
}

/// The page.
pub fn draw(frame: &mut Frame<'_>, area: Rect, now: &Snapshot, chosen: &mut Chosen) {
    list(now, area.width).draw_scrolled(frame, area, chosen);
}
