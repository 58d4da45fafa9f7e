//! The hot paths, one at a time: each is walked a number of times in a function of its own, which callgrind is told to
//! count (`bench/gate/gate.py`). One thread does what client and worker do, so the counts are the same in every run.
//!
//! | path | what is counted |
//! | --- | --- |
//! | `ring` | a frame of 64 bytes into a ring and out of it |
//! | `call` | a request of 64 bytes: placed by the client, taken and answered by the worker's poller, read by the client |
//! | `block` | the same with 64 KiB in the arena, there and back |
//! | `place` | a table of 10,000 rows encoded into the arena |
//! | `read` | the same table opened in place |
//! | `entry` | a JSON body of 200 order lines through the demo's native entry |

mod call;
mod entry;
mod ring;
mod table;

use clap::{Parser, ValueEnum};

/// Walks a hot path, for callgrind to count.
#[derive(Parser)]
struct Arguments {
    path: Path,
    /// How often it is walked while it is counted.
    #[arg(long, default_value_t = 100)]
    times: usize,
    /// Does useless work on every turn: the gate must see it.
    #[arg(long, hide = true)]
    slow: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Path {
    Ring,
    Call,
    Block,
    Place,
    Read,
    Entry,
}

/// Turns before the counting begins: pools are filled, pages touched, branches of the first time behind.
const WARM: usize = 20;

/// Walks a path: a few times uncounted, then `times`.
fn walk(arguments: &Arguments, mut turn: impl FnMut()) {
    (0..WARM).for_each(|_| turn());
    counted(arguments.times, arguments.slow, &mut turn);
}

/// What callgrind counts: its name is given to `--toggle-collect`.
#[inline(never)]
fn counted(times: usize, slow: bool, turn: &mut dyn FnMut()) {
    for _ in 0..times {
        if slow {
            deliberate_slowdown();
        }
        turn();
    }
}

/// What a careless change might cost: half a microsecond or so.
#[inline(never)]
fn deliberate_slowdown() {
    let text: String = (0..64_u8).map(|letter| char::from(b'0' + letter)).collect();
    std::hint::black_box(text);
}

fn main() {
    let arguments = Arguments::parse();
    match arguments.path {
        Path::Ring => ring::walk(&arguments),
        Path::Call => call::walk(&arguments, 64),
        Path::Block => call::walk(&arguments, 64 << 10),
        Path::Place => table::place(&arguments),
        Path::Read => table::read(&arguments),
        Path::Entry => entry::walk(&arguments),
    }
}
