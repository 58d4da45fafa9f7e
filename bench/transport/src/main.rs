//! Times the transport beside its peers, two processes each, in one run. `python -m bench transport` runs it and reports.
//!
//! | module | holds |
//! | --- | --- |
//! | `peer`, `peers/` | what is compared, one a file: how it serves, how it is called |
//! | `server` | a peer's serving process |
//! | `pinned` | a core for each of two sides that spin |
//! | `timing` | turns, rounds, medians and percentiles |
//! | `plan` | what is measured: round trips, sizes, clients, CPU, spinning, placing a table |
//! | `placing` | S4: a table into the arena, against a plain copy |
#![warn(missing_docs)]

mod peer;
mod peers;
mod pinned;
mod placing;
mod plan;
mod server;
mod timing;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::peer::{Place, Waits};
use crate::plan::Scale;

/// Times the transport beside its peers.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures and prints one JSON object; progress goes to the error output.
    Run(Run),
    /// Serves as one peer until the input is closed.
    #[command(hide = true)]
    Serve {
        /// Which peer.
        peer: String,
        /// Where, and how.
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// So short that the figures mean nothing: every row is there, every answer is checked.
    #[arg(long, conflicts_with = "quick")]
    check: bool,
    /// A folder for sockets and files, made by the caller and short enough for a socket's path.
    #[arg(long)]
    folder: PathBuf,
    /// Begins every name in /dev/shm.
    #[arg(long)]
    name: String,
    /// Write the object to this file instead.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only these peers; may be repeated.
    #[arg(long)]
    peer: Vec<String>,
    /// Only these parts; may be repeated.
    #[arg(long)]
    part: Vec<plan::Part>,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Serve { peer, place } => server::begin(&place).and_then(|()| peers::find(&peer)?.serve(&place)),
        Command::Run(run) => {
            let scale = match (run.check, run.quick) {
                (true, _) => Scale::CHECK,
                (_, true) => Scale::QUICK,
                _ => Scale::FULL,
            };
            let place = Place { folder: run.folder, name: run.name, size: 64, clients: 1, waits: Waits::Spin };
            plan::run(&place, scale, &run.peer, &run.part).and_then(|report| {
                let text = serde_json::to_string(&report)?;
                match &run.out {
                    Some(file) => Ok(std::fs::write(file, text)?),
                    None => Ok(println!("{text}")),
                }
            })
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("molt-transport-bench: {trouble}");
            ExitCode::FAILURE
        }
    }
}
