//! The lines on top: which worker, whether all is well, which page.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::paint::{ACCENT, PLAIN, QUIET, STRONG, fit, of, plural};
use super::{Chosen, Pane, Seen};
use crate::units::{count, duration, percent, plain, rate, whole};
use crate::watch::health::{Level, verdict};
use crate::watch::snapshot::Snapshot;

/// Whether all is well: one line when it is, up to three when there is more to say.
pub fn lines(seen: &Seen<'_>, width: u16) -> Vec<Line<'static>> {
    let Some(now) = seen.snapshot else {
        return vec![Line::styled("✗ no worker is found; it is shown as soon as there is one", of(Level::Look))];
    };
    let judged = verdict(now, seen.rates);
    let sign = if judged.level == Level::Well { "✓" } else { "✗" };
    if judged.level == Level::Ill {
        return wrapped(&format!("{sign} {}", judged.text), usize::from(width), 3)
            .into_iter()
            .map(|line| Line::styled(line, of(judged.level)))
            .collect();
    }
    let shown = wrapped(&format!("{sign} {}", judged.text), usize::from(width), 2);
    let mut lines: Vec<Line<'static>> = shown.into_iter().map(|line| Line::styled(line, of(judged.level))).collect();
    if let [line] = &mut lines[..] {
        for figure in figures(seen, now) {
            if line.width() + Span::raw(figure.as_str()).width() <= usize::from(width) {
                line.push_span(Span::styled(figure, PLAIN));
            }
        }
    }
    lines
}

/// The figures that one asks for first, the most wanted first.
fn figures(seen: &Seen<'_>, now: &Snapshot) -> Vec<String> {
    let open: u64 = now.channels.iter().map(|channel| u64::from(channel.queued) + u64::from(channel.running)).sum();
    let mut figures = vec![format!(" · {} requests/s", rate(seen.rates.requests)), format!(" · {open} in flight")];
    figures.extend(now.requests.first().map(|oldest| format!(", oldest {}", duration(oldest.age.ns()))));
    figures.push(format!(" · arena {}", percent(now.arena.used(), now.arena.total())));
    figures.push(format!(" · {}", plural(now.sessions.len() as u64, "session")));
    figures
}

/// Breaks a text at spaces; what has no room in the last line is cut.
fn wrapped(text: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let longer = if lines[last].is_empty() { word.to_owned() } else { format!("{} {word}", lines[last]) };
        if Span::raw(longer.as_str()).width() <= width || lines.len() == most || lines[last].is_empty() {
            lines[last] = longer;
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines.into_iter().map(|line| fit(&line, width)).collect()
}

/// Draws them.
pub fn draw(frame: &mut Frame<'_>, area: Rect, seen: &Seen<'_>, chosen: &Chosen, verdict: Vec<Line<'static>>) {
    let mut lines = vec![first(seen, chosen, usize::from(area.width))];
    lines.extend(verdict);
    lines.push(tabs(chosen, usize::from(area.width)));
    frame.render_widget(Paragraph::new(lines), area);
}

fn first(seen: &Seen<'_>, chosen: &Chosen, width: usize) -> Line<'static> {
    let Some(now) = seen.snapshot else {
        return Line::from(vec![Span::styled("molt ", QUIET), Span::styled(plain(seen.address), STRONG)]);
    };
    let judged = verdict(now, seen.rates);
    let right = if chosen.paused { "PAUSED, p goes on" } else { "" };
    let state = if judged.level == Level::Ill { of(Level::Ill) } else { of(Level::Well) };
    let up = if now.worker.alive { format!("  up {}", whole(now.worker.up_ns)) } else { String::new() };
    let restarts = now.worker.supervisor.as_ref().map_or(0, |supervisor| supervisor.restarts);
    let restarts = if restarts > 0 { format!("  restarted {}×", count(restarts.into())) } else { String::new() };
    let after = format!("  pid {}{up}{restarts}", now.worker.pid);
    let taken = 5 + 4 + judged.worker.len() + after.len() + 2 + right.len();
    let name = fit(&now.name, width.saturating_sub(taken));
    let left = vec![
        Span::styled("molt ", QUIET),
        Span::styled(name, STRONG),
        Span::raw("  "),
        Span::styled(format!("● {}", judged.worker), state),
        Span::raw(after),
    ];
    let used: usize = left.iter().map(Span::width).sum();
    let gap = " ".repeat(width.saturating_sub(used + right.len()));
    let right = Span::styled(right, if chosen.paused { of(Level::Look) } else { QUIET });
    Line::from_iter(left.into_iter().chain([Span::raw(gap), right]))
}

fn tabs(chosen: &Chosen, width: usize) -> Line<'static> {
    let mut spans = Vec::new();
    for (index, pane) in Pane::ALL.into_iter().enumerate() {
        let title = format!("{} {}", index + 1, pane.title());
        let style = if pane == chosen.pane { ACCENT.patch(STRONG) } else { QUIET };
        let (open, close) = if pane == chosen.pane { ("[", "]") } else { (" ", " ") };
        spans.push(Span::styled(format!("{open}{title}{close}"), style));
    }
    let keys = "p pause  ? help  q quit";
    let used: usize = spans.iter().map(Span::width).sum();
    if used + keys.len() < width {
        spans.push(Span::raw(" ".repeat(width - used - keys.len())));
        spans.push(Span::styled(keys, QUIET));
    }
    Line::from(spans)
}
