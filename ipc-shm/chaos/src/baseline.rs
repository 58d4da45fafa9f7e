//! What a segment and its worker have in use, and whether all of it came back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use molt_ipc_shm::layout::{SlotState, channel};
use molt_ipc_shm::stat::Report;

use crate::process::{patience, within};
use crate::stage::Stage;

/// What is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The clients' processes, one a session.
    pub sessions: Vec<u32>,
    /// Channel slots that are not free.
    pub channels: usize,
    /// Results lent.
    pub leases: u64,
    /// Bytes of claimed extents.
    pub arena: u64,
    /// The worker's descriptors.
    pub descriptors: usize,
    /// The worker's threads.
    pub threads: usize,
    /// Names in /dev/shm.
    pub names: Vec<String>,
    /// Files beside the socket.
    pub sockets: Vec<String>,
}

fn count(path: &str) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

impl Usage {
    /// Reads it, of the worker that has the name now.
    pub fn read(stage: &Stage) -> Result<Self, String> {
        let segment = stage.segment()?;
        let report = Report::of(&segment);
        let (map, geometry) = (&segment.map, &segment.geometry);
        let used = |index: &u32| {
            let word = map.u64(geometry.channel(*index) + channel::WORD).load(Ordering::Acquire);
            SlotState::of(word) != SlotState::Free
        };
        let pid = segment.header.worker_pid;
        Ok(Self {
            sessions: report.sessions.iter().map(|session| session.pid).collect(),
            channels: (0..geometry.channels).filter(used).count(),
            leases: report.sessions.iter().map(|session| u64::from(session.leases)).sum(),
            arena: report.arena.used_bytes,
            descriptors: count(&format!("/proc/{pid}/fd")),
            threads: count(&format!("/proc/{pid}/task")),
            names: stage.names(),
            sockets: stage.sockets(),
        })
    }

    /// Waits until all is as it was; how long it took.
    pub fn returns(&self, stage: &Stage) -> Result<Duration, String> {
        let started = Instant::now();
        let mut last = Ok(self.clone());
        let back = within(patience(), || {
            last = Self::read(stage);
            last.as_ref() == Ok(self)
        });
        match last {
            _ if back => Ok(started.elapsed()),
            Ok(last) => Err(format!("not at the baseline in time:\n  was {self:?}\n  is  {last:?}")),
            Err(what) => Err(what),
        }
    }
}

/// Waits until a process that is dead has no session any more; how long it took.
pub fn forgotten(stage: &Stage, pid: u32) -> Result<Duration, String> {
    let started = Instant::now();
    let is_gone =
        || stage.segment().is_ok_and(|segment| !Report::of(&segment).sessions.iter().any(|session| session.pid == pid));
    if within(patience(), is_gone) {
        return Ok(started.elapsed());
    }
    let usage = Usage::read(stage);
    Err(format!("the session of the killed process {pid} is still there in time: {usage:?}"))
}
