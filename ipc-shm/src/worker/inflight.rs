//! A request that the worker has taken: what was asked, and the duty to answer it exactly once.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow_buffer::alloc::Allocation;

use crate::arena::BadHandle;
use crate::block::Block;
use crate::cell::{self, CellState};
use crate::frame::{Codec, Handle, RequestHead, request_flag};
use crate::layout::totals;
use crate::outcome::Outcome;
use crate::stats;
use crate::table::{self, Table, TableFault};
use crate::trace::TraceContext;
use crate::word::Word64;

use super::host::Host;
use super::peer::ReplyPath;
use super::readers::Readers;
use super::resident::Resident;

/// Tasks that were told to stop drop their batches when the step they are in is done: mostly within microseconds, with a
/// large sort within seconds. A reader that outlives this is a defect.
const READERS_LEAVE_WITHIN: Duration = Duration::from_secs(60);

/// A request between the ring and its answer. Dropping it unanswered answers Internal: a panic loses one request only.
#[derive(Debug)]
pub struct Inflight {
    pub(super) host: Arc<Host>,
    pub(super) path: Arc<ReplyPath>,
    /// The checked head.
    pub head: RequestHead,
    /// A private copy of the frame.
    pub(super) frame: Vec<u8>,
    pub(super) answered: bool,
    /// Who reads its tables; made with the first.
    pub(super) readers: OnceLock<Arc<Readers>>,
    /// Requests that waited when this one was taken.
    pub queue_depth: u32,
}

/// The payload of a request.
#[derive(Debug)]
pub enum Payload<'a> {
    /// It came in the frame, of which this process has a copy.
    Inline(&'a [u8]),
    /// It lies in the arena.
    Arena(Handle),
    /// Named tables in the arena.
    Tables(Vec<TableInput>),
}

/// A table that came with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInput {
    /// The name that a query knows it by.
    pub name: String,
    /// Where it lies.
    pub handle: Handle,
}

/// What running a request cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Microseconds between commit and start.
    pub queue_us: u32,
    /// Microseconds of running.
    pub exec_us: u32,
    /// Heap allocations.
    pub allocs: u32,
    /// Bytes of them.
    pub alloc_bytes: u64,
    /// Requests that waited when it was taken.
    pub queue_depth: u32,
    /// Bytes of tables that could not be read in place.
    pub copied_bytes: u64,
    /// Plans that SQL made for it, at most 255.
    pub plans: u8,
    /// Milliseconds since the rows were published of the oldest of the worker's own tables that it read; `None`: it read none.
    pub table_age_ms: Option<u32>,
}

/// Bytes of an answer that lie in the arena.
#[derive(Debug)]
pub enum Placed {
    /// A result, for the caller alone.
    Block(Block),
    /// A resident table.
    Resident(Arc<Resident>),
}

impl Placed {
    /// Where they lie.
    pub fn handle(&self) -> Handle {
        match self {
            Placed::Block(block) => block.handle(),
            Placed::Resident(resident) => resident.handle(),
        }
    }
}

/// The bytes of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// In private memory: they travel inline or are copied into the arena.
    Bytes(Vec<u8>),
    /// Already in the arena.
    Placed(Placed),
    /// The same, and a table that was read in full or written here: who gets it need not validate it again.
    Table(Placed),
}

/// How a request ends.
#[derive(Debug)]
pub struct Answer {
    /// Its outcome.
    pub outcome: Outcome,
    /// HTTP status of the entry's own choice, or 0.
    pub status: u16,
    /// [`Codec`] of the body, or 0.
    pub codec: u8,
    /// When not ok: bytes of the text at the body's start; MsgPack details follow it.
    pub text_len: u32,
    /// The bytes.
    pub body: AnswerBody,
    /// What it cost.
    pub metrics: Metrics,
}

impl Answer {
    /// Ok, with a body.
    pub fn ok(codec: Codec, body: AnswerBody) -> Self {
        Self { outcome: Outcome::Ok, status: 0, codec: codec as u8, text_len: 0, body, metrics: Metrics::default() }
    }

    /// Not ok, with a text.
    pub fn failure(outcome: Outcome, text: impl Into<String>) -> Self {
        Self::failure_with(outcome, 0, text.into(), &[])
    }

    /// Not ok, with a text, a status of the entry's choice (or 0), and details in MsgPack (or none).
    pub fn failure_with(outcome: Outcome, status: u16, text: String, details: &[u8]) -> Self {
        let text_len = text.len() as u32;
        let mut body = text.into_bytes();
        body.extend_from_slice(details);
        let body = AnswerBody::Bytes(body);
        Self { outcome, status, codec: 0, text_len, body, metrics: Metrics::default() }
    }
}

impl Inflight {
    fn part(&self, at: usize, len: usize) -> &[u8] {
        &self.frame[at..at + len]
    }

    fn params_at(&self) -> usize {
        RequestHead::BYTES + self.head.name_len as usize
    }

    fn handles_at(&self) -> usize {
        self.params_at() + self.head.params_len as usize + self.head.names_len as usize
    }

    /// Whether the parts of a frame add up to its length. Checked before anything else looks at them.
    pub(super) fn adds_up(head: &RequestHead) -> bool {
        let parts = RequestHead::BYTES as u64
            + head.name_len as u64
            + head.params_len as u64
            + head.names_len as u64
            + head.handles as u64 * Handle::BYTES as u64
            + head.payload_len as u64
            + if head.flags & request_flag::TRACED != 0 { TraceContext::BYTES as u64 } else { 0 };
        parts == head.len as u64
    }

    /// The entry asked for; what is no UTF-8 is nobody's name.
    pub fn entry(&self) -> &str {
        std::str::from_utf8(self.part(RequestHead::BYTES, self.head.name_len as usize)).unwrap_or("\u{fffd}")
    }

    /// The payload's codec.
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_code(self.head.codec)
    }

    /// The codec wanted for the answer.
    pub fn accept(&self) -> Option<Codec> {
        Codec::from_code(if self.head.accept == 0 { self.head.codec } else { self.head.accept })
    }

    /// The trace that it belongs to, if its caller says so.
    pub fn trace(&self) -> Option<TraceContext> {
        let traced = self.head.flags & request_flag::TRACED != 0;
        traced.then(|| self.frame[..self.head.len as usize].last_chunk().and_then(TraceContext::decode)).flatten()
    }

    /// When nobody waits any more, CLOCK_MONOTONIC nanoseconds; `None`: the entry's own limit.
    pub fn deadline_ns(&self) -> Option<u64> {
        (self.head.deadline_ns != 0).then_some(self.head.deadline_ns)
    }

    /// The session's slot: who asks.
    pub fn session(&self) -> u32 {
        self.path.peer.slot
    }

    /// The channel that it came through.
    pub fn channel(&self) -> u32 {
        self.path.index
    }

    /// The client's process.
    pub fn pid(&self) -> u32 {
        self.path.peer.pid
    }

    fn handle(&self, index: usize) -> Result<Handle, BadHandle> {
        let at = self.handles_at() + index * Handle::BYTES;
        let mut bytes = [0; Handle::BYTES];
        bytes.copy_from_slice(self.part(at, Handle::BYTES));
        let handle = Handle::decode(&bytes);
        self.host.blocks.arena().check(&handle, self.path.peer.owner())?;
        Ok(handle)
    }

    /// The params: a MsgPack map, or empty.
    pub fn params(&self) -> Result<Vec<u8>, BadHandle> {
        if self.head.flags & request_flag::PARAMS_HANDLE != 0 && self.head.handles > 0 {
            return self.copy_out(&self.handle(0)?);
        }
        Ok(self.part(self.params_at(), self.head.params_len as usize).to_vec())
    }

    /// The payload. Handles are checked against the arena and the sender.
    pub fn payload(&self) -> Result<Payload<'_>, BadHandle> {
        let first = usize::from(self.head.flags & request_flag::PARAMS_HANDLE != 0).min(self.head.handles as usize);
        if self.head.flags & request_flag::NAMED != 0 {
            let names = self.part(self.params_at() + self.head.params_len as usize, self.head.names_len as usize);
            let mut names = names.split(|byte| *byte == 0);
            let tables = (first..self.head.handles as usize).map(|index| {
                let name = String::from_utf8_lossy(names.next().unwrap_or_default()).into_owned();
                Ok(TableInput { name, handle: self.handle(index)? })
            });
            return Ok(Payload::Tables(tables.collect::<Result<_, BadHandle>>()?));
        }
        if self.head.flags & request_flag::HANDLES != 0 && first < self.head.handles as usize {
            return Ok(Payload::Arena(self.handle(first)?));
        }
        let at = self.handles_at() + self.head.handles as usize * Handle::BYTES;
        Ok(Payload::Inline(self.part(at, self.head.payload_len as usize)))
    }

    /// Bytes of the payload, without looking at them.
    pub fn payload_len(&self) -> Result<u64, BadHandle> {
        Ok(match self.payload()? {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Arena(handle) => handle.len,
            Payload::Tables(tables) => tables.iter().map(|table| table.handle.len).sum(),
        })
    }

    /// A private copy of what a checked handle names. Decoders of JSON and MsgPack read this, never the arena.
    pub fn copy_out(&self, handle: &Handle) -> Result<Vec<u8>, BadHandle> {
        let mut copy = Vec::new();
        self.copy_into(handle, &mut copy);
        Ok(copy)
    }

    /// The same into a buffer that is used again and again.
    pub fn copy_into(&self, handle: &Handle, copy: &mut Vec<u8>) {
        copy.clear();
        self.host.segment.map.read_to_vec(handle.offset as usize, handle.len as usize, copy);
    }

    /// Copies a checked handle's bytes into a block of the worker's, inside the arena.
    pub fn copy_to_block(&self, handle: &Handle) -> Result<Block, crate::block::NoBlock> {
        let block = self.result_block(handle.len as usize)?;
        self.host.segment.map.copy_within(handle.offset as usize, block.offset(), handle.len as usize);
        Ok(block)
    }

    /// Makes the bytes of a checked handle the worker's own: the run changes hands where it lies, or, where they share
    /// extents with other blocks of the sender's, they are copied into a block of the worker's.
    pub fn take_over(&self, handle: &Handle) -> Result<Block, crate::block::NoBlock> {
        match self.host.blocks.arena().take_over(handle, self.path.peer.owner()) {
            Ok(run) => Ok(self.host.blocks.adopt(run, handle.len as usize)),
            Err(_) => self.copy_to_block(handle),
        }
    }

    /// The host it came through.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Moves it from queued to running; `false`: the caller has taken it back meanwhile.
    pub fn begin(&self) -> bool {
        cell::begin(self.cell(), self.head.id)
    }

    /// Whether the caller has taken it back, or is gone.
    pub fn is_cancelled(&self) -> bool {
        is_cancelled(&self.host, &self.path, &self.head)
    }

    /// Asks the same from elsewhere.
    pub fn probe(&self) -> Probe {
        Probe { host: self.host.clone(), path: self.path.clone(), head: self.head }
    }

    /// Reads a table where it lies.
    pub fn read_table(&self, handle: &Handle) -> Result<Table, TableFault> {
        self.read_at(handle, None)
    }

    /// Reads a table that lies in a block of the worker's own.
    pub fn read_own_table(&self, block: Block) -> Result<Table, TableFault> {
        self.read_at(&block.handle(), Some(block))
    }

    fn read_at(&self, handle: &Handle, block: Option<Block>) -> Result<Table, TableFault> {
        let map = &self.host.segment.map;
        let readers = self.readers.get_or_init(Arc::default);
        let owner: Arc<dyn Allocation> = Arc::new(readers.reader(map.clone(), block));
        table::read(map, handle.offset as usize, handle.len as usize, &owner)
    }

    fn cell(&self) -> &Word64 {
        let geometry = &self.host.segment.geometry;
        self.host.segment.map.u64(geometry.cell(self.path.index, self.head.cell))
    }

    /// A block of the worker's, to write a result into.
    pub fn result_block(&self, len: usize) -> Result<Block, crate::block::NoBlock> {
        self.host.result_block(&self.path.peer, len)
    }

    /// The one answer. Whatever still reads the request's tables is waited for first.
    pub fn answer(mut self, answer: Answer) {
        self.finish(answer);
    }

    fn finish(&mut self, answer: Answer) {
        self.answered = true;
        let done = self.readers.get().is_none_or(|readers| readers.wait_for_none(READERS_LEAVE_WITHIN));
        // An answer gives the bytes back to the client. Better none, and the client's time-out, than bytes that change
        // under a reader; the session's extents then stay claimed, since this request stays in flight.
        if done {
            self.host.answer(self, answer);
        } else {
            stats::count(&self.host.segment.map, &self.host.segment.geometry, totals::STUCK, 1);
        }
    }
}

fn is_cancelled(host: &Host, path: &ReplyPath, head: &RequestHead) -> bool {
    let cell = host.segment.map.u64(host.segment.geometry.cell(path.index, head.cell));
    cell::state(cell, head.id) == Some(CellState::Cancelled) || path.peer.gone.load(Ordering::Relaxed)
}

/// Asks whether a request was taken back, while another thread runs it.
#[derive(Debug, Clone)]
pub struct Probe {
    host: Arc<Host>,
    path: Arc<ReplyPath>,
    head: RequestHead,
}

impl Probe {
    /// Whether the caller has taken it back, or is gone.
    pub fn is_cancelled(&self) -> bool {
        is_cancelled(&self.host, &self.path, &self.head)
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        if !self.answered {
            self.finish(Answer::failure(Outcome::Internal, "the worker dropped this request"));
        }
    }
}
