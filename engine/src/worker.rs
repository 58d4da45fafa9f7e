//! A worker from start to stop.

use std::fs::File;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::memory::Memory;
use molt_ipc_shm::nameless;
use molt_ipc_shm::segment::{AutoArena, Blueprint, Claim, OwnedSegment, SegmentError, auto_arena};
use molt_ipc_shm::socket_path::PathError;
use molt_ipc_shm::worker::{Listener, Poller, StartError, Stop};
use molt_ipc_shm::{os, stats};
use nix::sys::signal::{SigSet, Signal};
use tracing::{info, warn};

use crate::adoption::Predecessor;
use crate::arguments::{Arguments, Handed, Size};
use crate::dispatch::Dispatcher;
use crate::entries::{self, Registry};
use crate::inheritance::Inheritance;
use crate::log;
use crate::manifest::{Manifest, TableSource};
use crate::spill::SpillFolder;
use crate::sql::{Spill, SqlEngine, SqlLimits};
use crate::watchdog::{Says, Watchdog};

/// How long running requests may take to finish after the worker was told to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exit code of a worker that has served and failed: a supervisor starts it again.
const FAILED_LATER: u8 = 3;
/// The exit code of a supervised worker whose name is another's by now: its supervisor has nothing to do any more.
pub const NAME_TAKEN: u8 = 4;
/// Signals within this time mean one and the same stop.
const ONE_STOP: Duration = Duration::from_millis(500);

/// Runs a worker until it is told to stop. An error means that it could not start; its text is for the person who tried.
pub fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let began = Instant::now();
    let stop = Arc::new(Stop::default());
    let signals = block_signals()?;
    let threads = arguments.threads.map_or_else(cores, usize::from);

    let manifest = Manifest::find(arguments.exports.as_deref())?;
    let spill = spill_folder(arguments)?;
    let (sql_memory, sql_memory_note) = memory_for_sql(arguments.sql_memory);
    let sql = SqlEngine::new(SqlLimits {
        threads,
        memory_bytes: sql_memory,
        spill: spill.as_ref().map(|folder| Spill { folder: folder.path().to_owned(), bytes: arguments.spill }),
        ..SqlLimits::default()
    })?;
    for (name, source) in &manifest.tables {
        let loaded = match source {
            TableSource::Put => {
                sql.catalog().expect(name);
                continue;
            }
            TableSource::Loaded(path) => sql.load_table(name, path),
            TableSource::OnDisk(path) => sql.attach_table(name, path),
        };
        let loaded = loaded.map_err(|what| match &manifest.file {
            Some(file) => format!("manifest {}: {what}", file.display()),
            None => what,
        })?;
        match &loaded.data.disk {
            Some(disk) => info!(table = name, rows = disk.rows, bytes = disk.bytes, "table stays on disk"),
            None => info!(table = name, rows = loaded.data.rows, bytes = loaded.data.bytes(), "table loaded"),
        }
    }
    entries::serves(&manifest);
    let registry = Registry::build(&manifest, &sql, !arguments.no_adhoc_sql)?;

    let mut predecessor = match arguments.replace {
        true => Predecessor::find(&arguments.address(), sql.catalog())?,
        false => None,
    };
    let inheritance = match predecessor {
        Some(_) => None,
        None => Inheritance::find(&arguments.address()),
    };
    sql.catalog().number_after(inheritance.as_ref().map_or(0, Inheritance::last));
    let taken_over = predecessor.as_ref().map_or(0, Predecessor::bytes);
    let tables = sql.catalog().bytes() + taken_over + inheritance.as_ref().map_or(0, Inheritance::bytes);
    let (plan, arena_note) = blueprint(arguments, registry.names.len(), tables)?;
    let owned = match arguments.memfd {
        true => OwnedSegment::create_nameless(&plan),
        false => OwnedSegment::create(&arguments.shm, &plan),
    };
    let owned = owned.map_err(|error| error.to_string())?;
    let segment = owned.segment.clone();
    sql.catalog().tell_in(&segment);
    for entry in registry.iter() {
        let limit = entry.limit.map_or(0, |limit| limit.as_nanos() as u64);
        stats::name_entry(&segment.map, &segment.geometry, entry.slot, &entry.name, limit, entry.idempotent);
    }
    log::name_entries(&registry.names);
    let names = registry.names.join(" ");
    let handed = arguments.supervised.map(|handed| adopt(handed, &plan)).transpose()?;
    let (listener, ready) = handed.map_or((None, None), |(listener, ready)| (Some(listener), Some(ready)));
    let poller = match listener {
        Some(listener) => Poller::listening(owned, listener),
        None => Poller::new(owned),
    };
    let mut poller = poller.map_err(|error| error.to_string())?;
    sql.catalog().move_into(poller.host())?;
    if let Some(predecessor) = &mut predecessor {
        predecessor.copy(poller.host(), sql.catalog())?;
    }
    if let Some(inheritance) = inheritance {
        inheritance.restore(poller.host(), sql.catalog());
    }
    let supervisor = ready.as_ref().map(File::try_clone).transpose();
    let supervisor = supervisor.map_err(|error| format!("cannot keep the supervisor's pipe: {error}"))?;
    let watchdog = Watchdog::new(arguments.grace, supervisor);
    let host = poller.host().clone();
    let dispatcher = Dispatcher::new(registry, host, threads, arguments.queue as usize, stop.clone(), watchdog)
        .map_err(|error| format!("cannot start {threads} threads: {error}"))?;
    watch_signals(signals, stop.clone(), poller.waker())?;
    let _ = entries::started();
    let former = match (poller.take_name(claim(arguments)), &ready) {
        (Ok(former), _) => former,
        (
            Err(
                error @ (StartError::Segment(SegmentError::Alive { .. } | SegmentError::Supervised { .. })
                | StartError::Path(PathError::Alive { .. })),
            ),
            Some(_),
        ) => {
            eprintln!("molt_worker: {error}");
            return Ok(ExitCode::from(NAME_TAKEN));
        }
        (Err(error), _) => return Err(error.to_string()),
    };
    if let Some(predecessor) = predecessor {
        predecessor.finish(poller.host(), sql.catalog());
    }
    poller.ready();
    info!(
        shm = if arguments.memfd { "none (memfd)" } else { &arguments.shm },
        socket = %plan.socket.display(),
        arena = arena_note,
        sql_memory = sql_memory_note,
        threads,
        queue = arguments.queue,
        entries = names,
        ready_ms = began.elapsed().as_millis() as u64,
        "molt_worker serves"
    );
    if let Some(former) = former {
        let pid = former.pid;
        match former.leave() {
            Ok(()) => info!(pid, "took over: the former worker finishes what it runs and leaves"),
            Err(error) => warn!(pid, %error, "took over, but the former worker could not be told to leave"),
        }
    }
    if let Some(mut ready) = ready {
        Says::Serves.tell(&mut ready);
    }
    let served = poller.run(&dispatcher, &stop, PATIENCE);
    if let Err(error) = &served {
        warn!(%error, "the poller failed");
        if arguments.supervised.is_some() {
            poller.keep_name();
        }
    }
    info!("molt_worker stops");
    let overdue = poller.host().overdue.load(Ordering::Relaxed) > 0;
    drop(dispatcher);
    drop(poller);
    drop(spill);
    if overdue && served.is_ok() {
        // To put everything away would be to wait for what does not end.
        std::process::exit(0);
    }
    Ok(if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED_LATER) })
}

/// The bytes that SQL may take, and what to say about them.
fn memory_for_sql(size: Size) -> (usize, String) {
    let (bytes, from) = match size {
        Size::Bytes(bytes) => (bytes, String::new()),
        Size::Auto => {
            let Memory { free, limit } = Memory::left();
            // The arena, entries and the machine's other programs need theirs.
            (free / 4, format!(" (auto: {} are free by {limit})", mib(free)))
        }
    };
    (usize::try_from(bytes).unwrap_or(usize::MAX), format!("{}{from}", mib(bytes)))
}

/// Where SQL may spill to. A default place that cannot be used costs the spilling; one that somebody named, the start.
fn spill_folder(arguments: &Arguments) -> Result<Option<SpillFolder>, String> {
    if arguments.spill == 0 {
        return Ok(None);
    }
    match &arguments.spill_dir {
        Some(base) => SpillFolder::make(base).map(Some).map_err(|what| format!("--spill-dir: {what}")),
        None => Ok(SpillFolder::make(&std::env::temp_dir())
            .inspect_err(|what| warn!("SQL that needs more than --sql-memory fails, because it cannot spill: {what}"))
            .ok()),
    }
}

/// Which names this start may take.
fn claim(arguments: &Arguments) -> Claim {
    match arguments.supervised {
        _ if arguments.replace => Claim::Anybodys,
        Some(handed) if !handed.first => Claim::Restart,
        _ => Claim::Free,
    }
}

/// Takes what a supervisor has left open.
fn adopt(handed: Handed, plan: &Blueprint) -> Result<(Listener, File), String> {
    let inherited = |number| os::inherited(number).map_err(|error| format!("descriptor {number}: {error}"));
    let ready = File::from(inherited(handed.ready)?);
    let listener = Listener::inherited(inherited(handed.listener)?, handed.inode, plan.socket.clone());
    Ok((listener.map_err(|error| error.to_string())?, ready))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / (1 << 20) as f64)
}

/// The sizes of the segment, and what to say about the arena.
fn blueprint(arguments: &Arguments, entries: usize, tables: u64) -> Result<(Blueprint, String), String> {
    // In an upgrade two arenas are there at a time, and what is too large for the rest becomes smaller.
    let shrunk = |auto: &AutoArena| match auto.former {
        Some(former) if former > auto.bytes => format!(", the former worker has {}", mib(former)),
        _ => String::new(),
    };
    let (bytes, note) = match arguments.arena {
        Size::Bytes(bytes) => (bytes, mib(bytes)),
        Size::Auto if arguments.memfd => {
            let auto = nameless::auto_arena(&arguments.socket(), tables);
            if auto.bytes < 1 << 20 {
                return Err(format!("only {} of memory are free; hint: allow more memory", mib(auto.free)));
            }
            let note = format!("{} (auto: {} of memory are free{})", mib(auto.bytes), mib(auto.free), shrunk(&auto));
            (auto.bytes, note)
        }
        Size::Auto => {
            let auto = auto_arena(&arguments.shm, tables);
            let auto = auto.map_err(|error| format!("cannot look at /dev/shm: {error}"))?;
            if auto.bytes < 1 << 20 {
                let free = mib(auto.free);
                return Err(format!("/dev/shm has only {free} free; hint: enlarge it (docker run --shm-size)"));
            }
            (auto.bytes, format!("{} (auto: {} are free{})", mib(auto.bytes), mib(auto.free), shrunk(&auto)))
        }
    };
    let mut geometry = Geometry::for_arena(bytes);
    geometry.entries = geometry.entries.max(entries as u32);
    let bytes = geometry.arena_bytes() as u64;
    let socket = arguments.socket();
    Ok((Blueprint { geometry, socket, max_body: bytes / 2, session_quota: bytes / 4 * 3 }, note))
}

/// Signals are taken by one thread that waits for them; every other thread, made later, inherits the block.
fn block_signals() -> Result<SigSet, String> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|errno| format!("cannot block signals: {errno}"))?;
    Ok(signals)
}

fn watch_signals(signals: SigSet, stop: Arc<Stop>, waker: Arc<nix::sys::eventfd::EventFd>) -> Result<(), String> {
    let watch = move || {
        let mut first: Option<Instant> = None;
        while let Ok(signal) = signals.wait() {
            match first {
                None => {
                    info!(%signal, "stopping: what runs is finished, the rest is refused");
                    first = Some(Instant::now());
                    stop.want();
                }
                // One stop often comes as two signals: from the terminal and from the supervisor.
                Some(first) if first.elapsed() < ONE_STOP => continue,
                Some(_) => {
                    warn!(%signal, "stopping at once");
                    stop.at_once();
                }
            }
            let _ = waker.write(1);
        }
    };
    let spawned = std::thread::Builder::new().name("molt-signals".into()).spawn(watch);
    spawned.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}
