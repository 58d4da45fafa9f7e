//! The arena: extents, each with one control word, claimed and given back by CAS.
//!
//! ```text
//!   control word   | generation 40 | owner 16 | state 8 |
//! ```
//! One CAS claims an extent and names its owner. A process that is killed between any two instructions therefore leaves
//! nothing that a scan of owners does not find, and there is no list that could be left half linked.
//! A block of several extents is a run: its tail extents are claimed first, its head last, and given back the other way
//! round. So whoever sees a head sees its whole run, also where its owner was killed.

use std::sync::atomic::Ordering;

use crate::frame::Handle;
use crate::layout::Geometry;
use crate::mapping::SharedMapping;

/// Nobody.
pub const OWNER_NONE: u16 = 0;
/// The worker.
pub const OWNER_WORKER: u16 = u16::MAX;
/// Nobody for ever: the worker is dead, and the extent's pages are given back.
pub const OWNER_GONE: u16 = u16::MAX - 1;

/// The owner number of a session slot.
pub fn owner_of_session(slot: u32) -> u16 {
    slot as u16 + 1
}

const FREE: u64 = 0;
const HEAD: u64 = 1;
const TAIL: u64 = 2;
const GENERATIONS: u64 = (1 << 40) - 1;

fn word(generation: u64, owner: u16, state: u64) -> u64 {
    (generation & GENERATIONS) << 24 | (owner as u64) << 8 | state
}
fn generation_of(word: u64) -> u64 {
    word >> 24
}
fn owner_of(word: u64) -> u16 {
    (word >> 8) as u16
}
fn state_of(word: u64) -> u64 {
    word & 0xff
}

/// No run of free extents is long enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the arena has no room for {wanted} bytes: {free} of {total} bytes are free, the longest run is {longest} bytes; \
     hint: start molt_worker with a larger --arena"
)]
pub struct ArenaFull {
    /// Bytes asked for.
    pub wanted: u64,
    /// Bytes free, together.
    pub free: u64,
    /// Bytes of the longest run of free extents.
    pub longest: u64,
    /// Bytes of the arena.
    pub total: u64,
}

/// A handle that does not name bytes of the one who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHandle {
    /// Not inside the arena.
    #[error("handle {offset}+{len} lies outside the arena ({from}..{to})")]
    Bounds {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The arena's first byte.
        from: u64,
        /// One past the arena's last byte.
        to: u64,
    },
    /// An extent under it belongs to somebody else.
    #[error("handle {offset}+{len} covers extent {extent}, which belongs to owner {found}, not {owner}")]
    Owner {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The extent.
        extent: u32,
        /// Its owner.
        found: u16,
        /// The sender.
        owner: u16,
    },
    /// The extent has been given back since.
    #[error("handle {offset}+{len} is stale: extent {extent} has generation {found}, the handle {stated}")]
    Stale {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The extent.
        extent: u32,
        /// Its generation.
        found: u64,
        /// The handle's.
        stated: u64,
    },
}

/// Extents that lie side by side and have one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first extent.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The first extent's generation.
    pub generation: u64,
}

/// What an extent's control word says, for tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentWord {
    /// Whether somebody has it.
    pub taken: bool,
    /// Who.
    pub owner: u16,
    /// Whether it is the first of a run.
    pub head: bool,
    /// Grows with each claim.
    pub generation: u64,
}

/// One owner's view of the arena.
#[derive(Debug, Clone)]
pub struct Arena {
    map: SharedMapping,
    geometry: Geometry,
    owner: u16,
}

impl Arena {
    /// The arena as `owner` uses it.
    pub fn new(map: SharedMapping, geometry: Geometry, owner: u16) -> Self {
        Self { map, geometry, owner }
    }

    /// The mapping it lies in.
    pub fn mapping(&self) -> &SharedMapping {
        &self.map
    }

    /// The sizes it was made with.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn load(&self, extent: u32) -> u64 {
        self.map.u64(self.geometry.extent(extent)).load(Ordering::Acquire)
    }

    /// Claims a run that holds `bytes`. The lowest free extents first: they are the warm ones.
    pub fn claim(&self, bytes: u64) -> Result<Run, ArenaFull> {
        let size = self.geometry.extent_bytes as u64;
        let count = bytes.div_ceil(size).max(1);
        if count <= self.geometry.extents as u64 {
            let (count, mut start) = (count as u32, 0);
            while start + count <= self.geometry.extents {
                // From the run's end backwards: the first taken extent found there tells how far to jump.
                match (start..start + count).rev().find(|extent| state_of(self.load(*extent)) != FREE) {
                    Some(taken) => start = taken + 1,
                    None => match self.take(start, count) {
                        Ok(run) => return Ok(run),
                        Err(taken) => start = taken + 1,
                    },
                }
            }
        }
        Err(self.full(bytes))
    }

    /// Claims exactly these extents, the head last; `Err`: the extent somebody else was quicker to claim.
    fn take(&self, first: u32, count: u32) -> Result<Run, u32> {
        for extent in (first..first + count).rev() {
            let seen = self.load(extent);
            let state = if extent == first { HEAD } else { TAIL };
            let claimed = word(generation_of(seen) + 1, self.owner, state);
            let won = state_of(seen) == FREE
                && self
                    .map
                    .u64(self.geometry.extent(extent))
                    .compare_exchange(seen, claimed, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok();
            if !won {
                (extent + 1..first + count).for_each(|mine| self.free_extent(mine));
                return Err(extent);
            }
            if extent == first {
                return Ok(Run { first, count, generation: generation_of(claimed) });
            }
        }
        unreachable!("a run has at least one extent")
    }

    /// Claims every extent that is free, each by itself, and says which extents this owner has then. Nobody is given any of
    /// them any more.
    pub fn claim_free(&self) -> Vec<u32> {
        let own = |extent: &u32| {
            let seen = self.load(*extent);
            owner_of(seen) == self.owner || (state_of(seen) == FREE && self.take(*extent, 1).is_ok())
        };
        (0..self.geometry.extents).filter(own).collect()
    }

    /// Gives one extent back if this owner has it.
    fn free_extent(&self, extent: u32) {
        let seen = self.load(extent);
        if owner_of(seen) == self.owner && state_of(seen) != FREE {
            // CAS, not a store: giving back twice, or what the worker has reclaimed, changes nothing.
            let _ = self.map.u64(self.geometry.extent(extent)).compare_exchange(
                seen,
                word(generation_of(seen), OWNER_NONE, FREE),
                Ordering::Release,
                Ordering::Relaxed,
            );
        }
    }

    /// Gives a run back, the head first. A run that is no longer this one (stale generation) is left alone.
    pub fn free(&self, run: Run) {
        if generation_of(self.load(run.first)) != run.generation {
            return;
        }
        (run.first..run.first + run.count).for_each(|extent| self.free_extent(extent));
    }

    /// Takes over the whole run at whose start a checked handle lies, from `owner`: the tail extents first, the head last,
    /// so that a run whose head has changed hands has changed hands entirely. The former owner's late `free` then finds
    /// somebody else's extents and leaves them alone.
    ///
    /// # Errors
    /// The handle does not begin at the start of a run of that owner, or the run changed under the taking (its owner gave
    /// it back meanwhile); what was taken until then is free again.
    pub fn take_over(&self, handle: &Handle, owner: u16) -> Result<Run, BadHandle> {
        self.check(handle, owner)?;
        let (from, size) = (self.geometry.arena_at() as u64, self.geometry.extent_bytes as u64);
        let &Handle { offset, len, .. } = handle;
        let first = ((offset - from) / size) as u32;
        let not_his = |extent: u32, word: u64| BadHandle::Owner { offset, len, extent, found: owner_of(word), owner };
        let head = self.load(first);
        if state_of(head) != HEAD || !(offset - from).is_multiple_of(size) {
            return Err(not_his(first, head));
        }
        let is_tail = |extent: &u32| {
            let word = self.load(*extent);
            state_of(word) == TAIL && owner_of(word) == owner
        };
        let end = first + 1 + (first + 1..self.geometry.extents).take_while(is_tail).count() as u32;
        for extent in (first..end).rev() {
            let seen = if extent == first { head } else { self.load(extent) };
            let state = if extent == first { HEAD } else { TAIL };
            let his = owner_of(seen) == owner && state_of(seen) == state;
            let taken = word(generation_of(seen), self.owner, state);
            let place = self.map.u64(self.geometry.extent(extent));
            if !his || place.compare_exchange(seen, taken, Ordering::AcqRel, Ordering::Acquire).is_err() {
                (extent + 1..end).for_each(|taken| self.free_extent(taken));
                return Err(not_his(extent, self.load(extent)));
            }
        }
        Ok(Run { first, count: end - first, generation: generation_of(head) })
    }

    /// Frees whatever `owner` has. For the worker, once the owner's process is dead and no request reads its blocks.
    pub fn reclaim(&self, owner: u16) -> u32 {
        let theirs = Self { owner, ..self.clone() };
        let held: Vec<u32> =
            (0..self.geometry.extents).filter(|extent| owner_of(self.load(*extent)) == owner).collect();
        held.iter().for_each(|extent| theirs.free_extent(*extent));
        held.len() as u32
    }

    /// Offset in the segment of a run's first byte.
    pub fn offset(&self, run: Run) -> usize {
        self.geometry.extent_data(run.first)
    }

    /// Checks that a handle names bytes inside the arena that `owner` has, of the generation it states.
    pub fn check(&self, handle: &Handle, owner: u16) -> Result<(), BadHandle> {
        let (from, to) = (self.geometry.arena_at() as u64, self.geometry.total_bytes() as u64);
        let &Handle { offset, len, generation, .. } = handle;
        let end = offset.checked_add(len);
        if offset < from || end.is_none_or(|end| end > to) || offset == to {
            return Err(BadHandle::Bounds { offset, len, from, to });
        }
        let size = self.geometry.extent_bytes as u64;
        let first = ((offset - from) / size) as u32;
        let last = ((offset - from + len.max(1) - 1) / size) as u32;
        for extent in first..=last {
            let word = self.load(extent);
            if owner_of(word) != owner || state_of(word) == FREE {
                return Err(BadHandle::Owner { offset, len, extent, found: owner_of(word), owner });
            }
            if extent == first && generation_of(word) != generation {
                let found = generation_of(word);
                return Err(BadHandle::Stale { offset, len, extent, found, stated: generation });
            }
        }
        Ok(())
    }

    /// Every control word as it is now.
    pub fn words(&self) -> Vec<ExtentWord> {
        let words = (0..self.geometry.extents).map(|extent| self.load(extent));
        let shown = words.map(|word| ExtentWord {
            taken: state_of(word) != FREE,
            owner: owner_of(word),
            head: state_of(word) == HEAD,
            generation: generation_of(word),
        });
        shown.collect()
    }

    /// Bytes and blocks that an owner has (`None`: everybody), counted from the control words.
    pub fn usage(&self, owner: Option<u16>) -> Usage {
        let mut usage = Usage::default();
        for extent in 0..self.geometry.extents {
            let word = self.load(extent);
            if state_of(word) != FREE && owner.is_none_or(|owner| owner == owner_of(word)) {
                usage.bytes += self.geometry.extent_bytes as u64;
                usage.blocks += u64::from(state_of(word) == HEAD);
            }
        }
        usage
    }

    fn full(&self, wanted: u64) -> ArenaFull {
        let (mut free, mut longest, mut run) = (0, 0, 0);
        for extent in 0..self.geometry.extents {
            run = if state_of(self.load(extent)) == FREE { run + self.geometry.extent_bytes as u64 } else { 0 };
            free += if run > 0 { self.geometry.extent_bytes as u64 } else { 0 };
            longest = longest.max(run);
        }
        ArenaFull { wanted, free, longest, total: self.geometry.arena_bytes() as u64 }
    }
}

/// What an owner has of the arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of its extents.
    pub bytes: u64,
    /// Its runs.
    pub blocks: u64,
}
