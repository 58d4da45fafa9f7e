//! The first page: the most important of everything.

use molt_ipc_shm::Outcome;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, RenderDirection, Sparkline};

use super::list::List;
use super::paint::{ACCENT, QUIET, STRONG, of, plural, rule};
use super::{Seen, arena, channels, entries, requests};
use crate::units::{count, rate};
use crate::watch::health::Level;
use crate::watch::snapshot::{Snapshot, Totals};

/// Shares out lines among lists: each gets one at a time until it needs no more or nothing is left.
fn share_out(lines: u16, needs: [u16; 3]) -> [u16; 3] {
    let (mut left, mut given) = (lines, [0; 3]);
    while left > 0 && given != needs {
        for (given, need) in given.iter_mut().zip(needs) {
            if *given < need && left > 0 {
                *given += 1;
                left -= 1;
            }
        }
    }
    given
}

/// The page.
pub fn draw(frame: &mut Frame<'_>, area: Rect, seen: &Seen<'_>, now: &Snapshot) {
    let map_lines = if area.height > 30 { 4 } else { 2 };
    let curve_lines = if area.height > 30 { 5 } else { 3 };
    let top = curve_lines + map_lines;
    let lists = [now.entries.len(), now.requests.len(), now.sessions.len()].map(List::height);
    let [a, b, c] = share_out(area.height.saturating_sub(top), lists);
    let parts = [curve_lines, a, map_lines, b, c].map(Constraint::Length);
    let [traffic_at, entries_at, arena_at, requests_at, sessions_at] = Layout::vertical(parts).areas(area);
    traffic(frame, traffic_at, seen, now);
    let list = List { right: entries::title(seen), ..entries::list(seen, now, area.width) };
    list.draw_top(frame, entries_at, '2');
    arena::draw_small(frame, arena_at, now);
    requests::list(now, area.width).draw_top(frame, requests_at, '4');
    channels::sessions(now, area.width).draw_top(frame, sessions_at, '3');
}

fn traffic(frame: &mut Frame<'_>, area: Rect, seen: &Seen<'_>, now: &Snapshot) {
    let Totals { requests, doorbells, cut, .. } = now.totals;
    let cut = if cut > 0 { format!(", {} cut", plural(cut, "session")) } else { String::new() };
    let peak = rate(seen.curve.iter().max().map_or(0.0, |peak| *peak as f64));
    let title = format!("peak {peak}/s, {} taken, {}{cut}", count(requests), plural(doorbells, "doorbell"));
    frame.render_widget(rule("Requests", &title), area);
    let inner = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    let [text, curve] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(inner);
    let mut spans = vec![Span::styled(format!("{:>7}/s", rate(seen.rates.requests)), STRONG)];
    for outcome in Outcome::ALL {
        let (total, now) = (now.totals.outcomes[outcome as usize], seen.rates.outcomes[outcome as usize]);
        if total == 0 && outcome != Outcome::Ok {
            continue;
        }
        let style = match outcome {
            Outcome::Ok => of(Level::Well),
            _ if now > 0.0 => of(Level::Look),
            _ => QUIET,
        };
        spans.push(Span::styled(format!("  {}", outcome.name().replace('_', " ")), style));
        spans.push(Span::raw(format!(" {}", count(total))));
        if now > 0.0 && outcome != Outcome::Ok {
            spans.push(Span::styled(format!(" (+{}/s)", rate(now)), style));
        }
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), text);
    // The newest at the right edge: what does not fit is what is old.
    let newest_first: Vec<u64> = seen.curve.iter().rev().copied().collect();
    let line = Sparkline::default().data(newest_first).direction(RenderDirection::RightToLeft).style(ACCENT);
    frame.render_widget(line, curve);
}
