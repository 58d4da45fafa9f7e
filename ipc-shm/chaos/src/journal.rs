//! What clients and workers did, written where no SIGKILL can take it back: one append of 16 bytes an event.
//!
//! A write to a file is the kernel's once the call has returned, and 16 divides a page, so a record is there or not.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use molt_ipc_shm::Outcome;
use molt_ipc_shm::os::now_ns;

/// What a request is, which decides how it may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Plan {
    /// Answered with what it should be.
    Plain = 0,
    /// A deadline that is sometimes too short.
    Hasty = 1,
    /// Taken back at some time.
    TakenBack = 2,
    /// Wrong by intent.
    Wrong = 3,
}

impl Plan {
    const ALL: [Plan; 4] = [Plan::Plain, Plan::Hasty, Plan::TakenBack, Plan::Wrong];
}

/// How often a request may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resend {
    /// Running it twice does no harm.
    pub idempotent: bool,
    /// It may be sent a second time.
    pub allowed: bool,
}

/// An event of a client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is about to be sent.
    Begun(Plan, Resend),
    /// It ended; `true`: it was sent a second time.
    Ended(Outcome, bool),
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// The request.
    pub seq: u32,
    /// The client's thread.
    pub thread: u8,
    /// What happened.
    pub event: Event,
}

const BYTES: usize = 16;
const BEGUN: u8 = 1;
const ENDED: u8 = 2;

impl Record {
    fn encode(&self) -> [u8; BYTES] {
        let (kind, what, flags) = match self.event {
            Event::Begun(plan, resend) => {
                (BEGUN, plan as u8, u8::from(resend.idempotent) | u8::from(resend.allowed) << 1)
            }
            Event::Ended(outcome, again) => (ENDED, outcome as u8, u8::from(again)),
        };
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.at_ns.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.seq.to_le_bytes());
        bytes[12..].copy_from_slice(&[kind, what, flags, self.thread]);
        bytes
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let [kind, what, flags, thread] = [bytes[12], bytes[13], bytes[14], bytes[15]];
        let event = match kind {
            BEGUN => {
                let resend = Resend { idempotent: flags & 1 != 0, allowed: flags & 2 != 0 };
                Event::Begun(*Plan::ALL.get(what as usize)?, resend)
            }
            ENDED => Event::Ended(Outcome::from_code(what)?, flags & 1 != 0),
            _ => return None,
        };
        let (at_ns, seq) = (u64::from_le_bytes(bytes[..8].try_into().ok()?), &bytes[8..12]);
        Some(Self { at_ns, seq: u32::from_le_bytes(seq.try_into().ok()?), thread, event })
    }
}

/// Where a process appends its events.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

impl Journal {
    /// Opens it, at its end.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().create(true).append(true).open(path)? })
    }

    /// A client's event.
    pub fn write(&self, thread: u8, seq: u32, event: Event) {
        let record = Record { at_ns: now_ns(), seq, thread, event };
        (&self.file).write_all(&record.encode()).expect("room for a journal");
    }

    /// A worker's event: it starts to run this request.
    pub fn run(&self, client: u32, seq: u32) {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&client.to_le_bytes());
        bytes[4..].copy_from_slice(&seq.to_le_bytes());
        (&self.file).write_all(&bytes).expect("room for a journal");
    }
}

/// Reads a journal on from where it was read last.
#[derive(Debug)]
pub struct Tail<const N: usize> {
    file: File,
    rest: Vec<u8>,
}

impl<const N: usize> Tail<N> {
    fn open(path: &Path) -> io::Result<Self> {
        // The process may not have made it yet.
        let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        Ok(Self { file, rest: Vec::new() })
    }

    fn next(&mut self, mut each: impl FnMut(&[u8; N])) -> io::Result<()> {
        self.file.read_to_end(&mut self.rest)?;
        let (whole, rest) = self.rest.as_chunks::<N>();
        whole.iter().for_each(&mut each);
        self.rest = rest.to_vec();
        Ok(())
    }
}

/// A client's journal.
pub type ClientTail = Tail<BYTES>;
/// A worker's journal.
pub type WorkerTail = Tail<8>;

impl ClientTail {
    /// Begins at its start.
    pub fn of_client(path: &Path) -> io::Result<Self> {
        Self::open(path)
    }

    /// What was written since.
    pub fn records(&mut self, into: &mut Vec<Record>) -> io::Result<()> {
        self.next(|bytes| into.extend(Record::decode(bytes)))
    }
}

impl WorkerTail {
    /// Begins at its start.
    pub fn of_worker(path: &Path) -> io::Result<Self> {
        Self::open(path)
    }

    /// What was run since: client and request.
    pub fn runs(&mut self, mut each: impl FnMut(u32, u32)) -> io::Result<()> {
        self.next(|bytes| {
            let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            each(word(0), word(4));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_while_it_grows() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (journal, mut tail, mut seen) =
            (Journal::open(&path).expect("a journal"), ClientTail::of_client(&path).expect("its tail"), Vec::new());
        let resend = Resend { idempotent: true, allowed: false };
        let events = [Event::Begun(Plan::Hasty, resend), Event::Ended(Outcome::WorkerLost, true)];
        for (count, event) in events.into_iter().enumerate() {
            journal.write(3, 77, event);
            tail.records(&mut seen).expect("records");
            assert_eq!(seen.len(), count + 1);
            assert_eq!((seen[count].thread, seen[count].seq, seen[count].event), (3, 77, event));
        }
    }
}
