//! `molt-chaos`: kills and stops real clients and workers, at every store and at random, and checks what they owe each
//! other: one outcome for every request, everything given back, everybody else served.
#![warn(missing_docs)]

mod baseline;
mod cast;
mod curves;
mod failpoints;
mod journal;
mod lasting;
mod oracle;
mod payload;
mod process;
mod random;
mod roles;
mod scene;
mod sites;
mod soak;
mod stage;
mod summary;
mod totals;
mod unpassed;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::signal::Signal;

use roles::Place;
use roles::client::Manner;

/// Kills and stops real clients and workers, at every store and at random, and checks what they owe each other.
#[derive(Debug, Parser)]
#[command(
    after_help = "examples:\n  molt-chaos list\n  molt-chaos failpoints\n  molt-chaos failpoints --stop --role worker\n  \
molt-chaos random --kills 10000 --seed 7\n  molt-chaos soak --minutes 60 --worker target/release/molt_worker"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows every failpoint with its number, and who passes it how often.
    List,
    /// Kills (or stops) a process at each failpoint, once.
    Failpoints(failpoints::Options),
    /// Kills and stops random processes at random moments and random failpoints.
    Random(random::Options),
    /// A long mixed load with kills: curves of memory, descriptors, arena, latency, and whether they are flat.
    Soak(soak::Options),
    /// A process of a stage.
    #[command(hide = true)]
    Role {
        #[command(subcommand)]
        role: Role,
    },
}

#[derive(Debug, Subcommand)]
enum Role {
    Worker {
        #[command(flatten)]
        place: Place,
    },
    Client {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        manner: Manner,
    },
    Rude {
        #[command(flatten)]
        place: Place,
    },
}

fn play(role: Role) -> Result<bool, String> {
    // A child never outlives whoever started it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| errno.to_string())?;
    match role {
        Role::Worker { place } => roles::worker::play(place),
        Role::Client { place, manner } => roles::client::play(place, manner),
        Role::Rude { place } => roles::rude::play(&place),
    }
    .map(|()| true)
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::List => failpoints::list().map(|()| true),
        Command::Failpoints(options) => failpoints::run(&options),
        Command::Random(options) => random::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Role { role } => play(role),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("molt-chaos: {what}");
            ExitCode::FAILURE
        }
    }
}
