//! What is in the segments of this machine. Reads only; needs no answer from the worker.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use molt_ipc_shm::client::{Failure, LOOK_WITHIN};
use molt_ipc_shm::doctor::{self, Finding};
use molt_ipc_shm::stat::Report;
use molt_ipc_shm::{Address, Outcome, Segment, nameless, segment, socket_path, worker};

use crate::units::plain;
use crate::watch;

const EXAMPLES: &str = "\
Examples:
  molt-shm-stat                          every segment, a line each
  molt-shm-stat /molt0                   one segment, once
  molt-shm-stat /molt0 --watch           the same, live
  molt-shm-stat --socket /run/molt.sock  a segment without a name
  molt-shm-stat /molt0 --json            for programs (or --prometheus)
  molt-shm-stat /molt0 --watch --plain   for a log: lines every second
  molt-shm-stat doctor                   what is wrong, and what to do
  molt-shm-stat clean                    remove what dead workers left

A segment is the shared memory of one molt_worker. Its name is what
`molt_worker --shm` was given; /molt0 if nothing was.";

/// Shows what molt's workers do: requests, entries, clients, rings, memory.
///
/// It reads their shared memory and asks them nothing, so it works just as well while a worker is busy, hangs or is dead.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// The segment's name, like /molt0; without one, every segment is listed.
    name: Option<String>,
    /// The worker's socket, for a segment without a name (`molt_worker --memfd`).
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    socket: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, conflicts_with_all = ["prometheus", "watch"])]
    json: bool,
    /// Show it live until q is pressed; ? explains the keys. Goes on when the worker dies and when the next one comes.
    /// Without a terminal it prints lines, as with --plain.
    #[arg(long)]
    watch: bool,
    /// With --watch: print a block of lines each time instead of drawing on the terminal.
    #[arg(long, requires = "watch")]
    plain: bool,
    /// With --watch: seconds between two looks, 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, requires = "watch")]
    interval: Duration,
    /// Print in Prometheus' text format.
    #[arg(long, conflicts_with = "watch")]
    prometheus: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says of every segment, or of one, what is wrong with it and what to do. Exit code 1: something is.
    Doctor {
        /// The segment's name; without one, every segment is examined.
        name: Option<String>,
        /// The worker's socket, for a segment without a name.
        #[arg(long, value_name = "PATH", conflicts_with = "name")]
        socket: Option<PathBuf>,
    },
    /// Removes segments whose worker is provably dead, and sockets that nobody listens on; touches nothing else.
    Clean {
        /// A socket that does not lie in the default folder.
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
    },
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("molt-shm-stat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match (&arguments.command, Address::of(arguments.name.as_deref(), arguments.socket.clone())) {
        (Some(Command::Doctor { name, socket }), _) => Ok(examine(Address::of(name.as_deref(), socket.clone()))),
        (Some(Command::Clean { socket }), _) => Ok(clean(socket.clone())),
        (None, None) if arguments.watch => watch(arguments, the_only_one()?),
        (None, Some(address)) if arguments.watch => watch(arguments, address),
        (None, None) => {
            list(arguments);
            Ok(ExitCode::SUCCESS)
        }
        (None, Some(address)) => {
            let report = Report::of(&address.look(LOOK_WITHIN)?);
            put(&match (arguments.json, arguments.prometheus) {
                (true, _) => format!("{}\n", report.to_json()),
                (_, true) => prometheus(&report),
                _ => text(&report),
            });
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0.1 to 3600".into()),
    }
}

/// What is watched when nothing is named.
fn the_only_one() -> Result<Address, Failure> {
    let unavailable = |text: String| Failure::new(Outcome::Unavailable, text);
    let nameless = nameless::find().into_iter().map(|segment| Address::Socket(segment.socket()));
    let named = segment::list().into_iter().map(|shm| Address::Name { shm, socket: None });
    let all: Vec<Address> = named.chain(nameless).collect();
    match &all[..] {
        [] => Err(unavailable(NOTHING.trim_end().into())),
        [one] => Ok(one.clone()),
        several => {
            let names: Vec<String> = several.iter().map(Address::to_string).collect();
            Err(unavailable(format!("there are {} segments: {}; hint: name one", names.len(), names.join(", "))))
        }
    }
}

fn watch(arguments: &Arguments, address: Address) -> Result<ExitCode, Failure> {
    if io::stdout().is_terminal() && !arguments.plain {
        let ended = watch::run(address, arguments.interval);
        let no_terminal = |error: io::Error| {
            Failure::new(Outcome::Internal, format!("the terminal cannot be used: {error}; hint: try --plain"))
        };
        return ended.map(ExitCode::from).map_err(no_terminal);
    }
    // No worker at the start is a mistake of whoever called; one that goes later is what this is there to show.
    let mut looked = Ok(address.look(LOOK_WITHIN)?);
    loop {
        let block =
            looked.map_or_else(|failure: Failure| format!("{failure}\n"), |segment| text(&Report::of(&segment)));
        if !put(&format!("{block}\n")) {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(arguments.interval);
        looked = address.look(LOOK_WITHIN);
    }
}

const NOTHING: &str = "no segments; hint: start a worker with `molt_worker`\n";

/// Prints; `false`: nobody reads any more (`molt-shm-stat | head`), which is no error.
fn put(text: &str) -> bool {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("molt-shm-stat: its output cannot be written: {error}");
            std::process::exit(1)
        }
        written => written.is_ok(),
    }
}

fn list(arguments: &Arguments) {
    let named = segment::list().into_iter().filter_map(|name| Segment::open(&name).ok());
    let reports: Vec<Report> = named.chain(nameless::find()).map(|segment| Report::of(&segment)).collect();
    if arguments.json {
        put(&format!("{}\n", serde_json::to_string_pretty(&reports).unwrap_or_default()));
        return;
    }
    if arguments.prometheus {
        put(&reports.iter().map(prometheus).collect::<String>());
        return;
    }
    if reports.is_empty() {
        put(NOTHING);
    }
    for report in reports {
        let restarts = report.worker.supervisor.map_or(String::new(), |supervisor| format!("  {}", supervisor.text));
        put(&format!(
            "{:20} {:9} pid {:<8} up {:>8.0} s  {:>3} sessions  arena {} of {}{restarts}
",
            report.segment.name,
            report.worker.state,
            report.worker.pid,
            report.worker.uptime_s,
            report.sessions.len(),
            mib(report.arena.used_bytes),
            mib(report.arena.total_bytes),
        ));
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

fn text(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let worker = &report.worker;
    let _ = writeln!(
        out,
        "segment   {}  layout {}  {}  epoch {:016x}",
        report.segment.name,
        report.segment.layout_version,
        mib(report.segment.total_bytes),
        report.segment.epoch
    );
    let _ = writeln!(out, "worker    {}  pid {}  up {:.0} s", worker.state, worker.pid, worker.uptime_s);
    if worker.overdue > 0 {
        let _ = writeln!(out, "overdue   {} requests run on though their time was up; see doctor", worker.overdue);
    }
    if let Some(supervisor) = &worker.supervisor {
        let _ = writeln!(out, "restarts  {}", supervisor.text);
    }
    let _ = writeln!(
        out,
        "arena     {} of {} in {} blocks",
        mib(report.arena.used_bytes),
        mib(report.arena.total_bytes),
        report.arena.blocks
    );
    let counters: Vec<String> = report.totals.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let _ = writeln!(out, "totals    {}", counters.join("  "));
    let _ = writeln!(out, "\nslot  pid       state        channels  in flight  arena      leases  leased     oldest");
    for session in &report.sessions {
        let _ = writeln!(
            out,
            "{:<5} {:<9} {:<12} {:<9} {:<10} {:<10} {:<7} {:<10} {}",
            session.slot,
            session.pid,
            session.state,
            session.channels,
            session.in_flight,
            mib(session.arena_bytes),
            session.leases,
            mib(session.leased_bytes),
            session.oldest_lease_s.map_or("-".into(), |age| format!("{age:.0} s"))
        );
    }
    let _ = writeln!(out, "\nentry                           calls       p50 us     p99 us   p99.9 us");
    for entry in &report.entries {
        let _ = writeln!(
            out,
            "{:<28} {:>8} {:>12.1} {:>10.1} {:>10.1}",
            plain(&entry.name),
            entry.calls,
            entry.p50_us,
            entry.p99_us,
            entry.p999_us
        );
    }
    if !report.tables.is_empty() {
        let _ = writeln!(out, "\ntable                         version         rows        bytes        age  from");
    }
    for table in &report.tables {
        let from = match (&table.lost, &table.source) {
            (Some(why), _) => format!("LOST: {why}"),
            (None, Some(source)) => format!("{}{source}", if table.resident { "" } else { "on disk: " }),
            (None, None) => "a client".into(),
        };
        let (name, from) = (plain(&table.name), plain(&from));
        let (bytes, age) = (mib(table.bytes), format!("{:.0} s", table.age_s));
        let _ = writeln!(out, "{name:<28} {:>8} {:>12} {bytes:>12} {age:>10}  {from}", table.version, table.rows);
    }
    out
}

/// A value between the quotes of a label: the format knows these three escapes and no other.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn prometheus(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let name = &label(&report.segment.name);
    let up = u8::from(report.worker.state == "serving");
    let _ = writeln!(out, "molt_up{{segment=\"{name}\"}} {up}");
    if let Some(supervisor) = &report.worker.supervisor {
        let _ = writeln!(out, "molt_restarts_total{{segment=\"{name}\"}} {}", supervisor.restarts);
    }
    let _ = writeln!(out, "molt_overdue{{segment=\"{name}\"}} {}", report.worker.overdue);
    let _ = writeln!(out, "molt_arena_bytes{{segment=\"{name}\"}} {}", report.arena.total_bytes);
    let _ = writeln!(out, "molt_arena_used_bytes{{segment=\"{name}\"}} {}", report.arena.used_bytes);
    let _ = writeln!(out, "molt_sessions{{segment=\"{name}\"}} {}", report.sessions.len());
    let leased: u64 = report.sessions.iter().map(|session| session.leased_bytes).sum();
    let oldest = report.sessions.iter().filter_map(|session| session.oldest_lease_s).fold(0.0, f64::max);
    let _ = writeln!(out, "molt_leased_bytes{{segment=\"{name}\"}} {leased}");
    let _ = writeln!(out, "molt_oldest_lease_seconds{{segment=\"{name}\"}} {oldest:e}");
    let lost = report.tables.iter().filter(|table| table.lost.is_some()).count();
    let _ = writeln!(out, "molt_tables_lost{{segment=\"{name}\"}} {lost}");
    for table in report.tables.iter().filter(|table| table.lost.is_none()) {
        let label = format!("segment=\"{name}\",table=\"{}\"", label(&table.name));
        let _ = writeln!(out, "molt_table_rows{{{label}}} {}", table.rows);
        let _ = writeln!(out, "molt_table_age_seconds{{{label}}} {:e}", table.age_s);
    }
    for (total, count) in &report.totals {
        let _ = writeln!(out, "molt_total{{segment=\"{name}\",what=\"{total}\"}} {count}");
    }
    for entry in &report.entries {
        let label = format!("segment=\"{name}\",entry=\"{}\"", label(&entry.name));
        let _ = writeln!(out, "molt_entry_calls_total{{{label}}} {}", entry.calls);
        for (quantile, us) in [("0.5", entry.p50_us), ("0.99", entry.p99_us), ("0.999", entry.p999_us)] {
            let _ = writeln!(out, "molt_entry_seconds{{{label},quantile=\"{quantile}\"}} {:e}", us / 1e6);
        }
    }
    out
}

/// What there is to look at: the one that was named, or all.
fn patients(wanted: Option<Address>) -> Vec<(String, Result<Segment, Finding>)> {
    if let Some(address) = wanted {
        let segment = match &address {
            Address::Name { shm, .. } => Segment::open(shm).map_err(|error| doctor::of_error(&error)),
            Address::Socket(_) => address.look(LOOK_WITHIN).map_err(|failure| doctor::of_failure(&failure)),
        };
        return vec![(address.to_string(), segment)];
    }
    let named = segment::list().into_iter().map(|name| {
        let segment = Segment::open(&name).map_err(|error| doctor::of_error(&error));
        (name, segment)
    });
    let nameless = nameless::find().into_iter().map(|segment| (segment.name.clone(), Ok(segment)));
    let unfinished = segment::unfinished().into_iter().map(|(name, bytes)| (name, Err(doctor::of_unfinished(bytes))));
    named.chain(nameless).chain(unfinished).collect()
}

fn examine(wanted: Option<Address>) -> ExitCode {
    let mut ill = false;
    let patients = patients(wanted);
    if patients.is_empty() {
        put(NOTHING);
    }
    for (name, segment) in patients {
        let findings = match &segment {
            Ok(segment) => doctor::examine(segment),
            Err(finding) => vec![finding.clone()],
        };
        if let (Ok(segment), true) = (&segment, findings.is_empty()) {
            let report = Report::of(segment);
            put(&format!("{name}: worker {} (pid {}), nothing is wrong\n", report.worker.state, report.worker.pid));
        }
        ill |= !findings.is_empty();
        for finding in &findings {
            put(&format!("{name}: {}\n", finding.text));
        }
    }
    if ill { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Removes what is provably dead: segments whose lock nobody holds, sockets that nobody listens on.
fn clean(socket: Option<PathBuf>) -> ExitCode {
    let sockets_of_dead: Vec<PathBuf> = segment::list()
        .iter()
        .filter(|name| !segment::is_locked(name))
        .filter_map(|name| Segment::open(name).ok().map(|segment| segment.socket()))
        .collect();
    for name in segment::remove_dead() {
        put(&format!("removed {name}\n"));
    }
    let beside = worker::default_socket("/x").parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let beside = beside.into_iter().flatten().flatten().map(|file| file.path());
    let beside = beside.filter(|path| path.extension().is_some_and(|extension| extension == "sock"));
    let mut sockets: Vec<PathBuf> = sockets_of_dead.into_iter().chain(beside).chain(socket).collect();
    sockets.sort();
    sockets.dedup();
    for removed in sockets.iter().filter(|socket| socket.exists()).flat_map(|socket| socket_path::remove_stale(socket))
    {
        put(&format!("removed {}\n", removed.display()));
    }
    ExitCode::SUCCESS
}
