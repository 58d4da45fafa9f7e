//! Sessions, channels, and how full their rings are.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::Chosen;
use super::list::{Column, List};
use super::paint::{QUIET, bar, of, plural};
use crate::units::{bytes, count, percent};
use crate::watch::health::Level;
use crate::watch::snapshot::{Channel, Snapshot};

const SESSIONS: [Column; 9] = [
    ("slot", 4, true),
    ("pid", 8, true),
    ("state", 7, false),
    ("channels", 8, true),
    ("in flight", 9, true),
    ("leases", 6, true),
    ("arena", 8, true),
    ("req ring", 0, false),
    ("ans ring", 0, false),
];

const CHANNELS: [Column; 8] = [
    ("ch", 5, true),
    ("slot", 4, true),
    ("pid", 8, true),
    ("state", 7, false),
    ("request ring", 0, false),
    ("answer ring", 0, false),
    ("queued", 7, true),
    ("running", 7, true),
];

fn state(state: &'static str) -> Line<'static> {
    let style = match state {
        "active" => Style::new(),
        "closing" => QUIET,
        _ => of(Level::Ill),
    };
    Line::styled(state, style)
}

/// A ring's fill as a bar with its figure.
fn ring(used: Option<u64>, capacity: u64, columns: usize) -> Line<'static> {
    let Some(used) = used else { return Line::styled("impossible", of(Level::Ill)) };
    let mut line = bar(used as f64 / capacity.max(1) as f64, columns);
    line.push_span(Span::raw(format!(" {:>4}", percent(used, capacity))));
    line
}

/// Columns of a bar where two rings share what the other columns leave of a line, each with its figure of five.
fn bar_columns(columns: &[Column], width: u16) -> usize {
    let fixed: u16 = columns.iter().map(|(_, width, _)| width + 1).sum();
    usize::from((width + 1).saturating_sub(fixed) / 2).saturating_sub(5).clamp(1, 40)
}

/// The fullest of some rings; one that cannot be is worse than a full one.
fn fullest<'a>(channels: impl Iterator<Item = &'a Channel>, of: impl Fn(&Channel) -> Option<u64>) -> Option<u64> {
    channels.map(of).max_by_key(|used| used.unwrap_or(u64::MAX)).unwrap_or(Some(0))
}

/// Sessions as a table, each with the fullest of its rings.
pub fn sessions(now: &Snapshot, width: u16) -> List<'_> {
    let columns = bar_columns(&SESSIONS, width);
    let rows = now.sessions.iter().map(|session| {
        let own = || now.channels.iter().filter(|channel| channel.session == session.slot);
        vec![
            Line::raw(session.slot.to_string()),
            Line::raw(session.pid.to_string()),
            state(session.state),
            Line::raw(count(session.channels.into())),
            Line::raw(count(session.in_flight.into())),
            Line::raw(count(session.leases.into())),
            Line::raw(bytes(session.arena_bytes)),
            ring(fullest(own(), |channel| channel.requests), now.ring_bytes, columns),
            ring(fullest(own(), |channel| channel.responses), now.ring_bytes, columns),
        ]
    });
    List {
        title: "Sessions",
        right: "rings: the fullest of each".into(),
        columns: &SESSIONS,
        rows: rows.collect(),
        empty: "no process is attached",
    }
}

/// The page.
pub fn draw(frame: &mut Frame<'_>, area: Rect, now: &Snapshot, chosen: &mut Chosen) {
    let columns = bar_columns(&CHANNELS, area.width);
    let rows = now.channels.iter().map(|channel| {
        vec![
            Line::raw(channel.index.to_string()),
            Line::raw(channel.session.to_string()),
            Line::raw(channel.pid.to_string()),
            state(channel.state),
            ring(channel.requests, now.ring_bytes, columns),
            ring(channel.responses, now.ring_bytes, columns),
            Line::raw(count(channel.queued.into())),
            Line::raw(count(channel.running.into())),
        ]
    });
    let list = List {
        title: "Channels",
        right: format!(
            "{} of {}, rings of {} each",
            plural(now.channels.len() as u64, "channel"),
            now.slots.1,
            bytes(now.ring_bytes)
        ),
        columns: &CHANNELS,
        rows: rows.collect(),
        empty: "no process is attached",
    };
    list.draw_scrolled(frame, area, chosen);
}
