//! What is drawn. Each pane is a function of what was seen: no pane looks at a segment or a clock.

mod arena;
mod channels;
mod entries;
mod header;
mod help;
mod list;
mod overview;
mod paint;
mod requests;
#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::{Paragraph, Wrap};

use super::history::Rates;
use super::snapshot::Snapshot;

/// A page of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// The most important of everything.
    Overview,
    /// Every entry.
    Entries,
    /// Every channel and its rings.
    Channels,
    /// Every request in flight.
    Requests,
    /// The arena's map and who has what.
    Arena,
}

impl Pane {
    /// All, in the order of their keys.
    pub const ALL: [Pane; 5] = [Pane::Overview, Pane::Entries, Pane::Channels, Pane::Requests, Pane::Arena];

    /// What its tab says.
    pub fn title(self) -> &'static str {
        match self {
            Pane::Overview => "Overview",
            Pane::Entries => "Entries",
            Pane::Channels => "Channels",
            Pane::Requests => "Requests",
            Pane::Arena => "Arena",
        }
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Seen<'a> {
    /// What is watched, in the words of whoever asked.
    pub address: &'a str,
    /// The last look; `None`: nothing was found yet.
    pub snapshot: Option<&'a Snapshot>,
    /// What happened since the one before.
    pub rates: &'a Rates,
    /// Requests a second, the newest last.
    pub curve: &'a VecDeque<u64>,
    /// Why nothing is found.
    pub trouble: Option<&'a str>,
}

/// What the user chose.
#[derive(Debug)]
pub struct Chosen {
    /// The page.
    pub pane: Pane,
    /// The first row shown of the page's list; the page keeps it in bounds.
    pub scroll: usize,
    /// Rows of the list that were shown: what a page key moves by.
    pub page: usize,
    /// The screen stands still: what is shown is the last look.
    pub paused: bool,
    /// The keys are explained.
    pub help: bool,
}

impl Default for Chosen {
    fn default() -> Self {
        Self { pane: Pane::Overview, scroll: 0, page: 1, paused: false, help: false }
    }
}

/// Draws it all.
pub fn draw(frame: &mut Frame<'_>, seen: &Seen<'_>, chosen: &mut Chosen) {
    let verdict = header::lines(seen, frame.area().width);
    let parts = [Constraint::Length(verdict.len() as u16 + 2), Constraint::Min(0)];
    let [top, body] = Layout::vertical(parts).areas(frame.area());
    header::draw(frame, top, seen, chosen, verdict);
    if chosen.help {
        return help::draw(frame, body);
    }
    let Some(snapshot) = seen.snapshot else { return waiting(frame, body, seen) };
    match chosen.pane {
        Pane::Overview => overview::draw(frame, body, seen, snapshot),
        Pane::Entries => entries::draw(frame, body, seen, snapshot, chosen),
        Pane::Channels => channels::draw(frame, body, snapshot, chosen),
        Pane::Requests => requests::draw(frame, body, snapshot, chosen),
        Pane::Arena => arena::draw(frame, body, snapshot, chosen),
    }
}

fn waiting(frame: &mut Frame<'_>, area: Rect, seen: &Seen<'_>) {
    let text = match seen.trouble {
        Some(trouble) => format!("\n{}", crate::units::plain(trouble)),
        None => format!("\nLooking for {} ...", crate::units::plain(seen.address)),
    };
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}
