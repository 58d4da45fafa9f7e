//! Segments without a name, made by hand as a worker would.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use molt_ipc_shm::Segment;
use molt_ipc_shm::layout::{Geometry, Header, LAYOUT_VERSION, MAGIC, PAGE, STATE_SERVING, fnv1a, layout_hash};
use molt_ipc_shm::layout::{READY_AT, SOCKET_PATH_MAX};
use molt_ipc_shm::mapping::{Mapping, SharedMapping};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A name that nothing has: what is asked by name finds nothing.
pub const NAME: &str = "/molt-fuzz-nameless";

/// The smallest sensible sizes: quick to make, and owners meet.
pub fn small() -> Geometry {
    Geometry {
        sessions: 4,
        channels: 8,
        ring_bytes: 16 << 10,
        cells_per_channel: 8,
        leases_per_session: 64,
        entries: 2,
        extent_bytes: PAGE as u32,
        extents: 32,
    }
}

/// An anonymous object; `None`: the kernel has none of that size.
pub fn object(len: u64) -> Option<File> {
    let file = File::from(memfd_create(c"molt-fuzz", MFdFlags::MFD_CLOEXEC).expect("an anonymous object"));
    file.set_len(len).ok().map(|()| file)
}

/// Shared bytes without a name.
pub fn bytes(len: usize) -> SharedMapping {
    Arc::new(Mapping::new(&object(len as u64).expect("a small object")).expect("a mapping"))
}

/// The header of a sound segment of these sizes.
pub fn header(geometry: &Geometry) -> Header {
    let mut header = Header {
        magic: MAGIC,
        layout_version: LAYOUT_VERSION,
        header_bytes: PAGE as u32,
        layout_hash: layout_hash(),
        instance: 7,
        worker_pid: 1,
        max_body: 1 << 20,
        session_quota: 1 << 20,
        socket_len: SOCKET_PATH_MAX as u64 / 2,
        ..Header::default()
    };
    header.socket.0[..SOCKET_PATH_MAX / 2].fill(b's');
    geometry.fill(&mut header);
    sign(header)
}

/// The header with the checksum that its bytes have.
pub fn sign(mut header: Header) -> Header {
    header.checksum = fnv1a(&header.encode()[..Header::BYTES - 8]);
    header
}

/// A segment that says it serves.
pub fn sound(geometry: &Geometry) -> Segment {
    let file = object(geometry.total_bytes() as u64).expect("a small object");
    file.write_all_at(&header(geometry).encode(), 0).expect("its header");
    file.write_all_at(&STATE_SERVING.to_le_bytes(), READY_AT as u64).expect("its ready word");
    Segment::of_file(NAME, &file).expect("a sound segment")
}
