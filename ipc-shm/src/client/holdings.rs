//! What a client holds of the arena: blocks it writes and sends, leases on results. Each keeps the session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::block::Block;
use crate::frame::Handle;
use crate::mapping::Mapping;

use super::session::Session;

/// Bytes in the arena that the client writes and sends.
pub struct ClientBlock {
    block: Option<Block>,
    session: Arc<Session>,
    /// A request that carries it was given up while the worker may still read it.
    abandoned: AtomicBool,
}

impl fmt::Debug for ClientBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, len) = self.block.as_ref().map_or((0, 0), |block| (block.offset(), block.len()));
        write!(f, "ClientBlock({len} bytes at {at} of {:?})", self.session)
    }
}

impl ClientBlock {
    pub(super) fn new(block: Block, session: Arc<Session>) -> Self {
        Self { block: Some(block), session, abandoned: AtomicBool::new(false) }
    }

    /// The block.
    pub fn block(&self) -> &Block {
        let Some(block) = &self.block else { unreachable!("taken by drop alone") };
        block
    }

    /// Shortens it to what was written; only while nobody else has it.
    pub fn truncate(this: &mut Arc<Self>, len: usize) -> bool {
        match Arc::get_mut(this).and_then(|own| own.block.as_mut()) {
            Some(block) => {
                block.truncate(len);
                true
            }
            None => false,
        }
    }

    /// Leaves its extents claimed when the last holder is gone: the worker takes them back at the session's end, when no
    /// request of it runs any more.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// The session whose arena it lies in.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Where it lies in this process, to be written.
    pub fn address(&self) -> *mut u8 {
        self.block().mapping().writable(self.block().offset(), self.block().len())
    }

    /// A private copy, to be sent to another worker.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = Vec::new();
        self.block().mapping().read_to_vec(self.block().offset(), self.block().len(), &mut copy);
        copy
    }
}

impl Drop for ClientBlock {
    fn drop(&mut self) {
        if self.abandoned.load(Ordering::Relaxed)
            && let Some(block) = self.block.take()
        {
            block.abandon();
        }
    }
}

/// A result in the arena that the worker keeps until this is dropped.
pub struct Lease {
    session: Arc<Session>,
    number: u32,
    offset: usize,
    len: usize,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, number, offset, len } = self;
        write!(f, "Lease({number}: {len} bytes at {offset} of {session:?})")
    }
}

impl Lease {
    /// A checked handle's lease.
    pub(super) fn new(session: Arc<Session>, number: u32, handle: &Handle) -> Self {
        Self { session, number, offset: handle.offset as usize, len: handle.len as usize }
    }

    /// Where it lies in this process, for reading.
    pub fn address(&self) -> *const u8 {
        self.mapping().readable(self.offset, self.len)
    }

    /// Offset in the segment.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The mapping it lies in.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.session.segment.map
    }

    /// A private copy.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = Vec::new();
        self.mapping().read_to_vec(self.offset, self.len, &mut copy);
        copy
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A forked child has inherited the view, not the lease.
        if self.session.is_mine() {
            self.session.let_go(self.number);
        }
    }
}
