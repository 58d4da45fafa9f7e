//! Blocks: what an owner cuts its extents into, in private memory.
//!
//! A large block is a run of extents of its own. Small ones share an extent: each takes the next 64-byte-aligned bytes,
//! and the extent goes back when its last block does, so an idle owner keeps none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::arena::{Arena, ArenaFull, Run};
use crate::frame::Handle;
use crate::layout::ALIGN;
use crate::mapping::Mapping;

/// An owner's blocks. Shared by its threads.
#[derive(Debug)]
pub struct Blocks {
    arena: Arena,
    /// The process that owns them: a forked child inherits the memory, not the ownership.
    pid: u32,
    /// Most bytes of runs this owner may hold.
    quota: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The extent that small blocks are cut from.
    current: Option<Shared>,
    /// Earlier ones, with blocks still in use.
    filled: Vec<Shared>,
    sequence: u64,
    held: u64,
}

#[derive(Debug)]
struct Shared {
    run: Run,
    used: u64,
    live: u32,
}

/// Why there is no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBlock {
    /// The arena is full.
    #[error(transparent)]
    Full(#[from] ArenaFull),
    /// The owner holds as much as it may.
    #[error("a block of {wanted} bytes would take this session over its arena quota: it holds {held} of {quota} bytes")]
    Quota {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes held.
        held: u64,
        /// Bytes allowed.
        quota: u64,
    },
}

/// Bytes in the arena that this process owns, until dropped.
#[derive(Debug)]
pub struct Block {
    owner: Arc<Blocks>,
    run: Run,
    /// Whether the run is shared with other blocks.
    shared: bool,
    offset: usize,
    len: usize,
    sequence: u64,
    /// The extents stay claimed when this is dropped.
    abandoned: AtomicBool,
}

impl Blocks {
    /// Nothing held yet.
    pub fn new(arena: Arena, quota: u64) -> Arc<Self> {
        Arc::new(Self { arena, pid: crate::os::pid(), quota, inner: Mutex::default() })
    }

    /// The arena they are cut from.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// A block of `len` bytes, 64-byte aligned.
    pub fn allocate(self: &Arc<Self>, len: usize) -> Result<Block, NoBlock> {
        let extent = self.arena.geometry().extent_bytes as u64;
        let mut inner = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        inner.sequence += 1;
        let sequence = inner.sequence;
        // A length beyond any arena goes the way of the large ones, where it is refused.
        let size = (len.max(1) as u64).checked_next_multiple_of(ALIGN as u64).unwrap_or(u64::MAX);
        if size > extent / 4 {
            let run = self.claim(&mut inner, len as u64)?;
            return Ok(self.block(run, false, 0, len, sequence));
        }
        if inner.current.as_ref().is_none_or(|current| current.used + size > extent) {
            let run = self.claim(&mut inner, extent)?;
            let filled = inner.current.replace(Shared { run, used: 0, live: 0 });
            inner.filled.extend(filled);
        }
        let Some(current) = inner.current.as_mut() else { unreachable!("set just above") };
        let at = current.used;
        current.used += size;
        current.live += 1;
        let run = current.run;
        Ok(self.block(run, true, at as usize, len, sequence))
    }

    /// A block that is a run of its own, however small: what another owner can take over whole.
    pub fn allocate_run(self: &Arc<Self>, len: usize) -> Result<Block, NoBlock> {
        let mut inner = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        inner.sequence += 1;
        let sequence = inner.sequence;
        let run = self.claim(&mut inner, len as u64)?;
        Ok(self.block(run, false, 0, len, sequence))
    }

    /// A block over a run that this owner has taken over from another.
    pub fn adopt(self: &Arc<Self>, run: Run, len: usize) -> Block {
        let mut inner = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        inner.sequence += 1;
        inner.held += run.count as u64 * self.arena.geometry().extent_bytes as u64;
        self.block(run, false, 0, len, inner.sequence)
    }

    fn claim(&self, inner: &mut Inner, bytes: u64) -> Result<Run, NoBlock> {
        let size = bytes.max(1).checked_next_multiple_of(self.arena.geometry().extent_bytes as u64).unwrap_or(u64::MAX);
        if inner.held.saturating_add(size) > self.quota {
            return Err(NoBlock::Quota { wanted: bytes, held: inner.held, quota: self.quota });
        }
        let run = self.arena.claim(bytes)?;
        inner.held += size;
        Ok(run)
    }

    fn block(self: &Arc<Self>, run: Run, shared: bool, at: usize, len: usize, sequence: u64) -> Block {
        let offset = self.arena.offset(run) + at;
        Block { owner: self.clone(), run, shared, offset, len, sequence, abandoned: AtomicBool::new(false) }
    }

    fn give_back(&self, run: Run, shared: bool) {
        if self.pid != crate::os::pid() {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if shared {
            let is_it = |extent: &Shared| extent.run == run;
            let last = if inner.current.as_ref().is_some_and(is_it) {
                inner.current.as_mut().is_some_and(Shared::one_less).then(|| inner.current = None).is_some()
            } else if let Some(index) = inner.filled.iter().position(is_it) {
                inner.filled[index].one_less().then(|| inner.filled.swap_remove(index)).is_some()
            } else {
                false
            };
            if !last {
                return;
            }
        }
        inner.held -= run.count as u64 * self.arena.geometry().extent_bytes as u64;
        self.arena.free(run);
    }
}

impl Shared {
    /// One block fewer; whether none is left.
    fn one_less(&mut self) -> bool {
        self.live -= 1;
        self.live == 0
    }
}

impl Block {
    /// Offset of the first byte in the segment.
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

    /// Shortens it to the bytes that were really written.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Leaves the extents to whoever takes back what this owner had: somebody may still be reading them.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// The mapping it lies in.
    pub fn mapping(&self) -> &Arc<Mapping> {
        self.owner.arena.mapping()
    }

    /// Copies bytes into it.
    ///
    /// # Panics
    /// When they reach beyond its end.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.len), "write beyond a block's end");
        self.mapping().write(self.offset + at, bytes);
    }

    /// What the other side needs to find it.
    pub fn handle(&self) -> Handle {
        Handle {
            offset: self.offset as u64,
            len: self.len as u64,
            generation: self.run.generation,
            sequence: self.sequence,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !self.abandoned.load(Ordering::Relaxed) {
            self.owner.give_back(self.run, self.shared);
        }
    }
}
