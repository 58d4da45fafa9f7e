//! Two threads, the same plain bytes, nothing between them. The thread sanitizer must say so, or its silence about the
//! product means nothing.

use std::fs::File;
use std::sync::Arc;

use molt_ipc_shm_sanitized::mapping::Mapping;
use nix::sys::memfd::{MFdFlags, memfd_create};

fn main() {
    let file = File::from(memfd_create(c"molt-race", MFdFlags::MFD_CLOEXEC).expect("an anonymous object"));
    file.set_len(4096).expect("its size");
    let map = Arc::new(Mapping::new(&file).expect("a mapping"));
    let other = map.clone();
    let writer = std::thread::spawn(move || (0..10_000).for_each(|_| other.write(0, &[1; 64])));
    let mut bytes = [0; 64];
    for _ in 0..10_000 {
        map.read(0, &mut bytes);
        std::hint::black_box(&bytes);
    }
    writer.join().expect("the writer");
}
