//! The watchdog: an entry that runs on though its time is up holds a thread for nobody, and nothing inside this process can
//! end it. After a grace it is told: to the log, to the segment for tools, and to the supervisor, which replaces the worker.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::stats::Overdue;
use molt_ipc_shm::worker::{Host, Probe};
use tracing::{error, info};

use crate::cancel::CancelToken;
use crate::log::Origin;

/// How often a supervisor is told again while entries do not end.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// So many looks have to find an entry late, ten a second: one that was stopped along with the whole worker, or with the
/// machine, gets the chance to notice first.
const LOOKS: u32 = 5;

/// What a worker says to its supervisor, over the pipe that it was handed: one byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// It serves.
    Serves,
    /// Entries do not end: it is to be replaced.
    Overdue,
    /// The same, and no thread is left to run anything else.
    Blocked,
}

impl Says {
    /// Says it. A supervisor of a former version has closed its end, and one that is gone has said so by a signal.
    pub fn tell(self, pipe: &mut File) {
        let _ = pipe.write_all(&[match self {
            Self::Serves => 1,
            Self::Overdue => 2,
            Self::Blocked => 3,
        }]);
    }

    /// Hears the next word; `None`: the pipe's other end is closed.
    pub fn hear(pipe: &mut File) -> Option<Self> {
        let mut byte = [0];
        pipe.read_exact(&mut byte).ok()?;
        match byte[0] {
            1 => Some(Self::Serves),
            2 => Some(Self::Overdue),
            _ => Some(Self::Blocked),
        }
    }
}

/// What one thread runs.
#[derive(Debug)]
pub struct Running {
    /// Asks whether it was taken back.
    pub probe: Probe,
    /// Tells the entry.
    pub cancel: CancelToken,
    /// Where it comes from, for the log.
    pub origin: Origin,
    /// The entry's slot.
    pub slot: u32,
    /// When its time is up, CLOCK_MONOTONIC nanoseconds.
    pub deadline_ns: u64,
    /// Looks that have found its grace over.
    pub late_looks: u32,
}

/// What each thread runs.
pub type Threads = Vec<Mutex<Option<Running>>>;

/// Locks what a thread runs.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Looks at what runs, and tells of what does not end.
#[derive(Debug)]
pub struct Watchdog {
    grace: Duration,
    supervisor: Option<Mutex<File>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    shown: Overdue,
    told: Option<Instant>,
}

impl Watchdog {
    /// A watchdog that lets entries run on for `grace`.
    pub fn new(grace: Duration, supervisor: Option<File>) -> Self {
        Self { grace, supervisor: supervisor.map(Mutex::new), seen: Mutex::default() }
    }

    /// Looks once.
    pub fn look(&self, threads: &Threads, host: &Host) {
        let (now, grace_ns) = (now_ns(), self.grace.as_nanos() as u64);
        let (mut overdue, mut news) = (Overdue::default(), false);
        for thread in threads {
            let mut running = lock(thread);
            let late = |running: &&mut Running| now > running.deadline_ns.saturating_add(grace_ns);
            let Some(running) = running.as_mut().filter(late) else { continue };
            running.late_looks = running.late_looks.saturating_add(1);
            if running.late_looks < LOOKS {
                continue;
            }
            if overdue.count == 0 || running.deadline_ns < overdue.since_ns {
                (overdue.entry, overdue.since_ns) = (running.slot, running.deadline_ns);
            }
            overdue.count += 1;
            if running.late_looks == LOOKS {
                news = true;
                let _origin = running.origin.enter();
                self.log(Duration::from_nanos(now - running.deadline_ns));
            }
        }
        let mut seen = lock(&self.seen);
        if overdue != seen.shown {
            if overdue.count == 0 {
                info!("the entries that ran on have ended");
            }
            overdue.show(&host.segment.map);
            host.overdue.store(overdue.count as usize, Ordering::Relaxed);
            seen.shown = overdue;
        }
        let again = seen.told.is_none_or(|told| told.elapsed() > TELL_AGAIN);
        if overdue.count > 0 && (news || again) {
            seen.told = Some(Instant::now());
            let says = if overdue.count as usize == threads.len() { Says::Blocked } else { Says::Overdue };
            if let Some(supervisor) = &self.supervisor {
                says.tell(&mut lock(supervisor));
            }
        }
    }

    fn log(&self, late: Duration) {
        let hint = match self.supervisor {
            Some(_) => "the supervisor replaces this worker; let the entry ask whether its time is up",
            None => {
                "its thread serves nobody until it ends: take over with --replace, or run with --supervise; \
                 let the entry ask whether its time is up"
            }
        };
        error!(late_ms = late.as_millis() as u64, "an entry runs on though its time is up; hint: {hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_hears_what_a_worker_says_and_when_it_is_gone() {
        let (hears, says) = nix::unistd::pipe().unwrap();
        let (mut hears, mut says) = (File::from(hears), File::from(says));
        let words = [Says::Serves, Says::Overdue, Says::Blocked];
        words.into_iter().for_each(|word| word.tell(&mut says));
        assert_eq!(words.map(|_| Says::hear(&mut hears)), words.map(Some));
        drop(says);
        assert_eq!(Says::hear(&mut hears), None);
    }
}
