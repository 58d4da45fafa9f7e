//! A long mixed load with a kill now and then: memory, descriptors, arena and latency as curves, and whether they are flat.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::stat::Report;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cast::{Act, Cast};
use crate::curves::{self, Curve};
use crate::lasting::Lasting;
use crate::random::places;
use crate::roles::Break;
use crate::stage::Stage;
use crate::summary::{bar, line};

/// How long, how rough.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How long.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Decides who is killed how and when.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds between two samples.
    #[arg(long, default_value_t = 5.0)]
    interval: f64,
    /// Seconds between two deaths of the worker.
    #[arg(long, default_value_t = 300.0)]
    worker_every: f64,
    /// Milliseconds between two deaths of clients, at most.
    #[arg(long, default_value_t = 400.0)]
    client_every_ms: f64,
    /// The real worker (started with --supervise) instead of this program's own.
    #[arg(long)]
    worker: Option<PathBuf>,
    /// Segments without a name, found by the worker's socket.
    #[arg(long)]
    memfd: bool,
    /// Where the curves are drawn.
    #[arg(long, default_value = "soak.svg")]
    svg: PathBuf,
    /// Breaks something on purpose, to show that it is found.
    #[arg(long = "break", hide = true)]
    broken: Option<Break>,
}

/// A restarted worker's memory is warm after this.
const WARM: Duration = Duration::from_secs(10);

fn descriptors(pid: u32) -> f64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as f64
}

fn private_kib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Runs it.
pub fn run(options: &Options) -> Result<bool, String> {
    let seed = options.seed.unwrap_or_else(|| molt_ipc_shm::os::now_ns() % 1_000_000);
    let mut random = StdRng::seed_from_u64(seed);
    let foreign = options.worker.is_some();
    println!("Soak: seed {seed}, {} minutes", options.minutes);
    let places = places(seed, options.memfd)?;
    let mut cast = Cast::new(
        Stage::new(options.broken, options.worker.clone(), options.memfd)?,
        places,
        StdRng::seed_from_u64(seed),
    )?;
    let lasting = Stage::new(options.broken, options.worker.clone(), options.memfd)?;
    let mut lasting = Lasting::begin(lasting, seed)?;
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let (started, bar) = (Instant::now(), bar(length.as_secs(), "seconds"));
    let mut curves = Curve::of_a_soak();
    let mut totals = crate::totals::Totals::default();
    let (mut said, mut worker_died, mut restarted) = (Instant::now(), Instant::now(), Instant::now());
    while started.elapsed() < length && totals.violations.len() < 20 {
        cast.begin()?;
        let (since, sampled) = (now_ns(), Instant::now());
        let mut restarted_now = false;
        while sampled.elapsed().as_secs_f64() < options.interval {
            let worker_is_due = worker_died.elapsed().as_secs_f64() > options.worker_every;
            let act = match random.random_range(0..10) {
                _ if worker_is_due => Act::KillWorker,
                0..2 => Act::StopClient,
                2..4 if !foreign => Act::TrapClient,
                _ => Act::KillClient,
            };
            if worker_is_due {
                lasting.kill_worker()?;
                (worker_died, restarted, restarted_now) = (Instant::now(), Instant::now(), true);
            }
            cast.act(act)?;
            std::thread::sleep(Duration::from_secs_f64(random.random_range(0.0..options.client_every_ms) / 1000.0));
        }
        let at = started.elapsed().as_secs_f64() / 60.0;
        let times = cast.times_since(since);
        if let (Some(pid), false) = (cast.worker_pid(), restarted_now || restarted.elapsed() < WARM) {
            let segment = cast.stage().segment()?;
            let arena = Report::of(&segment).arena.used_bytes as f64 / f64::from(1 << 20);
            let memory = |pid| private_kib(pid).unwrap_or(0.0) / 1024.0;
            let client = lasting.pid();
            let (p50, p999) = (times.quantile_ms(0.5), times.quantile_ms(0.999));
            let figures = [memory(pid), descriptors(pid), arena, memory(client), descriptors(client)];
            let values = figures.into_iter().chain([p50, p999]);
            curves.iter_mut().zip(values).for_each(|(curve, value)| curve.points.push((at, value)));
        }
        cast.close_round()?;
        totals.add(std::mem::take(&mut cast.totals));
        bar.set_position(started.elapsed().as_secs());
        bar.set_message(totals.short());
        if bar.is_hidden() && said.elapsed() > Duration::from_secs(30) {
            said = Instant::now();
            println!("{:>6.0} s  {}", started.elapsed().as_secs_f64(), totals.short());
        }
    }
    bar.finish_and_clear();
    totals.add(cast.close()?);
    let (tally, broken) = lasting.end()?;
    totals.violations.extend(broken);
    totals.judge();
    curves::draw(&curves, &options.svg)?;
    println!();
    line("seed", format_args!("{seed}"));
    line("duration", format_args!("{:.1} minutes", started.elapsed().as_secs_f64() / 60.0));
    line(
        "worker",
        format_args!(
            "{}",
            options.worker.as_ref().map_or("the checked one".into(), |path| format!("{} --supervise", path.display()))
        ),
    );
    totals.print();
    line("lasting", format_args!("one client throughout, {} requests: {}", tally.requests, tally.outcomes()));
    println!();
    let verdicts: Vec<bool> = curves.iter().map(Curve::judge).collect();
    line("curves", format_args!("{}", options.svg.display()));
    Ok(totals.violations.is_empty() && verdicts.into_iter().all(|flat| flat))
}
