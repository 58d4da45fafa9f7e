//! The few colours and signs there are.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders};

use crate::watch::health::Level;

/// What explains, and what does not matter now.
pub const QUIET: Style = Style::new().fg(Color::DarkGray);
/// What one looks for.
pub const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
/// In the terminal's own colour, also within something coloured.
pub const PLAIN: Style = Style::new().fg(Color::Reset);
/// Curves, bars, the chosen tab.
pub const ACCENT: Style = Style::new().fg(Color::Cyan);

/// The colour of a verdict.
pub fn of(level: Level) -> Style {
    match level {
        Level::Well => Style::new().fg(Color::Green),
        Level::Look => Style::new().fg(Color::Yellow),
        Level::Ill => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

/// How full something may be before it draws attention.
pub fn of_fill(share: f64) -> Style {
    match share {
        full if full >= 0.9 => of(Level::Ill),
        high if high >= 0.7 => of(Level::Look),
        _ => ACCENT,
    }
}

/// A bar of that many columns, in eighths of one; what is there at all shows.
pub fn bar(share: f64, columns: usize) -> Line<'static> {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * columns as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut full = "█".repeat(eighths / 8);
    full.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]);
    let rest = "·".repeat(columns - eighths.div_ceil(8));
    Line::from(vec![Span::styled(full, of_fill(share)), Span::styled(rest, QUIET)])
}

/// A line across with a title at its left, and perhaps something at its right.
pub fn rule<'a>(title: &str, right: &str) -> Block<'a> {
    let block = Block::new().borders(Borders::TOP).border_style(QUIET);
    let block = block.title_top(Span::styled(format!(" {title} "), PLAIN.patch(STRONG)));
    if right.is_empty() { block } else { block.title_top(Line::styled(format!(" {right} "), QUIET).right_aligned()) }
}

/// A text in that many columns, with a sign where it was cut.
pub fn fit(text: &str, columns: usize) -> String {
    if Span::raw(text).width() <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        let longer = format!("{cut}{c}");
        if Span::raw(longer.as_str()).width() + 1 > columns {
            break;
        }
        cut = longer;
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Whether there is one of something, or more.
pub fn plural(n: u64, one: &str) -> String {
    format!("{} {one}{}", crate::units::count(n), if n == 1 { "" } else { "s" })
}
