//! What is measured.

use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::peer::{Attached, Peer, Place, Tried, Waits, echoes, pattern};
use crate::peers;
use crate::pinned::{self, Side};
use crate::placing::{self, Placing};
use crate::server::Server;
use crate::timing::{Row, Turn, call_for, histogram, turn};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    rounds: usize,
    /// One turn.
    time: Duration,
    /// Calls of a turn at least: of 64 MiB few fit into its time.
    least: u64,
    /// Calls of a turn in which both sides have fallen asleep before each.
    seldom: u64,
    sizes: &'static [usize],
    clients: &'static [usize],
    table_bytes: usize,
}

impl Scale {
    /// What the documented figures come from.
    pub const FULL: Self = Self {
        rounds: 7,
        time: Duration::from_millis(400),
        least: 5,
        seldom: 150,
        sizes: &[64, 1 << 10, 16 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20],
        clients: &[1, 2, 4, 16, 64, 256],
        table_bytes: 64 << 20,
    };
    /// The same in short.
    pub const QUICK: Self = Self {
        rounds: 3,
        time: Duration::from_millis(150),
        least: 3,
        seldom: 50,
        sizes: &[64, 16 << 10, 1 << 20, 64 << 20],
        clients: &[1, 4, 64, 256],
        table_bytes: 64 << 20,
    };
    /// Every path once.
    pub const CHECK: Self = Self {
        rounds: 1,
        time: Duration::from_millis(5),
        least: 1,
        seldom: 2,
        sizes: &[64, 256 << 10],
        clients: &[1, 4],
        table_bytes: 1 << 20,
    };
}

/// A part of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// 64 bytes, one client, both sides spinning.
    Hot,
    /// 64 bytes, one client that comes seldom: both sides asleep.
    Asleep,
    /// One client, longer and longer payloads.
    Sizes,
    /// 64 bytes, more and more clients; processor time.
    Clients,
    /// Saturated, with spinning and without.
    Spinning,
    /// A table into the arena, against a plain copy.
    Placing,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Round trips.
    pub rows: Vec<Row>,
    /// Placing a table.
    pub placing: Option<Placing>,
    /// Peers that could not be measured, and why: never left out in silence.
    pub missing: Vec<Missing>,
}

/// A peer that could not be measured.
#[derive(Debug, Serialize)]
pub struct Missing {
    /// Its name.
    pub peer: String,
    /// Where in the plan.
    pub part: String,
    /// Why.
    pub why: String,
}

/// Long enough that both sides have gone to sleep.
const PAUSE: Duration = Duration::from_millis(3);
/// More clients than cores, so that no core is ever without work.
const SATURATED: usize = 16;
/// The environment variable that the transport reads (see `molt_ipc_shm::spin`).
const SPIN: &str = "MOLT_SPIN";

/// A contender: a peer under a name of its own in the report, its server's and its own environment.
#[derive(Clone, Copy)]
struct Contender {
    peer: &'static dyn Peer,
    label: &'static str,
    spin: Option<&'static str>,
}

struct Running {
    contender: Contender,
    server: Server,
    attached: Box<dyn Attached>,
    turns: Vec<Turn>,
}

/// Measures the parts asked for (all, if none is named) with the peers asked for.
pub fn run(place: &Place, scale: Scale, only: &[String], parts: &[Part]) -> Tried<Report> {
    for name in only {
        peers::find(name)?;
    }
    let chosen: Vec<Contender> = (peers::ALL.into_iter())
        .filter(|peer| only.is_empty() || only.iter().any(|name| name == peer.name()))
        .map(|peer| Contender { peer, label: peer.name(), spin: None })
        .collect();
    let whole: Vec<Contender> = chosen.iter().copied().filter(|one| one.peer.is_whole()).collect();
    let wanted = |part: Part| parts.is_empty() || parts.contains(&part);
    let mut report = Report::default();
    if wanted(Part::Hot) {
        report.part("hot", &chosen, place.clone(), scale, Duration::ZERO);
    }
    if wanted(Part::Asleep) {
        let place = Place { waits: Waits::Sleep, ..place.clone() };
        report.part("asleep", &whole, place, scale, PAUSE);
    }
    if wanted(Part::Sizes) {
        for &size in scale.sizes {
            let fits: Vec<Contender> = chosen.iter().copied().filter(|one| one.peer.longest() > size).collect();
            report.part("sizes", &fits, Place { size, ..place.clone() }, scale, Duration::ZERO);
        }
    }
    if wanted(Part::Clients) {
        for &clients in scale.clients {
            let place = Place { clients, waits: Waits::Sleep, ..place.clone() };
            report.part("clients", &whole, place, scale, Duration::ZERO);
        }
    }
    if wanted(Part::Spinning) {
        let molt = |label, spin| Contender { peer: peers::ALL[0], label, spin: Some(spin) };
        let both = [molt("molt, spinning while it pays", "adaptive"), molt("molt, never spinning", "never")];
        let place = Place { clients: SATURATED, waits: Waits::Sleep, ..place.clone() };
        report.part("spinning", &both, place, scale, Duration::ZERO);
    }
    if wanted(Part::Placing) {
        report.placing = Some(placing::measure(place, scale.table_bytes, scale.rounds)?);
    }
    Ok(report)
}

impl Report {
    /// One part: its peers in turn, round after round. A peer that fails is told of and left out from then on.
    fn part(&mut self, part: &'static str, contenders: &[Contender], place: Place, scale: Scale, pause: Duration) {
        eprintln!("{part}: {} bytes, {} clients", place.size, place.clients);
        let payload = pattern(place.size);
        let mut running = Vec::new();
        for (index, contender) in contenders.iter().enumerate() {
            // Names of its own: two contenders may be one peer.
            let place = Place {
                name: format!("{}-{index}", place.name),
                folder: place.folder.join(index.to_string()),
                ..place.clone()
            };
            match begin(*contender, &place, &payload) {
                Ok(one) => running.push(one),
                Err(why) => self.miss(part, contender.label, &place, &*why),
            }
        }
        for _ in 0..scale.rounds {
            running.retain_mut(|one| match one.turn(&payload, &place, scale, pause) {
                Ok(turn) => {
                    one.turns.push(turn);
                    true
                }
                Err(why) => {
                    self.miss(part, one.contender.label, &place, &*why);
                    false
                }
            });
        }
        let row = |one: &Running| Row::of(part, one.contender.label, place.size, place.clients, &one.turns);
        self.rows.extend(running.iter().map(row));
    }

    fn miss(&mut self, part: &str, peer: &str, place: &Place, why: &dyn std::fmt::Display) {
        let part = format!("{part}, {} bytes, {} clients", place.size, place.clients);
        eprintln!("{part}: {peer} is missing: {why}");
        self.missing.push(Missing { peer: peer.to_owned(), part, why: why.to_string() });
    }
}

/// Starts the server, attaches, and compares one answer byte by byte before anything is timed.
fn begin(contender: Contender, place: &Place, payload: &[u8]) -> Tried<Running> {
    contender.peer.is_there()?;
    std::fs::create_dir_all(&place.folder)?;
    let environment: Vec<(&str, &str)> = contender.spin.map(|spin| (SPIN, spin)).into_iter().collect();
    let server = Server::start(contender.peer, place, &environment)?;
    if let Some(spin) = contender.spin {
        molt_ipc_shm::spin::choose(spin.parse::<molt_ipc_shm::spin::Spinning>()?);
    }
    let attached = contender.peer.attach(place)?;
    echoes(&mut *attached.caller()?, payload)?;
    server.pause()?;
    Ok(Running { contender, server, attached, turns: Vec::new() })
}

impl Running {
    fn turn(&self, payload: &[u8], place: &Place, scale: Scale, pause: Duration) -> Tried<Turn> {
        self.server.go_on()?;
        if let Some(spin) = self.contender.spin {
            molt_ipc_shm::spin::choose(spin.parse::<molt_ipc_shm::spin::Spinning>()?);
        }
        let measured = self.measured(payload, place, scale, pause);
        self.server.pause()?;
        measured
    }

    fn measured(&self, payload: &[u8], place: &Place, scale: Scale, pause: Duration) -> Tried<Turn> {
        let (time, least) = if pause.is_zero() { (scale.time, scale.least) } else { (Duration::ZERO, scale.seldom) };
        let all = Mutex::new((histogram()?, Duration::ZERO));
        let used = Mutex::new((Ok(Duration::ZERO), Ok(Duration::ZERO)));
        let (ready, start, end) =
            (Barrier::new(place.clients), Barrier::new(place.clients), Barrier::new(place.clients));
        let client = || -> Tried<()> {
            let mut calls = histogram()?;
            // Warm, and no longer asleep from the time between the turns.
            let warm = pinned::pin(place, Side::Client).and_then(|()| self.attached.caller()).and_then(|mut caller| {
                call_for(&mut *caller, payload, time / 8, least.min(3), pause, &mut histogram()?)?;
                Ok(caller)
            });
            // One of the clients looks at the clocks: a thread of its own would wait for a core that they have.
            if ready.wait().is_leader() {
                lock(&used).0 = self.cpu();
            }
            start.wait();
            let began = Instant::now();
            let ended = warm.and_then(|mut caller| call_for(&mut *caller, payload, time, least, pause, &mut calls));
            let took = began.elapsed();
            if end.wait().is_leader() {
                lock(&used).1 = self.cpu();
            }
            let mut all = lock(&all);
            all.0.add(calls)?;
            all.1 = all.1.max(took);
            ended
        };
        std::thread::scope(|scope| -> Tried<()> {
            let clients: Vec<_> = (0..place.clients).map(|_| scope.spawn(client)).collect();
            let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            ended.into_iter().try_for_each(|client| client.map_err(|_| "a client panicked")?)
        })?;
        let (calls, took) = all.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (before, after) = used.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(turn(&calls, took, after?.saturating_sub(before?)))
    }

    /// Processor time of both processes.
    fn cpu(&self) -> Tried<Duration> {
        let own: Duration = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into();
        Ok(own + self.server.cpu()?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
