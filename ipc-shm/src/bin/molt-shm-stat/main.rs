//! `molt-shm-stat`: what is in the segments of this machine.

#[cfg(not(loom))]
mod tool;

#[cfg(not(loom))]
fn main() -> std::process::ExitCode {
    tool::main()
}

/// Built for a model there is no segment to look at; cargo builds the program of a package beside its tests.
#[cfg(loom)]
fn main() {}
