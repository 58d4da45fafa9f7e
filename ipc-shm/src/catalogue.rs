//! The catalogue: what a worker says of its tables, for tools, and for the next worker should this one die.
//!
//! The tables themselves go with their worker; where they came from must not. So it stands in the segment, which a worker
//! that was killed leaves behind. There are two copies, written in turn, and a word that counts them: a worker that is killed
//! while it writes one leaves the other whole.

use std::sync::atomic::{Ordering, fence};

use serde::{Deserialize, Serialize};

use crate::layout::{Geometry, catalogue};
use crate::mapping::Mapping;

/// How often a reader looks again at a catalogue that changes under it.
const LOOKS: u32 = 100;

/// A worker's tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// The number of the version that was published last.
    pub last: u64,
    /// Tables in use, and those that are lost.
    pub tables: Vec<Listing>,
    /// Tables that there was no room for.
    pub unlisted: usize,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes in the arena; of a table that stays on disk, of its files.
    pub bytes: u64,
    /// The file that it was loaded from; `None`: a client put it.
    pub source: Option<String>,
    /// It lies in the arena. `false`: its files stay on disk.
    pub resident: bool,
    /// CLOCK_MONOTONIC nanoseconds when its rows were published; of a lost one, when it was lost.
    pub since_ns: u64,
    /// Why it is not here any more: a former worker had it.
    pub lost: Option<String>,
}

impl Catalogue {
    /// Writes it, as much of it as there is room for: what can be loaded again first. Returns how many tables found none.
    /// One writer at a time.
    pub fn write(mut self, map: &Mapping, geometry: &Geometry) -> usize {
        self.tables.sort_by_key(|table| (table.source.is_none(), table.lost.is_some()));
        let longest_frame = Self { last: self.last, tables: Vec::new(), unlisted: usize::MAX };
        let mut room = catalogue::COPY_BYTES - catalogue::TEXT - text(&longest_frame).len();
        let fits = |table: &Listing| {
            let bytes = text(table).len() + ",".len();
            let fits = bytes <= room;
            room -= if fits { bytes } else { 0 };
            fits
        };
        let all = self.tables.len();
        self.tables.retain(fits);
        self.unlisted = all - self.tables.len();
        let text = text(&self);
        let word = map.u64(geometry.catalogue_at() + catalogue::COUNT);
        let count = word.load(Ordering::Relaxed).wrapping_add(1);
        let at = geometry.catalogue_copy(count);
        map.u64(at + catalogue::LEN).store(text.len() as u64, Ordering::Relaxed);
        map.write(at + catalogue::TEXT, &text);
        word.store(count, Ordering::Release);
        self.unlisted
    }

    /// Reads it. `None`: it changes all the time, or is no catalogue; a peer may have written anything there.
    pub fn read(map: &Mapping, geometry: &Geometry) -> Option<Self> {
        let word = map.u64(geometry.catalogue_at() + catalogue::COUNT);
        let mut text = Vec::new();
        for _ in 0..LOOKS {
            let count = word.load(Ordering::Acquire);
            if count == 0 {
                return Some(Self::default());
            }
            let at = geometry.catalogue_copy(count);
            let len = map.u64(at + catalogue::LEN).load(Ordering::Relaxed) as usize;
            text.clear();
            map.read_to_vec(at + catalogue::TEXT, len.min(catalogue::COPY_BYTES - catalogue::TEXT), &mut text);
            fence(Ordering::Acquire);
            // The copy that was read is the next but one to be written: nobody has begun to if the count still stands.
            if word.load(Ordering::Relaxed) == count {
                return serde_json::from_slice(&text).ok();
            }
        }
        None
    }
}

/// Such records have a text: their fields are numbers and strings.
fn text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn segment() -> (Arc<Mapping>, Geometry) {
        let geometry = Geometry { sessions: 4, channels: 1, entries: 1, ..Geometry::for_arena(1 << 20) };
        let file = tempfile::tempfile().unwrap();
        file.set_len(geometry.total_bytes() as u64).unwrap();
        (Arc::new(Mapping::new(&file).unwrap()), geometry)
    }

    fn listing(name: &str, source: Option<&str>) -> Listing {
        Listing { name: name.into(), version: 7, rows: 3, source: source.map(Into::into), ..Listing::default() }
    }

    #[test]
    fn what_was_written_last_is_read() {
        let (map, geometry) = segment();
        assert_eq!(Catalogue::read(&map, &geometry), Some(Catalogue::default()), "nothing yet");
        for last in 1..5 {
            let tables = (0..last).map(|n| listing(&format!("t\"{n}"), Some("/a/b"))).collect();
            let written = Catalogue { last, tables, unlisted: 0 };
            assert_eq!(written.clone().write(&map, &geometry), 0);
            assert_eq!(Catalogue::read(&map, &geometry), Some(written));
        }
    }

    #[test]
    fn a_copy_that_is_half_written_hides_nothing() {
        let (map, geometry) = segment();
        let whole = Catalogue { last: 1, tables: vec![listing("t", None)], unlisted: 0 };
        whole.clone().write(&map, &geometry);
        // What a worker leaves that is killed before it counts the next copy.
        map.write(geometry.catalogue_copy(2), &[0xff; 200]);
        assert_eq!(Catalogue::read(&map, &geometry), Some(whole));
    }

    #[test]
    fn without_room_for_all_what_can_be_loaded_again_is_kept() {
        let (map, geometry) = segment();
        let long = "x".repeat(150);
        let put = (0..500).map(|n| listing(&format!("put {n} {long}"), None));
        let loaded = (0..20).map(|n| listing(&format!("loaded {n} {long}"), Some(&long)));
        let catalogue = Catalogue { last: 9, tables: put.chain(loaded).collect(), unlisted: 0 };
        let unlisted = catalogue.write(&map, &geometry);
        let read = Catalogue::read(&map, &geometry).unwrap();
        assert_eq!((read.tables.len() + unlisted, read.unlisted), (520, unlisted));
        assert!(unlisted > 0 && read.tables.len() > 100, "{unlisted}");
        assert_eq!(read.tables.iter().filter(|table| table.source.is_some()).count(), 20);
    }

    #[test]
    fn any_bytes_are_a_catalogue_or_none() {
        let (map, geometry) = segment();
        for (len, bytes) in [(u64::MAX, &b"{"[..]), (5, b"\xff\xff\xff\xff\xff"), (2, b"{}"), (4, b"null")] {
            map.u64(geometry.catalogue_at() + catalogue::COUNT).store(1, Ordering::Relaxed);
            map.u64(geometry.catalogue_copy(1) + catalogue::LEN).store(len, Ordering::Relaxed);
            map.write(geometry.catalogue_copy(1) + catalogue::TEXT, bytes);
            assert_eq!(Catalogue::read(&map, &geometry), None, "{bytes:?}");
        }
    }
}
