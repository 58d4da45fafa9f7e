//! The keys, and what the figures mean.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::paint::{ACCENT, rule};

const KEYS: [(&str, &str); 7] = [
    ("1 - 5", "a page: overview, entries, channels, requests, arena"),
    ("Tab, ← →", "the next page, the one before"),
    ("↑ ↓ PgUp PgDn", "scroll the page's list; Home and End: to its ends"),
    ("p, space", "pause: the screen stands still; again: goes on"),
    ("?, h", "this page"),
    ("Esc", "closes this page, or the view"),
    ("q, Ctrl-C", "quit"),
];

const WORDS: [(&str, &str); 8] = [
    ("p50 p95 p99", "50, 95, 99 of 100 runs took no longer (within 12.5%)"),
    ("queued", "sent, not started yet; running: its entry works on it"),
    ("age", "since it was sent; > when that is known from this view alone"),
    ("ring", "a channel's way to the worker, or back; full: somebody waits"),
    ("lease", "a result that the worker keeps until the client lets go"),
    ("extent, run", "a piece of the arena; pieces side by side that belong together"),
    ("doorbell", "a wake-up sent to a client that slept"),
    ("cut", "a session that broke a rule; its process is not served"),
];

/// The page.
pub fn draw(frame: &mut Frame<'_>, area: Rect) {
    let explained = |(word, text): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!("  {word:<15}"), ACCENT), Span::raw(*text)])
    };
    let mut lines: Vec<Line<'_>> = KEYS.iter().map(explained).collect();
    lines.push(Line::raw(""));
    lines.extend(WORDS.iter().map(explained));
    lines.push(Line::raw(""));
    lines.push(Line::raw("  All is read from shared memory, mapped read-only; the worker is asked nothing."));
    frame.render_widget(Paragraph::new(lines).block(rule("Help", "")), area);
}
