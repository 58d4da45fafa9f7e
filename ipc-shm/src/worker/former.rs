//! The worker that had the name before, still alive: how it is told to finish and go.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use crate::address;
use crate::client::{LOOK_WITHIN, dial};
use crate::handshake::{self, Leave, message};
use crate::segment::Segment;

/// The former worker of a name. Its pid, which the segment says, is for messages alone: nothing is sent to a pid. The
/// worker is reached over the socket that its own segment names, the kernel tells whose that is, and the message names the
/// instance, so no other process can be meant.
#[derive(Debug)]
pub struct Former {
    /// Its process, as its segment says.
    pub pid: u32,
    instance: u64,
    line: io::Result<UnixStream>,
}

impl Former {
    /// Connects to it, while its socket still has its path.
    pub(super) fn of(segment: &Segment) -> Self {
        let header = &segment.header;
        Self { pid: header.worker_pid, instance: header.instance, line: dial::connect_to(&segment.socket()) }
    }

    /// The live worker that a socket leads to, which may hang: the former one of a segment that has no name. `own`: the
    /// instance that asks.
    pub(super) fn at(socket: &Path, own: u64) -> Option<Self> {
        let answered = dial::look(socket, Instant::now() + LOOK_WITHIN).map(|(segment, _)| segment);
        let segment = answered.ok().or_else(|| address::held_for(socket, Some(own)))?;
        segment.is_alive().then(|| Self::of(&segment))
    }

    /// Tells it that its successor serves: it finishes what it runs, hands back what it has not begun, and goes.
    pub fn leave(self) -> io::Result<()> {
        let line = self.line?;
        handshake::send(line.as_fd(), message::LEAVE, &Leave { instance: self.instance }.encode(), None)
    }
}
