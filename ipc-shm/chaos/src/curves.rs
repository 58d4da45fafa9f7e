//! Curves over a soak: drawn in the terminal and as SVG, and judged: flat, or not.

use std::path::Path;

use plotters::prelude::{ChartBuilder, Color, IntoDrawingArea, LineSeries, RGBColor, SVGBackend, WHITE};
use textplots::{Chart, Plot, Shape};

use crate::summary::line;

/// Fewer samples say nothing of a slope.
const ENOUGH: usize = 6;

/// What a curve shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does not grow.
    Flat,
    /// It does.
    Grows,
    /// There are too few samples to tell.
    TooFew,
}

/// One figure over time.
#[derive(Debug)]
pub struct Curve {
    /// What it is, with its unit.
    pub name: &'static str,
    /// It may drift by that share of its median over the whole run,
    share: f64,
    /// or by that much.
    least: f64,
    /// Minutes and values.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// The figures of a soak. Latency is the scheduler's as much as ours on a machine that does other things too.
    pub fn of_a_soak() -> Vec<Self> {
        let curve = |name, share, least| Self { name, share, least, points: Vec::new() };
        vec![
            curve("worker's private memory, MiB", 0.1, 1.0),
            curve("worker's descriptors", 0.1, 3.0),
            curve("arena in use, MiB", 0.5, 1.0),
            curve("the lasting client's private memory, MiB", 0.1, 1.0),
            curve("the lasting client's descriptors", 0.1, 3.0),
            curve("p50 of a request, ms", 0.5, 0.5),
            curve("p99.9 of a request, ms", 0.5, 20.0),
        ]
    }

    fn median(&self) -> f64 {
        median(self.points.iter().map(|(_, value)| *value).collect())
    }

    /// How far it drifts from beginning to end: Theil and Sen's slope (the median of the slopes between any two points:
    /// single spikes change nothing) times the length.
    fn drift(&self) -> f64 {
        let mut slopes = Vec::new();
        for (index, (at, value)) in self.points.iter().enumerate() {
            slopes.extend(self.points[index + 1..].iter().map(|(later, next)| (next - value) / (later - at)));
        }
        let length = self.points.last().map_or(0.0, |last| last.0) - self.points.first().map_or(0.0, |first| first.0);
        median(slopes) * length
    }

    /// It must not grow by more than this.
    fn tolerance(&self) -> f64 {
        self.least.max(self.share * self.median())
    }

    /// Whether it does not grow. Too few points say nothing, so they do not say that either.
    pub fn verdict(&self) -> Verdict {
        match self.points.len() {
            0..ENOUGH => Verdict::TooFew,
            _ if self.drift() <= self.tolerance() => Verdict::Flat,
            _ => Verdict::Grows,
        }
    }

    /// Shows it, and says whether it is flat.
    pub fn judge(&self) -> bool {
        let verdict = self.verdict();
        let (low, high) = self.range();
        println!("{}", self.name);
        if self.points.len() > 1 {
            let points: Vec<(f32, f32)> = self.points.iter().map(|(at, value)| (*at as f32, *value as f32)).collect();
            let (first, last) = (points[0].0, points[points.len() - 1].0);
            let floor = (low - (high - low) * 0.1 - 0.01) as f32;
            let ceiling = (high + (high - low) * 0.1 + 0.01) as f32;
            Chart::new_with_y_range(120, 32, first, last, floor, ceiling).lineplot(&Shape::Lines(&points)).display();
        }
        if verdict == Verdict::TooFew {
            line(
                "  NO VERDICT",
                format_args!("{} samples, at least {ENOUGH} are needed: a longer run", self.points.len()),
            );
            return false;
        }
        line(
            if verdict == Verdict::Flat { "  flat" } else { "  NOT FLAT" },
            format_args!(
                "median {:.2}, from {low:.2} to {high:.2}, drifts by {:+.3} over {} samples; allowed +{:.2}",
                self.median(),
                self.drift(),
                self.points.len(),
                self.tolerance()
            ),
        );
        verdict == Verdict::Flat
    }

    fn range(&self) -> (f64, f64) {
        let values = self.points.iter().map(|(_, value)| *value);
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Draws all curves, one above the other, over one time.
pub fn draw(curves: &[Curve], path: &Path) -> Result<(), String> {
    let area = SVGBackend::new(path, (900, 200 * curves.len() as u32)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    for (curve, panel) in curves.iter().zip(area.split_evenly((curves.len(), 1))) {
        let (Some(first), Some(last)) = (curve.points.first(), curve.points.last()) else { continue };
        let top = (curve.range().1 * 1.1).max(0.1);
        let mut chart = ChartBuilder::on(&panel)
            .caption(curve.name, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(first.0..last.0.max(first.0 + 0.1), 0.0..top)
            .map_err(|error| failed(&error))?;
        chart.configure_mesh().x_desc("minutes").draw().map_err(|error| failed(&error))?;
        let colour = RGBColor(30, 100, 180);
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)))
            .map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(value: impl Fn(usize) -> f64) -> Curve {
        let points = (0..200).map(|at| (at as f64 * 0.1, value(at))).collect();
        Curve { points, ..Curve::of_a_soak().swap_remove(0) }
    }

    /// Fault 60: memory that stays flat is told from memory that does not.
    #[test]
    fn a_leak_is_found_under_noise_and_noise_is_none() {
        let noise = |at: usize| (at * 7919 % 13) as f64 / 13.0;
        assert_eq!(curve(|at| 8.0 + noise(at)).verdict(), Verdict::Flat);
        assert_eq!(curve(|at| if at == 150 { 500.0 } else { 8.0 + noise(at) }).verdict(), Verdict::Flat, "one spike");
        assert_eq!(curve(|at| 8.0 + noise(at) + at as f64 * 0.01).verdict(), Verdict::Grows, "2 MiB in 20 minutes");
    }

    #[test]
    fn a_few_samples_are_not_called_flat() {
        let mut short = curve(|_| 8.0);
        short.points.truncate(ENOUGH - 1);
        assert!(short.verdict() == Verdict::TooFew && !short.judge());
        let none = Curve { points: Vec::new(), ..short };
        assert!(none.verdict() == Verdict::TooFew && !none.judge());
    }

    #[test]
    fn the_curves_are_drawn() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("soak.svg");
        let curves: Vec<Curve> = (1..4).map(|slope| curve(|at| (at * slope) as f64)).collect();
        draw(&curves, &path).expect("a drawing");
        let svg = std::fs::read_to_string(&path).expect("the file");
        assert!(svg.starts_with("<svg") && svg.matches("<polyline").count() >= 3, "{}", &svg[..200]);
    }
}
