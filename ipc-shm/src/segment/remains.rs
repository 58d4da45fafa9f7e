//! What a dead worker's segment still holds, and how its pages come back before its successor reserves its own.
//!
//! Two arenas need not fit into /dev/shm. A dead worker's object keeps its pages as long as it has its name or anybody maps
//! it, and a client that makes no call does not notice the death. So, once the kernel says that the worker is dead:
//!
//! | step | by | what comes back |
//! | --- | --- | --- |
//! | 1 | whoever makes way | the segment says that its worker has left; free extents are claimed for nobody, so that no client is given one any more, and lose their pages; so do the rings of channels that nobody has |
//! | 2 | whoever makes way | the name goes, in one step, to a **stand-in**: as long as the object, with what stands before the rings and no more. The object goes with its last mapping. A supervisor locks the stand-in as it did the object: who looks the name up finds a dead worker that is started again, and waits |
//!
//! What a dead worker says of its tables stands before the rings, so it is there until a successor has the name, however many
//! starts fail before.
//!
//! What anybody may still look at (results, tables, blocks, answers that lie unread) keeps its pages for as long as it is
//! mapped. Each step may be cut short anywhere and be done again: the name leads to the dead object or to the stand-in, an
//! unfinished stand-in is swept like any unfinished object, and a claimed extent that has kept its pages is found by its owner.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::fcntl::{AT_FDCWD, FallocateFlags, OFlag, RenameFlags, fallocate, renameat2};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::Mode;

use crate::arena::{Arena, OWNER_GONE};
use crate::failpoint::around;
use crate::layout::{STATE_STOPPED, SlotState, channel};
use crate::locks::ObjectLock;

use super::owned::hold_name;
use super::{Segment, SegmentError, has_magic, has_name, os, path_of, random};

/// Gives back the pages of a dead worker's segment that nobody can look at. Only the caller knows that it is dead, and keeps
/// it from being taken for anything else meanwhile.
pub(crate) fn give_back(dead: &Segment, object: &File) {
    let geometry = &dead.geometry;
    let size = geometry.extent_bytes as usize;
    // First: a client that finds no extent free any more sees that the worker is gone, not that its arena is full.
    dead.set_state(STATE_STOPPED);
    let nobodys = Arena::new(dead.map.clone(), *geometry, OWNER_GONE).claim_free();
    let extents = nobodys.into_iter().map(|extent| (geometry.extent_data(extent), size));
    let unused = (0..geometry.channels).filter(|index| {
        let word = dead.map.u64(geometry.channel(*index) + channel::WORD).load(std::sync::atomic::Ordering::Acquire);
        SlotState::of(word) == SlotState::Free
    });
    let pair = 2 * geometry.ring_bytes as usize;
    let rings = unused.map(|index| (geometry.rings_at() + index as usize * pair, pair));
    for (at, len) in joined(rings).chain(joined(extents)) {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Where the kernel refuses, the pages stay until the last mapping goes.
        let _ = around(|| fallocate(object.as_fd(), hole, at as i64, len as i64));
    }
}

/// Ranges in order, neighbours as one.
fn joined(ranges: impl Iterator<Item = (usize, usize)>) -> impl Iterator<Item = (usize, usize)> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let (at, mut len) = ranges.next()?;
        while let Some((_, more)) = ranges.next_if(|(next, _)| *next == at + len) {
            len += more;
        }
        Some((at, len))
    })
}

/// A copy of what a dead worker's segment says before its rings, for a stand-in.
pub(crate) struct Words {
    bytes: Vec<u8>,
    total: u64,
}

impl Words {
    /// Copied before [`give_back`] changes who has which extent: tools show the worker as it was.
    pub fn of(dead: &Segment) -> Self {
        let mut bytes = Vec::new();
        dead.map.read_to_vec(0, dead.geometry.rings_at(), &mut bytes);
        Self { bytes, total: dead.header.total_bytes }
    }

    /// Makes an empty object the stand-in. The rest of it is a hole: nobody reads the rings or the arena of a dead worker
    /// in a segment that he opens after its death.
    pub fn put_into(&self, object: &File) -> io::Result<()> {
        around(|| object.set_len(self.total))?;
        around(|| object.write_all_at(&self.bytes, 0))
    }
}

/// Gives a dead worker's name to a stand-in that `object`'s holder supervises from now on, and the object's pages back.
///
/// # Errors
/// The name is not this object's any more, or there is no room even for the stand-in: then all stays as it is, but for the
/// pages that came back.
pub(crate) fn replace_by_stand_in(dead: &Segment, object: &File) -> Result<File, SegmentError> {
    let name = dead.name.as_str();
    // Until this function returns nobody else changes the name.
    let there = hold_name(name)?.filter(|there| has_name(object, name) && !ObjectLock::Life.is_held(there));
    let Some(_there) = there else { return Err(SegmentError::NotFound { name: name.into() }) };
    put_stand_in(dead, object, ObjectLock::Supervisor)
}

/// The same while the caller keeps the name where it is. The stand-in has that lock as long as the file is open.
fn put_stand_in(dead: &Segment, object: &File, lock: ObjectLock) -> Result<File, SegmentError> {
    let name = dead.name.as_str();
    let words = Words::of(dead);
    give_back(dead, object);
    let own_name = format!("{name}.{:016x}.new", random());
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
    let made = around(|| shm_open(own_name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR));
    let file = File::from(made.map_err(|errno| os("create", &own_name)(errno.into()))?);
    // Locked first: another start would sweep it away.
    let finished = match lock.take(&file) {
        true => words.put_into(&file),
        false => Err(io::ErrorKind::WouldBlock.into()),
    };
    let (from, to) = (path_of(&own_name), path_of(name));
    let moved = finished.and_then(|()| Ok(around(|| renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::empty()))?));
    moved.map_err(|error| {
        let _ = around(|| shm_unlink(own_name.as_str()));
        os("put a stand-in in the place of", name)(error)
    })?;
    Ok(file)
}

/// Whether the object has no pages but those before the rings: it gave the others up long ago.
fn is_stand_in(dead: &Segment, object: &File) -> bool {
    object.metadata().is_ok_and(|meta| meta.blocks() * 512 <= dead.geometry.rings_at() as u64)
}

/// Makes way for a start under that name: a dead worker's segment that nobody starts again gives its pages up, and its name
/// to a stand-in; where there is no room for one, or the segment is damaged, the name goes. Everything else is left to
/// [`super::OwnedSegment::publish`], which says what is in the way.
pub(super) fn make_way(name: &str) {
    // The name stays with the object while it is looked at, so no start can be moving a new segment onto it.
    let Ok(Some(there)) = hold_name(name) else { return };
    if ObjectLock::Life.is_held(&there) || ObjectLock::Supervisor.is_held(&there) || !has_magic(name) {
        return;
    }
    let stands_in = Segment::of_file(name, &there)
        .is_ok_and(|dead| is_stand_in(&dead, &there) || put_stand_in(&dead, &there, ObjectLock::Name).is_ok());
    if !stands_in {
        let _ = around(|| shm_unlink(name));
    }
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn neighbours_are_one_range() {
        let ranges = [(0, 4), (4, 4), (12, 4), (16, 8), (32, 4)];
        assert_eq!(joined(ranges.into_iter()).collect::<Vec<_>>(), [(0, 8), (12, 12), (32, 4)]);
        assert_eq!(joined(std::iter::empty()).next(), None);
    }
}
