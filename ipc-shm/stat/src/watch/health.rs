//! Is all well? One line.

use molt_ipc_shm::Outcome;
use molt_ipc_shm::doctor::Ill;

use super::history::Rates;
use super::snapshot::Snapshot;
use crate::units::{percent, rate, whole};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to do.
    Well,
    /// Worth a look.
    Look,
    /// Somebody is not served.
    Ill,
}

/// The line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How bad it is.
    pub level: Level,
    /// The worker in a word or three.
    pub worker: &'static str,
    /// What is so.
    pub text: String,
}

/// A caller gives up at the deadline by itself; a request that is open this long after it holds something up.
const OVERDUE_NS: i64 = 1_000_000_000;

/// Judges.
pub fn verdict(now: &Snapshot, rates: &Rates) -> Verdict {
    let findings = &now.findings;
    let has = |ill: Ill| findings.iter().find(|finding| finding.ill == ill);
    let worker = match () {
        _ if has(Ill::DeadWorker).is_some() && now.worker.state == "stopped" => "GONE",
        _ if has(Ill::DeadWorker).is_some() => "DEAD",
        _ if has(Ill::StuckWorker).is_some() => "DOES NOT ANSWER",
        _ => now.worker.state,
    };
    if has(Ill::DeadWorker).is_some() {
        let ago = whole(now.worker.silent_ns);
        let pid = now.worker.pid;
        if worker == "GONE" {
            let text = format!("the worker (pid {pid}) has left in good order {ago} ago. Waiting for the next one");
            return Verdict { level: Level::Ill, worker, text };
        }
        if let Some(supervisor) = now.worker.supervisor.as_ref().filter(|supervisor| supervisor.alive) {
            let text = format!("the worker (pid {pid}) is dead and is started again: {}", supervisor.text);
            return Verdict { level: Level::Ill, worker, text };
        }
        let text = format!(
            "the worker (pid {pid}) is dead; last sign of life {ago} ago. What you see is what it left. Waiting for the next \
             one"
        );
        return Verdict { level: Level::Ill, worker, text };
    }
    if let Some(first) = has(Ill::StuckWorker).or(findings.first()) {
        let level = if matches!(first.ill, Ill::StuckWorker | Ill::NotServing | Ill::Overdue) {
            Level::Ill
        } else {
            Level::Look
        };
        let others = match findings.len() {
            0 | 1 => String::new(),
            more => format!(" (and {} more, see `molt-shm-stat doctor`)", more - 1),
        };
        return Verdict { level, worker, text: format!("{}{others}", first.text) };
    }
    let arena = (now.arena.used(), now.arena.total());
    let refused = rates.outcomes[Outcome::Busy as usize];
    let failed = rates.outcomes[Outcome::Internal as usize];
    let overdue = now.requests.iter().filter(|request| request.left_ns.is_some_and(|left| left < -OVERDUE_NS)).count();
    let complaint = match () {
        _ if now.worker.state == "starting" => Some("the worker is starting".to_owned()),
        _ if refused > 0.0 => Some(format!("{} requests/s are refused: too much at once", rate(refused))),
        _ if failed > 0.0 => Some(format!("{} requests/s fail in the worker; see its log", rate(failed))),
        _ if overdue > 0 => Some(match overdue {
            1 => "a request is still open long after its deadline".to_owned(),
            several => format!("{several} requests are still open long after their deadline"),
        }),
        _ if arena.0 / 9 > arena.1 / 10 => Some(format!("the arena is {} full", percent(arena.0, arena.1))),
        _ => None,
    };
    match complaint {
        Some(text) => Verdict { level: Level::Look, worker, text },
        None => Verdict { level: Level::Well, worker, text: "all is well".into() },
    }
}
