//! The fuzz targets without libFuzzer: every input that is kept, and a short burst of changed ones.
//!
//! `MOLT_FUZZ_SEED` repeats a burst, `MOLT_FUZZ_ROUNDS` makes it longer. `make fuzz SECONDS=n` is the real thing: the same
//! functions under libFuzzer and the address sanitizer.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fuzz::TARGETS;

/// A burst ends after so many inputs, or so long.
const ROUNDS: u64 = 20_000;
const LONGEST: Duration = Duration::from_secs(4);
const LONGEST_INPUT: usize = 4096;

/// The inputs kept for a target, in an order that is the same everywhere.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.expect("a file of the corpus").path();
        (path.display().to_string(), std::fs::read(&path).expect("a file of the corpus"))
    };
    let mut inputs: Vec<_> = files.map(read).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

/// Runs one input; a panic names it before it goes on.
fn try_input(run: fn(&[u8]), input: &[u8], what: &dyn Fn() -> String) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{}\nthe input (make a file of it with xxd -r -p): {hex}", what());
        resume_unwind(panic);
    }
}

/// A generator that is the same everywhere (splitmix64, Steele, Lea and Flood).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One to eight changes of one input, in which parts of others may take part.
fn changed(numbers: &mut Numbers, inputs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut input = inputs[numbers.below(inputs.len())].1.clone();
    for _ in 0..1 + numbers.below(8) {
        let at = numbers.below(input.len());
        let rest = input.len() - at;
        match numbers.below(7) {
            0 if rest > 0 => input[at] ^= 1 << numbers.below(8),
            1 if rest > 0 => input[at] = numbers.next() as u8,
            2 => {
                let value = [0, 1, 64, 127, 128, 255, 1 << 16, u64::from(u32::MAX), 1 << 40, u64::MAX >> 1, u64::MAX];
                let bytes =
                    value[numbers.below(value.len())].wrapping_add(numbers.next() % 3).wrapping_sub(1).to_le_bytes();
                let len = [1, 2, 4, 8][numbers.below(4)].min(rest);
                input[at..at + len].copy_from_slice(&bytes[..len]);
            }
            3 => drop(input.drain(at..at + numbers.below(rest.min(64)))),
            4 => input.insert(at, numbers.next() as u8),
            5 => {
                let other = &inputs[numbers.below(inputs.len())].1;
                let from = numbers.below(other.len());
                let to = from + numbers.below((other.len() - from).min(256));
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let twice = input[at..at + numbers.below(rest.min(64))].to_vec();
                input.splice(at..at, twice);
            }
        }
    }
    input.truncate(LONGEST_INPUT);
    input
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

fn check(target: &str) {
    let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    let inputs = corpus(target);
    for (file, input) in &inputs {
        try_input(run, input, &|| format!("{target}: {file}"));
    }
    let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    let seed = from_environment("MOLT_FUZZ_SEED").unwrap_or_else(clock);
    let rounds = from_environment("MOLT_FUZZ_ROUNDS");
    // Said first: a crash would leave no time for it.
    eprintln!("{target}: {} kept inputs; a burst with MOLT_FUZZ_SEED={seed}", inputs.len());
    let (mut numbers, started) = (Numbers(seed), Instant::now());
    for round in 0..rounds.unwrap_or(ROUNDS) {
        if rounds.is_none() && started.elapsed() > LONGEST {
            break;
        }
        let input = changed(&mut numbers, &inputs);
        try_input(run, &input, &|| format!("{target}: round {round} with MOLT_FUZZ_SEED={seed}"));
    }
}

/// One test a target: they run side by side, and a failure names what broke.
macro_rules! tests {
    ($($target:ident),*) => {
        $(#[test] fn $target() { check(stringify!($target)); })*

        #[test]
        fn every_target_has_its_test() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($target)),*]);
        }
    };
}
tests!(header, handshake, ring, arena, table, request, worker, client);
