//! A table of which as many rows are shown as there is room for.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

use super::Chosen;
use super::paint::{QUIET, rule};

/// A column: its head, its width (0: what is left), whether its figures are aligned at the right.
pub type Column = (&'static str, u16, bool);

/// A table to be shown.
#[derive(Debug)]
pub struct List<'a> {
    /// What is listed.
    pub title: &'a str,
    /// What stands at the right end of the title's line.
    pub right: String,
    /// Its columns.
    pub columns: &'a [Column],
    /// Its rows.
    pub rows: Vec<Vec<Line<'a>>>,
    /// What is said when there is none.
    pub empty: &'a str,
}

impl List<'_> {
    /// Lines that it needs to show so many rows.
    pub fn height(rows: usize) -> u16 {
        u16::try_from(rows.max(1) + 2).unwrap_or(u16::MAX)
    }

    /// Shows the first rows, and says how many there are where not all have room.
    pub fn draw_top(mut self, frame: &mut Frame<'_>, area: Rect, key: char) {
        let (all, room) = (self.rows.len(), usize::from(area.height).saturating_sub(2));
        if all > room {
            let more = format!("{room} of {all}, press {key} for all");
            self.right = if self.right.is_empty() { more } else { format!("{more} ─ {}", self.right) };
        }
        self.rows.truncate(room);
        self.draw(frame, area);
    }

    /// Shows the rows that were scrolled to.
    pub fn draw_scrolled(mut self, frame: &mut Frame<'_>, area: Rect, chosen: &mut Chosen) {
        let (all, room) = (self.rows.len(), usize::from(area.height).saturating_sub(2));
        chosen.scroll = chosen.scroll.min(all.saturating_sub(room));
        chosen.page = room.max(1);
        if all > room {
            let place = format!("{}-{} of {all}", chosen.scroll + 1, (chosen.scroll + room).min(all));
            self.right = if self.right.is_empty() { place } else { format!("{place} ─ {}", self.right) };
        }
        self.rows = self.rows.into_iter().skip(chosen.scroll).take(room).collect();
        self.draw(frame, area);
    }

    fn draw(self, frame: &mut Frame<'_>, area: Rect) {
        let block = rule(self.title, &self.right);
        let widths = self.columns.iter().map(|(_, width, _)| match width {
            0 => Constraint::Fill(1),
            width => Constraint::Length(*width),
        });
        let aligned = |line: Line<'static>, right: bool| if right { line.right_aligned() } else { line };
        let head = self.columns.iter().map(|(head, _, right)| Cell::from(aligned(Line::styled(*head, QUIET), *right)));
        let nothing = self.rows.is_empty();
        let rows = self.rows.into_iter().map(|row| {
            let cells = row.into_iter().zip(self.columns);
            Row::new(cells.map(|(cell, (_, _, right))| if *right { cell.right_aligned() } else { cell }))
        });
        let table = Table::new(rows, widths).column_spacing(1).header(Row::new(head)).block(block);
        if nothing {
            let block = rule(self.title, &self.right);
            let text = Line::styled(self.empty, QUIET);
            return frame.render_widget(ratatui::widgets::Paragraph::new(text).block(block), area);
        }
        frame.render_widget(table, area);
    }
}
