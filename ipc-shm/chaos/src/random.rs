//! Random kills under load, for as long as asked.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cast::{Act, Cast, Places};
use crate::roles::Break;
use crate::scene::{self, Victim};
use crate::stage::Stage;
use crate::summary::{bar, line};
use crate::totals::Totals;

/// How much, and from which seed.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Ends after so many kills (without it and without --minutes: 500).
    #[arg(long)]
    kills: Option<u64>,
    /// Ends after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Decides who is killed how and when; scheduling is the machine's.
    #[arg(long)]
    seed: Option<u64>,
    /// Stages at a time, each with a worker and clients of its own.
    #[arg(long, default_value_t = 2)]
    lanes: u64,
    /// The real worker (started with --supervise) instead of this program's own; its entries keep no journal.
    #[arg(long)]
    worker: Option<PathBuf>,
    /// Segments without a name, found by the worker's socket.
    #[arg(long)]
    memfd: bool,
    /// Acts between two times that all leave and everything is counted.
    #[arg(long, default_value_t = 60)]
    round: u32,
    /// Not at failpoints whose name contains this.
    #[arg(long)]
    except: Vec<String>,
    /// Breaks something on purpose, to show that it is found.
    #[arg(long = "break", hide = true)]
    broken: Option<Break>,
}

/// What happens next: mostly clients die; in every second round workers too.
pub fn next_act(random: &mut StdRng, workers: bool, foreign: bool) -> Act {
    match random.random_range(0..100) {
        0..8 if workers => Act::KillWorker,
        8..12 if workers => Act::StopWorker,
        12..15 if workers => Act::KillAll,
        15..19 if workers && !foreign => Act::TrapWorker,
        19..30 => Act::StopClient,
        30..45 => Act::TrapClient,
        _ => Act::KillClient,
    }
}

/// The failpoints that a load passes, by name.
pub fn places(seed: u64, memfd: bool) -> Result<Places, String> {
    let seen = scene::record(seed, memfd)?;
    let of = |victim| {
        let mut names: Vec<String> =
            seen.keys().filter(|(by, _)| *by == victim).map(|(_, name)| name.clone()).collect();
        names.sort(); // the seed decides, not the map's order
        names
    };
    Ok(Places { client: of(Victim::Client), worker: of(Victim::Worker) })
}

/// Runs it.
pub fn run(options: &Options) -> Result<bool, String> {
    let started = Instant::now();
    let seed = options.seed.unwrap_or_else(|| molt_ipc_shm::os::now_ns() % 1_000_000);
    let most = options.kills.unwrap_or(if options.minutes.is_some() { u64::MAX } else { 500 });
    let end = options.minutes.map(|minutes| started + Duration::from_secs_f64(minutes * 60.0));
    println!("Random kills: seed {seed}");
    // What is broken on purpose shows without traps.
    let places = if options.broken.is_some() { Places::default() } else { places(seed, options.memfd)? };
    let places = places.without(&options.except);
    let length = if most == u64::MAX { 0 } else { most };
    let (bar, totals, shown) = (bar(length, "kills"), Mutex::new(Totals::default()), Mutex::new(Instant::now()));
    let is_over = |totals: &Totals| {
        totals.kills() >= most || end.is_some_and(|end| Instant::now() >= end) || totals.violations.len() >= 20
    };
    let report = |totals: &mut Totals| {
        for violation in &totals.violations[totals.shown..] {
            bar.suspend(|| println!("VIOLATION (seed {seed}): {violation}"));
        }
        totals.shown = totals.violations.len();
        bar.set_position(totals.kills());
        bar.set_message(totals.short());
        let mut last = shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Where no terminal shows the live line, a line now and then.
        if bar.is_hidden() && last.elapsed() > Duration::from_secs(20) {
            *last = Instant::now();
            println!("{:>6.0} s  {} kills: {}", started.elapsed().as_secs_f64(), totals.kills(), totals.short());
        }
    };
    std::thread::scope(|scope| {
        for lane in 0..options.lanes.max(1) {
            let (places, totals, is_over, report) = (places.clone(), &totals, &is_over, &report);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(lane));
                let result = lane_of(options, places, &mut random, totals, is_over, report);
                if let Err(what) = result {
                    let mut totals = totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    totals.violations.push(format!("lane {lane}: {what}"));
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut totals = totals.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    totals.judge();
    println!();
    line("seed", format_args!("{seed}, {} lanes", options.lanes));
    line("duration", format_args!("{:.0} s", started.elapsed().as_secs_f64()));
    totals.print();
    if !totals.violations.is_empty() {
        let memfd = if options.memfd { " --memfd" } else { "" };
        let (kills, lanes) = (totals.kills(), options.lanes);
        println!("\nagain: molt-chaos random --seed {seed} --kills {kills} --lanes {lanes}{memfd}");
    }
    Ok(totals.violations.is_empty())
}

fn lane_of(
    options: &Options,
    places: Places,
    random: &mut StdRng,
    totals: &Mutex<Totals>,
    is_over: &dyn Fn(&Totals) -> bool,
    report: &dyn Fn(&mut Totals),
) -> Result<(), String> {
    let foreign = options.worker.is_some();
    let stage = Stage::new(options.broken, options.worker.clone(), options.memfd)?;
    let mut cast = Cast::new(stage, places, StdRng::seed_from_u64(random.random()))?;
    let mut result = Ok(());
    let mut workers = false;
    'rounds: while result.is_ok() {
        workers = !workers;
        result = cast.begin();
        for _ in 0..options.round {
            if result.is_err() {
                break;
            }
            result = cast.act(next_act(random, workers, foreign));
            let mut all = totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            all.add(std::mem::take(&mut cast.totals));
            report(&mut all);
            if is_over(&all) {
                drop(all);
                result = result.and_then(|()| cast.close_round());
                break 'rounds;
            }
        }
        result = result.and_then(|()| cast.close_round());
        let mut all = totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        all.add(std::mem::take(&mut cast.totals));
        report(&mut all);
    }
    let accusations = cast.stage().accusations();
    let closed = match result {
        Ok(()) => cast.close(),
        Err(what) => Err(format!("{what}\n  {}", accusations.join("\n  "))),
    };
    totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(closed?);
    Ok(())
}
