//! What the supervisor of a worker says in the worker's segment, for whoever looks at it while the worker is dead.

use std::fs::File;
use std::sync::atomic::Ordering;

use crate::Address;
use crate::layout::{SUPERVISION_AT, supervision};
use crate::locks::ObjectLock;
use crate::nameless;
use crate::os::now_ns;
use crate::segment::{self, Segment, SegmentError};

/// What a supervisor says of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Supervision {
    /// The supervisor's process; 0: nobody supervises this worker.
    pub pid: u32,
    /// Starts before this one.
    pub restarts: u32,
    /// Workers in a row that died young.
    pub in_a_row: u32,
    /// How the last worker that died ended, and when (CLOCK_MONOTONIC).
    pub last_end: Option<(LastEnd, u64)>,
    /// CLOCK_MONOTONIC nanoseconds when the next worker is started, once this one has died.
    pub next_start_ns: Option<u64>,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastEnd {
    /// By itself, with this code.
    Exit(u8),
    /// By this signal.
    Signal(u8),
}

impl LastEnd {
    const EXIT: u32 = 256;
    const SIGNAL: u32 = 512;

    fn pack(self) -> u32 {
        match self {
            Self::Exit(code) => Self::EXIT | u32::from(code),
            Self::Signal(signal) => Self::SIGNAL | u32::from(signal),
        }
    }

    fn unpack(word: u32) -> Option<Self> {
        match word & !255 {
            Self::EXIT => Some(Self::Exit(word as u8)),
            Self::SIGNAL => Some(Self::Signal(word as u8)),
            _ => None,
        }
    }
}

impl std::fmt::Display for LastEnd {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(out, "exit code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(i32::from(*signal)) {
                Ok(name) => write!(out, "killed by {name}"),
                Err(_) => write!(out, "killed by signal {signal}"),
            },
        }
    }
}

impl std::fmt::Display for Supervision {
    /// In the words of the stat tool and of refusals.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |ns: u64| ns as f64 / 1e9;
        write!(out, "supervisor pid {}, restarted {} times", self.pid, self.restarts)?;
        if let Some((end, at)) = self.last_end {
            write!(out, ", last end: {end} {:.1} s ago", seconds(now_ns().saturating_sub(at)))?;
        }
        if self.in_a_row > 1 {
            write!(out, ", died young {} times in a row", self.in_a_row)?;
        }
        match self.next_start_ns.map(|at| at.saturating_sub(now_ns())) {
            Some(0) => write!(out, ", being started again"),
            Some(left) => write!(out, ", next start in {:.1} s", seconds(left)),
            None => Ok(()),
        }
    }
}

impl Segment {
    /// What the worker's supervisor says.
    pub fn supervision(&self) -> Supervision {
        let short = |at: usize| self.map.u32(SUPERVISION_AT + at).load(Ordering::Relaxed);
        let long = |at: usize| self.map.u64(SUPERVISION_AT + at).load(Ordering::Relaxed);
        let last_end = LastEnd::unpack(short(supervision::LAST_END));
        Supervision {
            pid: short(supervision::PID),
            restarts: short(supervision::RESTARTS),
            in_a_row: short(supervision::IN_A_ROW),
            last_end: last_end.map(|end| (end, long(supervision::LAST_END_NS))),
            next_start_ns: Some(long(supervision::NEXT_START_NS)).filter(|at| *at > 0),
        }
    }
}

/// The segment of a supervisor's worker, as the supervisor has it. While it is held, the kernel tells everybody that a
/// supervisor lives: the worker's name is not given away when it dies.
#[derive(Debug)]
pub struct Supervised {
    segment: Segment,
    /// Locked; closing it is the end of the lock.
    object: File,
    /// The segment's worker is dead, and this stands in for it.
    stands_in: bool,
}

impl Supervised {
    /// The segment there, if it is the one of this child.
    pub fn of_child(address: &Address, pid: u32) -> Result<Self, SegmentError> {
        let (segment, object) = match address {
            Address::Name { shm, .. } => segment::open_instance(shm, pid)?,
            Address::Socket(path) => nameless::made_by(pid, path)
                .ok_or_else(|| SegmentError::NotFound { name: format!("{} of process {pid}", path.display()) })?,
        };
        if !ObjectLock::Supervisor.take(&object) {
            return Err(SegmentError::NameBusy { name: segment.name });
        }
        Ok(Self { segment, object, stands_in: false })
    }

    /// The worker has died: its segment's pages come back as far as nobody looks at them, and what is said of it is said in a
    /// stand-in, so that its successor has room (`segment::remains`). To be called once its process has been waited for.
    ///
    /// # Errors
    /// There is no stand-in, and the segment stays what it is: the name is another's by now, or there is no room at all.
    pub fn make_way(&mut self) -> Result<(), SegmentError> {
        if self.stands_in || self.segment.is_alive() {
            return Ok(());
        }
        let (segment, object) = (&self.segment, &self.object);
        let (stand_in, shared) = match segment.is_nameless() {
            true => {
                let stand_in = nameless::stand_in(segment, object)?;
                ObjectLock::Supervisor.take(&stand_in);
                let shared = nameless::open_again(&stand_in).map_err(segment::os("open again", &segment.name))?;
                (stand_in, Some(shared.into()))
            }
            false => (segment::replace_by_stand_in(segment, object)?, None),
        };
        let segment = Segment { object: shared, ..Segment::of_file(&segment.name, &stand_in)? };
        // The former object goes with its last mapping: nobody supervises it any more.
        *self = Self { segment, object: stand_in, stands_in: true };
        Ok(())
    }

    /// Whether the worker's name still leads here. A segment without a name has nothing but its socket.
    pub fn has_name(&self) -> bool {
        self.segment.is_nameless() || segment::has_name(&self.object, &self.segment.name)
    }

    /// Writes what is to be said.
    pub fn say(&self, what: &Supervision) {
        let map = &self.segment.map;
        let short = |at: usize, value: u32| map.u32(SUPERVISION_AT + at).store(value, Ordering::Relaxed);
        let long = |at: usize, value: u64| map.u64(SUPERVISION_AT + at).store(value, Ordering::Relaxed);
        short(supervision::RESTARTS, what.restarts);
        short(supervision::IN_A_ROW, what.in_a_row);
        long(supervision::LAST_END_NS, what.last_end.map_or(0, |(_, at)| at));
        short(supervision::LAST_END, what.last_end.map_or(0, |(end, _)| end.pack()));
        long(supervision::NEXT_START_NS, what.next_start_ns.unwrap_or(0));
        short(supervision::PID, what.pid);
    }

    /// Removes the name of a worker that died and is not started again, and the socket's path with it if it still stands
    /// for `listener`.
    pub fn retire(self, listener: &crate::worker::Listener) {
        if self.segment.is_nameless() {
            return listener.unlink();
        }
        segment::retire_dead(&self.segment.name, self.segment.header.instance, || listener.unlink());
    }
}
