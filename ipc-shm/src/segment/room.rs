//! The room in /dev/shm: what there is, what a segment takes of it, and who holds the rest.

use std::io;
use std::os::unix::fs::MetadataExt;

use nix::sys::statvfs::statvfs;

use crate::layout::Geometry;
use crate::locks::ObjectLock;

use super::remains::make_way;
use super::{SHM_DIR, Segment, SegmentError, list, open_object};

/// What `--arena auto` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoArena {
    /// Bytes of the arena.
    pub bytes: u64,
    /// What it saw: bytes that are free.
    pub free: u64,
    /// Bytes of the arena that the worker before this one had, if there is one.
    pub former: Option<u64>,
}

impl AutoArena {
    /// As much as the former worker of the name had, if that fits, so that a restart takes no limit from anybody; else, or
    /// if it is more, the share of what is free. `tables`: bytes that will lie there from the start, beside what
    /// requests need.
    pub(crate) fn of(free: u64, share: u64, former: Option<Geometry>, tables: u64) -> Self {
        let most = (256 << 20) + tables / 8 * 9;
        let extent = 256 << 10;
        let overhead = Geometry::for_arena(share.min(most));
        let overhead = (overhead.total_bytes() - overhead.arena_bytes()) as u64;
        let fresh = share.saturating_sub(overhead).min(most) / extent * extent;
        let fits = |geometry: &Geometry| geometry.total_bytes() as u64 <= free;
        let kept = former.filter(fits).map_or(0, |geometry| (geometry.arena_bytes() as u64).min(most));
        Self { bytes: fresh.max(kept), free, former: former.map(|geometry| geometry.arena_bytes() as u64) }
    }
}

/// What `--arena auto` takes of the space there is for a worker of that name. A dead worker's segment that nobody starts
/// again gives back what it can first: its successor is to have as much as it had.
pub fn auto_arena(name: &str, tables: u64) -> io::Result<AutoArena> {
    let former = Segment::open(name).ok().map(|former| former.geometry);
    make_way(name);
    let free = free_space()?;
    // A quarter stays for the rings and for others who use /dev/shm.
    Ok(AutoArena::of(free, free / 4 * 3, former, tables))
}

/// Bytes that are free.
pub(super) fn free_space() -> io::Result<u64> {
    let space = statvfs(SHM_DIR)?;
    Ok(space.blocks_available() as u64 * space.fragment_size() as u64)
}

/// The error for a segment of that size, with all that can be said of who has the room.
pub(super) fn no_space(wanted: u64) -> SegmentError {
    SegmentError::NoSpace { dir: SHM_DIR, free: free_space().unwrap_or(0), wanted, held: held() }
}

/// Who holds what: live workers, dead ones that `clean` removes, and processes that still look at what has no name any more.
fn held() -> String {
    let (mut live, mut dead, mut named) = (Held::default(), Held::default(), 0);
    for name in list() {
        let Ok(object) = open_object(&name) else { continue };
        let bytes = object.metadata().map_or(0, |meta| meta.blocks() * 512);
        named += bytes;
        let is_held = ObjectLock::Life.is_held(&object) || ObjectLock::Supervisor.is_held(&object);
        if is_held { &mut live } else { &mut dead }.add(&name, bytes);
    }
    let taken = statvfs(SHM_DIR)
        .map_or(0, |space| (space.blocks() - space.blocks_free()) as u64 * space.fragment_size() as u64);
    let mut text = String::new();
    if live.bytes > 0 {
        text.push_str(&format!("; running workers hold {live}"));
    }
    if dead.bytes > 0 {
        text.push_str(&format!("; dead workers hold {dead}, which `molt-shm-stat clean` removes"));
    }
    if taken > named {
        let rest = taken - named;
        text.push_str(&format!(
            "; {rest} bytes are other files, or results that processes keep of workers that are gone"
        ));
    }
    text
}

#[derive(Default)]
struct Held {
    bytes: u64,
    names: Vec<String>,
}

impl Held {
    fn add(&mut self, name: &str, bytes: u64) {
        self.bytes += bytes;
        self.names.push(name.into());
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} bytes ({})", self.bytes, self.names.join(", "))
    }
}
