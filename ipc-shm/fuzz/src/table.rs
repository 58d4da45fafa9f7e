//! Any bytes where a table should be, decoded in place: a typed error, or a table that is sound to its last byte. Nothing
//! outside of the bytes is read, and no size that they declare is allocated unseen (libFuzzer's limit for one allocation).

use std::sync::{Arc, Once};

use arrow_array::{Array, RecordBatch};
use arrow_buffer::alloc::Allocation;
use molt_ipc_shm::table;

use super::guard::Guard;
use super::input::Input;
use super::segment;

/// `| first byte's place, low bits | the stream |`
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    // Correct peers place tables at multiples of 64.
    let misplaced = match input.u8() {
        by @ 192.. => by as usize & 63,
        _ => 0,
    };
    let stream = input.rest();
    // At the end of its pages: what is read beyond the table is beyond the mapping, too.
    let pages = (stream.len() + 128).next_multiple_of(4096);
    let offset = ((pages - stream.len()) & !63) - misplaced;
    let map = segment::bytes(pages);
    map.write(offset, stream);
    let _guard = Guard::all_but(&map, std::slice::from_ref(&(offset..offset + stream.len())));
    let owner: Arc<dyn Allocation> = Arc::new(map.clone());
    quietly();
    match table::read(&map, offset, stream.len(), &owner) {
        Ok(table) => {
            let mut sum = 0_u64;
            for column in table.batches.iter().flat_map(RecordBatch::columns) {
                let data = column.to_data();
                data.validate_full().expect("what is handed out has been validated");
                add_up(&data, &mut sum);
            }
            std::hint::black_box(sum);
        }
        Err(fault) => {
            assert!(fault.len == stream.len() && fault.at <= stream.len() && !fault.what.is_empty(), "{fault}")
        }
    }
}

/// Touches every byte.
fn add_up(data: &arrow_data::ArrayData, sum: &mut u64) {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(nulls) {
        *sum = buffer.iter().fold(*sum, |sum, byte| sum.wrapping_add(*byte as u64));
    }
    data.child_data().iter().for_each(|child| add_up(child, sum));
}

/// A panic inside the Arrow decoder is caught by `table::read` and becomes an error. libFuzzer's own hook would take it for
/// a crash before that, so it hears of the others alone.
pub fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let theirs =
                |file: &str| file.contains("/arrow-") || file.contains("/flatbuffers-") || file.starts_with("/rustc/");
            if !info.location().is_some_and(|location| theirs(location.file())) {
                before(info);
            }
        }));
    });
}
