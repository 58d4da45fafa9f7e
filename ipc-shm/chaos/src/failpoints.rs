//! Each failpoint once: a process dies (or stops) exactly there, and everything that is owed is checked.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::oracle::Tally;
use crate::roles::Break;
use crate::scene::{self, Scene, Seen, Victim};
use crate::sites::{self, Failpoint};
use crate::summary::{Times, bar, line};
use crate::totals::RECLAIMED_MS;
use crate::unpassed;

/// What is killed, where, how.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Who dies.
    #[arg(long, value_enum, default_value_t = Role::Both)]
    role: Role,
    /// SIGSTOP and, when others were served meanwhile, SIGCONT, instead of SIGKILL.
    #[arg(long)]
    stop: bool,
    /// Segments without a name, found by the worker's socket.
    #[arg(long)]
    memfd: bool,
    /// Only failpoints whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// At which passing; without it, in the middle of the load.
    #[arg(long)]
    nth: Option<u64>,
    /// Runs at a time.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// What the clients do, in which order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Show every failpoint.
    #[arg(long, short)]
    verbose: bool,
    /// Breaks something on purpose, to show that it is found.
    #[arg(long = "break", hide = true)]
    broken: Option<Break>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Client,
    Worker,
    Both,
}

struct Job<'a> {
    number: usize,
    place: &'a Failpoint,
    victim: Victim,
    nth: u64,
}

#[derive(Default)]
struct Results {
    tally: Tally,
    reclaimed: Times,
    unreached: Vec<String>,
    failures: Vec<String>,
}

/// The numbered list, and which places a recorded load passes.
pub fn list() -> Result<(), String> {
    let all = sites::all()?;
    let seen = scene::record(1, false)?;
    for (index, place) in all.iter().enumerate() {
        let name = place.to_string();
        let by = |victim| seen.get(&(victim, name.clone())).map_or("-".to_owned(), |count| format!("{count}+"));
        println!("{:>4}  {name:<44} client {:<6} worker {}", index + 1, by(Victim::Client), by(Victim::Worker));
    }
    Ok(())
}

/// Runs them.
pub fn run(options: &Options) -> Result<bool, String> {
    let started = Instant::now();
    let all = sites::all()?;
    let seen = scene::record(options.seed, options.memfd)?;
    let strange: Vec<&String> =
        seen.keys().map(|(_, name)| name).filter(|name| !all.iter().any(|place| place.to_string() == **name)).collect();
    if !strange.is_empty() {
        return Err(format!("the source shows no store at {strange:?}: the list of failpoints is not complete"));
    }
    let jobs = jobs_of(options, &all, &seen);
    if jobs.is_empty() {
        return Err("no failpoint is both asked for and passed by the load".into());
    }
    let progress = bar(jobs.len() as u64, "failpoints");
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Results::default()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one(options, job, &results, &progress);
                    progress.inc(1);
                }
            });
        }
    });
    progress.finish_and_clear();
    let mut results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let never: Vec<&Failpoint> = all.iter().filter(|place| !is_passed(&seen, place)).collect();
    let (excused, missing) = unpassed::sorted(&never, options.memfd);
    for place in missing {
        let (_, function) = place.place();
        results.failures.push(format!(
            "NEVER PASSED: {place} in {function}: no load comes by this store any more, so nobody is killed there"
        ));
    }
    results.failures.extend(unpassed::stale(&all));
    let half = results.reclaimed.quantile_ms(0.5);
    if !options.stop && half > RECLAIMED_MS {
        let text =
            format!("a killed client's session is free within p50 {half:.1} ms, at most {RECLAIMED_MS} are allowed");
        results.failures.push(text);
    }
    let count = |victim| seen.keys().filter(|(by, _)| *by == victim).count();
    println!(
        "\nFailpoints: each one {}\n",
        if options.stop { "stopped at (SIGSTOP), then continued" } else { "killed at (SIGKILL)" }
    );
    line(
        "places",
        format_args!(
            "{} in the source; a load passes {} as a client, {} as a worker",
            all.len(),
            count(Victim::Client),
            count(Victim::Worker)
        ),
    );
    line("never passed", format_args!("{}, each with its reason", excused.len()));
    if options.verbose {
        excused.iter().for_each(|(place, reason)| line("", format_args!("{place}: {reason}")));
    }
    line(
        "runs",
        format_args!("{} in {:.1} s, {} at a time", jobs.len(), started.elapsed().as_secs_f64(), options.jobs),
    );
    line(
        "not reached",
        format_args!("{}", if results.unreached.is_empty() { "none".into() } else { results.unreached.join(", ") }),
    );
    line(
        "requests",
        format_args!(
            "{}: {}; {} sent twice, {} of killed clients without an end",
            results.tally.requests,
            results.tally.outcomes(),
            results.tally.again,
            results.tally.unfinished
        ),
    );
    line("reclaimed", format_args!("a killed client's session within {}", results.reclaimed));
    line("violations", format_args!("{}", results.failures.len()));
    results.failures.iter().for_each(|failure| println!("\n{failure}"));
    Ok(results.failures.is_empty())
}

fn is_passed(seen: &Seen, place: &Failpoint) -> bool {
    let name = place.to_string();
    [Victim::Client, Victim::Worker].iter().any(|victim| seen.contains_key(&(*victim, name.clone())))
}

fn jobs_of<'a>(options: &Options, all: &'a [Failpoint], seen: &Seen) -> Vec<Job<'a>> {
    let victims: &[Victim] = match options.role {
        Role::Client => &[Victim::Client],
        Role::Worker => &[Victim::Worker],
        Role::Both => &[Victim::Client, Victim::Worker],
    };
    let mut jobs = Vec::new();
    for (index, place) in all.iter().enumerate() {
        let name = place.to_string();
        if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        for victim in victims {
            if let Some(count) = seen.get(&(*victim, name.clone())) {
                let nth = options.nth.unwrap_or((count / 2).clamp(1, 8));
                jobs.push(Job { number: index + 1, place, victim: *victim, nth });
            }
        }
    }
    jobs
}

fn one(options: &Options, job: &Job<'_>, results: &Mutex<Results>, progress: &ProgressBar) {
    let name = job.place.to_string();
    let began = Instant::now();
    let mut nth = job.nth;
    let Options { seed, broken, stop, memfd, .. } = *options;
    let mut scene = Scene { seed, broken, stop, memfd, patience: Duration::from_secs(2) };
    let mut report = scene.kill_at(job.victim, &name, nth);
    if !report.reached && report.violations.is_empty() && nth > 1 {
        nth = 1;
        scene.patience = Duration::from_secs(5);
        report = scene.kill_at(job.victim, &name, nth);
    }
    let who = format!("#{} {name} of the {}", job.number, job.victim);
    if options.verbose {
        let how = if report.reached { "reached" } else { "NOT reached" };
        progress.suspend(|| {
            println!("{who}, passing {nth}: {how}, {} violations, {:.0?}", report.violations.len(), began.elapsed())
        });
    }
    let mut results = results.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.tally.add(&report.tally);
    report.reclaimed.iter().for_each(|time| results.reclaimed.add(*time));
    if !report.reached && report.violations.is_empty() {
        results.unreached.push(who.clone());
    }
    if !report.violations.is_empty() {
        let stop = if options.stop { " --stop" } else { "" };
        let memfd = if options.memfd { " --memfd" } else { "" };
        let mut listed: BTreeMap<usize, &String> = report.violations.iter().enumerate().collect();
        let more = listed.split_off(&12).len();
        let listed: Vec<&str> = listed.into_values().map(String::as_str).collect();
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        results.failures.push(format!(
            "VIOLATION at {who}, passing {nth}, seed {}\n  {}{more}\n  again: molt-chaos failpoints --role {} --only {name} --nth {nth} --seed {}{stop}{memfd}",
            options.seed,
            listed.join("\n  "),
            job.victim,
            options.seed,
        ));
    }
}
