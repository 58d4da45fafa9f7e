//! `--watch` on a terminal: a live view of one segment.
//!
//! `source` finds the segment, `snapshot` and `requests` read it, `history` compares two readings, `health` judges, `view`
//! draws, `terminal` takes the terminal and gives it back.

#[cfg(test)]
#[path = "../../../tests/common/mod.rs"]
mod common;
mod health;
mod history;
mod requests;
mod snapshot;
mod source;
mod terminal;
mod view;

use std::io;
use std::time::{Duration, Instant};

use molt_ipc_shm::Address;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use history::{History, Rates};
use snapshot::Snapshot;
use source::Source;
use terminal::Screen;
use view::{Chosen, Pane, Seen};

/// How long a signal, or a segment that was just found, may go unnoticed.
const SLICE: Duration = Duration::from_millis(50);

/// Shows the segment until the user has seen enough. The exit code.
pub fn run(address: Address, interval: Duration) -> io::Result<u8> {
    let mut screen = Screen::open()?;
    let (name, mut source) = (address.to_string(), Source::new(address));
    let (mut history, mut chosen) = (History::default(), Chosen::default());
    let mut shown: Option<(Snapshot, Rates)> = None;
    let (mut next, mut stale, nothing) = (Instant::now(), true, Rates::default());
    loop {
        if let Some(signal) = screen.signal() {
            return Ok(128 + signal);
        }
        let trouble = source.trouble.clone();
        let another = source.refresh();
        stale |= trouble != source.trouble;
        if another || (Instant::now() >= next && !chosen.paused) {
            // A new worker is shown at once, also to somebody who had paused over the last moments of the old one.
            chosen.paused &= !another;
            if let Some(snapshot) = source.snapshot() {
                shown = Some(history.take(snapshot));
            }
            next = Instant::now() + interval;
            stale = true;
        }
        if stale {
            let seen = Seen {
                address: &name,
                snapshot: shown.as_ref().map(|(snapshot, _)| snapshot),
                rates: shown.as_ref().map_or(&nothing, |(_, rates)| rates),
                curve: &history.curve,
                trouble: source.trouble.as_deref(),
            };
            screen.terminal.draw(|frame| view::draw(frame, &seen, &mut chosen))?;
            stale = false;
        }
        let wait = if chosen.paused { SLICE } else { next.saturating_duration_since(Instant::now()).min(SLICE) };
        if event::poll(wait)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match press(key, &mut chosen) {
                    Then::Quit => return Ok(0),
                    Then::Draw => stale = true,
                },
                Event::Resize(..) => stale = true,
                _ => {}
            }
        }
    }
}

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Quit,
    Draw,
}

fn press(key: KeyEvent, chosen: &mut Chosen) -> Then {
    let turn = |chosen: &mut Chosen, by: usize| {
        let now = Pane::ALL.iter().position(|pane| *pane == chosen.pane).unwrap_or(0);
        *chosen = Chosen { pane: Pane::ALL[(now + by) % Pane::ALL.len()], paused: chosen.paused, ..Chosen::default() };
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Then::Quit,
        KeyCode::Char('q') => return Then::Quit,
        KeyCode::Esc if !chosen.help => return Then::Quit,
        KeyCode::Esc => chosen.help = false,
        KeyCode::Char('?' | 'h') => chosen.help = !chosen.help,
        KeyCode::Char('p' | ' ') => chosen.paused = !chosen.paused,
        KeyCode::Char(digit @ '1'..='5') => {
            let pane = Pane::ALL[digit as usize - '1' as usize];
            *chosen = Chosen { pane, paused: chosen.paused, ..Chosen::default() };
        }
        KeyCode::Tab | KeyCode::Right => turn(chosen, 1),
        KeyCode::BackTab | KeyCode::Left => turn(chosen, Pane::ALL.len() - 1),
        KeyCode::Up => chosen.scroll = chosen.scroll.saturating_sub(1),
        KeyCode::Down => chosen.scroll = chosen.scroll.saturating_add(1),
        KeyCode::PageUp => chosen.scroll = chosen.scroll.saturating_sub(chosen.page),
        KeyCode::PageDown => chosen.scroll = chosen.scroll.saturating_add(chosen.page),
        KeyCode::Home => chosen.scroll = 0,
        KeyCode::End => chosen.scroll = usize::MAX,
        _ => {}
    }
    Then::Draw
}
