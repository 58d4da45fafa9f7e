//! The arena: a map of its extents, who has how much, and who holds what by leases.

use molt_ipc_shm::arena::{ExtentWord, OWNER_WORKER, owner_of_session};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::Chosen;
use super::list::{Column, List};
use super::paint::{ACCENT, QUIET, bar, of, plural, rule};
use crate::units::{bytes, count, percent, whole};
use crate::watch::health::Level;
use crate::watch::snapshot::{ArenaMap, Session, Snapshot};

const OWNERS: [Column; 9] = [
    ("", 1, false),
    ("owner", 12, false),
    ("pid", 8, true),
    ("bytes", 8, true),
    ("runs", 6, true),
    ("leases", 6, true),
    ("leased", 8, true),
    ("oldest", 6, true),
    ("share", 0, false),
];

/// Columns of the bar that shows an owner's share: with the others, a line of 80.
const SHARE: usize = 10;

/// Colours of sessions, in turn; the worker and nobody have their own.
const SESSIONS: [Color; 4] = [Color::Green, Color::Magenta, Color::Blue, Color::LightMagenta];

fn style(now: &Snapshot, owner: u16) -> Style {
    match owner {
        OWNER_WORKER => ACCENT,
        owner => match now.sessions.iter().position(|session| owner_of_session(session.slot) == owner) {
            Some(place) => Style::new().fg(SESSIONS[place % SESSIONS.len()]),
            None => of(Level::Ill),
        },
    }
}

/// Several extents as one sign: how many of them are taken, in the colour of whoever has most of them.
fn sign(now: &Snapshot, extents: &[ExtentWord]) -> Span<'static> {
    let taken: Vec<u16> = extents.iter().filter(|word| word.taken).map(|word| word.owner).collect();
    let Some(first) = taken.first() else { return Span::styled("·", QUIET) };
    // Neighbours mostly belong together; of more, the first one's colour is as good as any.
    let glyph = match taken.len() as f64 / extents.len() as f64 {
        all if all >= 1.0 => "█",
        most if most >= 0.66 => "▓",
        some if some >= 0.33 => "▒",
        _ => "░",
    };
    Span::styled(glyph, style(now, *first))
}

/// The map in that many columns and lines, and how many extents a sign stands for.
fn map(now: &Snapshot, columns: usize, lines: usize) -> (Vec<Line<'static>>, usize) {
    let words = &now.arena.words;
    let each = words.len().div_ceil((columns * lines).max(1)).max(1);
    let signs: Vec<Span<'static>> = words.chunks(each).map(|extents| sign(now, extents)).collect();
    (signs.chunks(columns.max(1)).map(|line| Line::from(line.to_vec())).collect(), each)
}

fn owners(now: &Snapshot) -> Vec<Vec<Line<'static>>> {
    let (used, total) = (now.arena.used(), now.arena.total());
    // What Python holds of the worker's extents: these are no extents of its own.
    let leases = |session: Option<&Session>| match session.filter(|session| session.leases > 0) {
        Some(session) => [
            count(session.leases.into()),
            bytes(session.leased_bytes),
            session.oldest_lease_ns.map(whole).unwrap_or_default(),
        ],
        None => Default::default(),
    };
    let row = |sign: Span<'static>, who: String, pid: u32, (held, runs): (u64, u64), session: Option<&Session>| {
        let mut share = bar(held as f64 / total.max(1) as f64, SHARE);
        share.push_span(Span::raw(format!(" {:>4}", percent(held, total))));
        let pid = if pid == 0 { Line::raw("") } else { Line::raw(pid.to_string()) };
        let figures = [bytes(held), runs.to_string()].into_iter().chain(leases(session)).map(Line::raw);
        [Line::from(sign), Line::raw(who), pid].into_iter().chain(figures).chain([share]).collect()
    };
    let worker = now.arena.of(OWNER_WORKER);
    let mut rows = vec![row(Span::styled("█", ACCENT), "worker".into(), now.worker.pid, worker, None)];
    let mut known = worker.0;
    for session in &now.sessions {
        let owner = owner_of_session(session.slot);
        let held = now.arena.of(owner);
        known += held.0;
        if held.0 > 0 || session.leases > 0 {
            let sign = Span::styled("█", style(now, owner));
            rows.push(row(sign, format!("session {}", session.slot), session.pid, held, Some(session)));
        }
    }
    // What is on its way back for a moment is nobody's too; the header says when it stays.
    if used > known {
        rows.push(row(Span::styled("█", of(Level::Ill)), "nobody".into(), 0, (used - known, 0), None));
    }
    rows
}

/// In words: how much is used, and whether what is free lies together.
pub fn summary(arena: &ArenaMap) -> String {
    let (used, total) = (arena.used(), arena.total());
    format!("{} of {} used, longest free run {}", bytes(used), bytes(total), bytes(arena.longest_free()))
}

/// The map in few lines, for the first page.
pub fn draw_small(frame: &mut Frame<'_>, area: Rect, now: &Snapshot) {
    let (map, _) = map(now, usize::from(area.width), usize::from(area.height.saturating_sub(1)));
    frame.render_widget(Paragraph::new(map).block(rule("Arena", &summary(&now.arena))), area);
}

/// The page.
pub fn draw(frame: &mut Frame<'_>, area: Rect, now: &Snapshot, chosen: &mut Chosen) {
    let rows = owners(now);
    let below = List::height(rows.len()).min(area.height / 2);
    let [top, below] = Layout::vertical([Constraint::Min(0), Constraint::Length(below)]).areas(area);
    let (lines, each) = map(now, usize::from(top.width), usize::from(top.height.saturating_sub(2)));
    let extent = bytes(now.arena.extent_bytes);
    let stands = match each {
        1 => format!("a sign: an extent of {extent}"),
        each => format!("a sign: {each} extents of {extent}"),
    };
    let legend = Line::styled(format!("· free  ░▒▓ partly  █ taken, in its owner's colour   {stands}"), QUIET);
    let lines: Vec<Line<'_>> = lines.into_iter().chain([legend]).collect();
    frame.render_widget(Paragraph::new(lines).block(rule("Arena", &summary(&now.arena))), top);
    let list = List {
        title: "Who has it",
        right: plural(now.arena.words.iter().filter(|word| word.taken && word.head).count() as u64, "run"),
        columns: &OWNERS,
        rows,
        empty: "",
    };
    list.draw_scrolled(frame, below, chosen);
}
