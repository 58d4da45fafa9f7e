//! Malformed tables: an error or a table, never a crash, never memory that the bytes do not account for.

mod common;

use arrow_array::{Array, RecordBatch};
use common::child::{self, Child};
use common::tables::{Place, batch, columns, encoded};
use molt_ipc_shm::table::TableFault;

const ROWS: usize = 20;
/// Address space of the process that reads nonsense: an allocation of a declared size would end it.
const LIMIT_KIB: u64 = 2 << 20;

#[test]
fn child_role() {
    child::play(&[("cut", cut), ("flip", flip), ("exaggerate", exaggerate)]);
}

/// Reads the stream; what comes out must be sound. `true`: it was a table.
fn survives(place: &Place, bytes: &[u8]) -> bool {
    place.map.write(0, bytes);
    match place.read(0, bytes.len()) {
        Ok(table) => {
            for column in table.batches.iter().flat_map(RecordBatch::columns) {
                column.to_data().validate_full().expect("what is handed out has been validated");
            }
            true
        }
        Err(TableFault { len, at, what }) => {
            assert!(len == bytes.len() && at <= len && !what.is_empty(), "{len} {at} {what}");
            false
        }
    }
}

/// The decoder's panics are errors for the caller; their texts are noise here.
fn quietly() {
    std::panic::set_hook(Box::new(|info| {
        let ours = info.location().is_some_and(|location| location.file().contains("tests"));
        if ours {
            eprintln!("{info}");
        }
    }));
}

/// One stream of every column, and one stream for each column.
fn streams() -> Vec<Vec<u8>> {
    let columns = columns(ROWS);
    let mut streams: Vec<Vec<u8>> =
        columns.iter().map(|column| encoded(&[batch(std::slice::from_ref(column))])).collect();
    let whole = batch(&columns);
    streams.push(encoded(&[whole.slice(0, 7), whole.slice(7, 13)]));
    streams
}

/// A generator that is the same everywhere (splitmix64, Steele, Lea and Flood).
fn numbers(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

fn cut(_: &[String]) {
    quietly();
    let mut tables = 0;
    for stream in streams() {
        let place = Place::new(stream.len());
        let step = if stream.len() > 20_000 { 13 } else { 1 };
        tables += (0..stream.len()).step_by(step).filter(|len| survives(&place, &stream[..*len])).count();
        assert!(survives(&place, &stream), "whole, it is a table");
    }
    child::say(&format!("{tables}"));
}

fn flip(words: &[String]) {
    quietly();
    let mut next = numbers(words[0].parse().expect("a seed"));
    let streams = streams();
    let place = Place::new(streams.iter().map(Vec::len).max().unwrap_or_default());
    let mut faults = 0;
    for round in 0..12_000 {
        let mut stream = streams[round % streams.len()].clone();
        for _ in 0..1 + next() % 4 {
            let at = next() as usize % stream.len();
            stream[at] ^= 1 << (next() % 8);
        }
        faults += usize::from(!survives(&place, &stream));
    }
    child::say(&format!("{faults}"));
}

fn exaggerate(_: &[String]) {
    quietly();
    let values = [i64::MAX, -1, i64::MIN, 1 << 40, 1 << 31, 0x7fff_ffff, 1 << 20];
    let mut next = numbers(7);
    let mut faults = 0;
    for stream in streams() {
        let place = Place::new(stream.len());
        for at in (0..stream.len() - 8).step_by(4) {
            // The first bytes are metadata: all of them; of the rest a share.
            if at >= 4096 && !next().is_multiple_of(16) {
                continue;
            }
            let value = values[next() as usize % values.len()];
            let mut changed = stream.clone();
            changed[at..at + 8].copy_from_slice(&value.to_le_bytes());
            faults += usize::from(!survives(&place, &changed));
        }
    }
    child::say(&format!("{faults}"));
}

/// Plays a role within little memory, to its end; what it counted.
fn counted(words: &[&str]) -> u64 {
    let mut child = Child::start_under(&format!("ulimit -v {LIMIT_KIB}; exec \"$0\" \"$@\""), words);
    let count = child.line().parse().expect("a count");
    assert!(child.finish(), "{words:?}: a crash");
    count
}

/// Fault 41. Only a stream without its end marker is still a table.
#[test]
fn a_table_cut_anywhere_is_an_error() {
    let still_tables = counted(&["cut"]);
    let streams = columns(ROWS).len() as u64 + 1;
    assert!(still_tables <= streams * 8, "{still_tables} of the shortened streams were tables");
}

/// Fault 41.
#[test]
fn flipped_bits_are_an_error_or_a_sound_table() {
    assert!(counted(&["flip", "1"]) > 500, "most flips in metadata are noticed");
    assert!(counted(&["flip", "2"]) > 500);
}

/// Faults 28, 41, 48: lengths, offsets and counts of any size are compared with the bytes there are before they are believed.
#[test]
fn declared_sizes_are_never_allocated_unseen() {
    assert!(counted(&["exaggerate"]) > 1000);
}

#[test]
fn noise_is_no_table() {
    let mut next = numbers(3);
    let place = Place::new(2000);
    for len in (0..2000).step_by(7) {
        let noise: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        assert!(!survives(&place, &noise), "{len} bytes of noise");
        assert!(!survives(&place, &vec![0; len]), "{len} zeros");
        assert!(!survives(&place, &vec![0xff; len]), "{len} times 0xff");
    }
}

#[test]
fn a_fault_names_size_place_and_reason() {
    let stream = encoded(&[batch(&columns(ROWS)[..3])]);
    let place = Place::new(stream.len());
    place.map.write(0, &stream);
    let fault = place.read(0, stream.len() / 2).expect_err("half a table");
    assert!(fault.to_string().contains(&(stream.len() / 2).to_string()), "{fault}");
    let twice = [&stream[..stream.len() - 8], &stream[..]].concat();
    let place = Place::new(twice.len());
    place.map.write(0, &twice);
    assert!(place.read(0, twice.len()).expect_err("two tables in one").what.contains("schema"));
}
