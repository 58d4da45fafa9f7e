//! `molt-shm-stat`: what is in the segments of this machine.
#![warn(missing_docs)]

mod tool;

fn main() -> std::process::ExitCode {
    tool::main()
}
