//! Turns and rounds. In every round each peer has one turn, so that what disturbs the machine meets all of them; a figure
//! is the median of its turns, and its spread goes from the best turn to the worst.

use std::hint::black_box;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::peer::{Caller, Tried, sum};

/// What one turn of one peer has shown.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Calls made.
    pub calls: u64,
    /// How long that took.
    pub took: Duration,
    /// Percentiles of a call, nanoseconds.
    pub p50: u64,
    /// See `p50`.
    pub p99: u64,
    /// See `p50`.
    pub p999: u64,
    /// Processor time of both sides.
    pub cpu: Duration,
}

/// Records single calls.
pub fn histogram() -> Tried<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

/// A turn out of its parts.
pub fn turn(calls: &Histogram<u64>, took: Duration, cpu: Duration) -> Turn {
    let at = |share: f64| calls.value_at_quantile(share);
    Turn { calls: calls.len(), took, p50: at(0.5), p99: at(0.99), p999: at(0.999), cpu }
}

/// Calls one after the other, `pause` apart, until the time is over, at least `least` times. Every byte of every answer is
/// read within the time of its call.
pub fn call_for(
    caller: &mut dyn Caller,
    payload: &[u8],
    time: Duration,
    least: u64,
    pause: Duration,
    calls: &mut Histogram<u64>,
) -> Tried<()> {
    let end = Instant::now() + time;
    let mut read = |bytes: &[u8]| {
        black_box(sum(bytes));
    };
    let mut began = Instant::now();
    for count in 0.. {
        if began >= end && count >= least {
            break;
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
            began = Instant::now();
        }
        caller.call(payload, &mut read)?;
        let now = Instant::now();
        calls.record((now - began).as_nanos() as u64)?;
        began = now;
    }
    Ok(())
}

/// One row of the report: medians over the turns.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured: `hot`, `asleep`, `sizes`, `clients`, `spinning`.
    pub part: &'static str,
    /// The peer.
    pub peer: String,
    /// Bytes there, and as many back.
    pub size: usize,
    /// Clients at once.
    pub clients: usize,
    /// Percentiles of a call, microseconds.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// See `p50_us`.
    pub p999_us: f64,
    /// The least and the largest p50 of a turn.
    pub p50_from_us: f64,
    /// See `p50_from_us`.
    pub p50_to_us: f64,
    /// Calls a second, all clients together.
    pub calls_per_s: f64,
    /// Processor time of both processes for one call, microseconds.
    pub cpu_us: f64,
    /// Turns.
    pub rounds: usize,
}

/// The median; of an even number, the upper one of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Row {
    /// The row of all turns of one peer.
    pub fn of(part: &'static str, peer: &str, size: usize, clients: usize, turns: &[Turn]) -> Self {
        let of = |figure: &dyn Fn(&Turn) -> f64| median(turns.iter().map(figure).collect());
        let us = |ns: u64| ns as f64 / 1e3;
        let p50s = || turns.iter().map(|turn| us(turn.p50));
        Self {
            part,
            peer: peer.to_owned(),
            size,
            clients,
            p50_us: of(&|turn| us(turn.p50)),
            p99_us: of(&|turn| us(turn.p99)),
            p999_us: of(&|turn| us(turn.p999)),
            p50_from_us: p50s().fold(f64::INFINITY, f64::min),
            p50_to_us: p50s().fold(0.0, f64::max),
            calls_per_s: of(&|turn| turn.calls as f64 / turn.took.as_secs_f64()),
            cpu_us: of(&|turn| turn.cpu.as_secs_f64() * 1e6 / turn.calls as f64),
            rounds: turns.len(),
        }
    }
}
