//! `molt-shm-stat`: what is in the segments of this machine, once or live.
#![warn(missing_docs)]

mod tool;
mod units;
mod watch;

fn main() -> std::process::ExitCode {
    tool::main()
}
