//! `molt_worker`: the process that runs entries for the Django processes of a machine.
//!
//! | module | holds |
//! | --- | --- |
//! | `arguments`, `manifest` | the command line; which entries and tables there are |
//! | `worker`, `supervise` | from start to stop; starting again |
//! | `adoption`, `inheritance` | tables of a worker whose place this one takes, and of one that died |
//! | `dispatch` | the way of a request: taken, run or queued, answered |
//! | `queue` | where a request waits for a thread: fair between client processes |
//! | `watchdog` | entries that run on though their time is up |
//! | `body` | a request's bytes, as decoders and entries get them |
//! | `entries/` | the entries: built-in, native, SQL |
//! | `sql/` | DataFusion: tables, statements, kept plans |
//! | `failure`, `cancel`, `alloc` | how a request fails; how it is taken back; what it allocates |
//! | `log` | lines on standard error, each with the request that it is about |
#![warn(missing_docs)]

mod adoption;
mod alloc;
mod arguments;
mod body;
mod cancel;
mod dispatch;
mod entries;
mod failure;
mod inheritance;
mod log;
mod manifest;
mod queue;
mod spill;
mod sql;
mod supervise;
mod watchdog;
mod worker;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    log::start();
    // Huge pages would make an idle worker 14 MB larger; what they save in queries is within the noise of one.
    let _ = nix::sys::prctl::set_thp_disable(true);
    // A panic is one request's error: a line in the log, not a stack trace.
    std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));
    let ended = if arguments.supervise { supervise::run(&arguments) } else { worker::run(&arguments) };
    ended.unwrap_or_else(|message| {
        eprintln!("molt_worker: {message}");
        ExitCode::FAILURE
    })
}
