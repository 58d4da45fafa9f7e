//! A segment as somebody else made it: any bytes in an object of any size. It is refused by a typed error, or usable.

use std::os::unix::fs::FileExt;

use molt_ipc_shm::Segment;
use molt_ipc_shm::arena::{Arena, OWNER_WORKER};
use molt_ipc_shm::layout::{Geometry, Header, LAYOUT_VERSION, MAGIC, PAGE, layout_hash};
use molt_ipc_shm::layout::{SOCKET_PATH_MAX, channel, entry, session, totals};
use molt_ipc_shm::stat::Report;

use super::input::Input;
use super::segment::{self, NAME, sign, small};

/// `| mode | header, or patches of a sound one | size | how far behind the header | more bytes |`
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let said = |bit: u8| mode & bit != 0;
    let mut page = segment::header(&small()).encode();
    if said(1) {
        for _ in 0..input.u8() % 16 {
            let at = input.u16() as usize % page.len();
            let patch = input.bytes(8);
            let len = patch.len().min(page.len() - at);
            page[at..at + len].copy_from_slice(&patch[..len]);
        }
    } else {
        let given = input.bytes(page.len());
        page[..given.len()].copy_from_slice(given);
    }
    let mut header = Header::decode(&page);
    if said(2) {
        (header.magic, header.layout_version, header.layout_hash) = (MAGIC, LAYOUT_VERSION, layout_hash());
    }
    // Sums overflow beyond the bounds that the sizes are held to; there the stated offsets stay what they are.
    if said(4) && Geometry::of(&header).fault().is_none() {
        Geometry::of(&header).fill(&mut header);
    }
    if said(8) {
        header = sign(header);
    }
    let size = input.near(header.total_bytes);
    let Some(file) = segment::object(size) else { return };
    let behind = input.u16() as usize * 8;
    let mut content = header.encode().to_vec();
    content.resize(PAGE + behind, 0);
    content.extend_from_slice(input.rest());
    content.truncate(size.min(1 << 20) as usize);
    if file.write_all_at(&content, 0).is_err() {
        return; // larger than the kernel's objects are
    }
    match Segment::of_file(NAME, &file) {
        Ok(segment) => {
            assert!(said(8) || header == sign(header), "a checksum that is wrong was taken");
            use_it(&segment, size);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn use_it(segment: &Segment, size: u64) {
    let Segment { map, geometry, header, .. } = segment;
    assert_eq!((map.len() as u64, geometry.total_bytes() as u64), (size, size));
    // The last of everything lies inside: each of these panics where it does not.
    let _ = map.u64(geometry.session(geometry.sessions - 1) + session::BYTES - 8);
    let _ = map.u64(geometry.channel(geometry.channels - 1) + channel::BYTES - 8);
    let _ = map.u64(geometry.channel_word(geometry.channel_words() - 1));
    let _ = map.u64(geometry.session_word(geometry.session_words() - 1));
    let _ = map.u64(geometry.cell(geometry.channels - 1, geometry.cells_per_channel - 1));
    let _ = map.u64(geometry.total(totals::COUNT - 1));
    let _ = map.u64(geometry.entry(geometry.entries - 1) + entry::BYTES - 8);
    let _ = map.readable(geometry.response_ring(geometry.channels - 1), geometry.ring_bytes as usize);
    let last = geometry.extents - 1;
    let _ = (map.u64(geometry.extent(last)), map.readable(geometry.extent_data(last), geometry.extent_bytes as usize));
    assert!(segment.socket().as_os_str().len() <= SOCKET_PATH_MAX && header.socket_len as usize <= SOCKET_PATH_MAX);
    assert!(!segment.state_name().is_empty());
    // What a tool shows of it.
    let report = Report::of(segment);
    assert!(report.to_json().starts_with('{') && report.worker.state == "dead");
    // What a client does with its arena.
    let arena = Arena::new(map.clone(), *geometry, OWNER_WORKER);
    if let Ok(run) = arena.claim(1) {
        arena.free(run);
    }
}
