//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Runs the entries of a manifest for the Django processes of this machine, over shared memory.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "molt_worker",
    version,
    after_help = "Examples:\n  \
        molt_worker                                      defaults: /molt0, molt_exports.json if it is there\n  \
        molt_worker --exports molt_exports.json --arena 1GiB\n  \
        molt_worker --shm /shop --socket /run/shop/molt.sock --threads 8\n  \
        molt_worker --memfd --socket /run/molt.sock      no /dev/shm: for containers that share a socket alone\n  \
        molt_worker --supervise                          restarts the worker when it dies\n  \
        molt_worker --replace                            takes over from a running worker of that name\n\n\
        What runs: `molt-shm-stat`. Logs go to standard error; MOLT_LOG=debug shows more."
)]
pub struct Arguments {
    /// Name of the shared-memory segment.
    #[arg(long, default_value = "/molt0", value_name = "NAME")]
    pub shm: String,
    /// Keep the segment in memory without a name and hand it over the socket: nothing in /dev/shm, nothing left behind.
    #[arg(long, requires = "socket", conflicts_with = "shm")]
    pub memfd: bool,
    /// Unix socket where clients say hello [default: NAME.sock in $XDG_RUNTIME_DIR/molt or /tmp/molt-UID].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Manifest of entries and tables [default: molt_exports.json if it is there, else the built-in entries alone].
    #[arg(long, value_name = "FILE")]
    pub exports: Option<PathBuf>,
    /// Shared memory for bodies, results and tables: a size like 256MiB, or auto for what /dev/shm (with --memfd: the
    /// memory that is allowed) has to spare.
    #[arg(long, default_value = "auto", value_name = "SIZE", value_parser = parse_arena)]
    pub arena: Arena,
    /// Threads that run entries [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Requests that may wait for a thread; one more is answered Busy at once.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue: u32,
    /// Stay as a supervisor and start the worker again when it dies, with growing pauses.
    #[arg(long)]
    pub supervise: bool,
    /// Take the name over from a running worker, which then finishes what it runs and leaves.
    #[arg(long)]
    pub replace: bool,
    /// Refuse ad-hoc SQL (`client.query`); SQL entries of the manifest still run.
    #[arg(long)]
    pub no_adhoc_sql: bool,
}

/// How large the arena is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arena {
    /// What suits the free space of /dev/shm, or the free memory.
    Auto,
    /// That many bytes.
    Bytes(u64),
}

/// Reads `auto` or a size with its unit.
fn parse_arena(text: &str) -> Result<Arena, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Arena::Auto);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "kb" => 1_000,
        "m" | "mib" => 1 << 20,
        "mb" => 1_000_000,
        "g" | "gib" => 1 << 30,
        "gb" => 1_000_000_000,
        other => return Err(format!("unit {other:?} is none of KiB, MiB, GiB, KB, MB, GB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no size; like 256MiB, or auto"))?;
    let bytes = number.checked_mul(scale).ok_or_else(|| format!("{text} is more than any machine has"))?;
    let (least, most) = (1 << 20, 1 << 38);
    if !(least..=most).contains(&bytes) {
        return Err(format!("{text} is outside 1MiB to 256GiB"));
    }
    Ok(Arena::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_arena("auto"), Ok(Arena::Auto));
        assert_eq!(parse_arena("256MiB"), Ok(Arena::Bytes(256 << 20)));
        assert_eq!(parse_arena("64mb"), Ok(Arena::Bytes(64_000_000)));
        assert_eq!(parse_arena("2g"), Ok(Arena::Bytes(2 << 30)));
        for wrong in ["", "MiB", "12 parsecs", "-1MiB", "1", "99999999999GiB", "1.5GiB"] {
            assert!(parse_arena(wrong).is_err(), "{wrong}");
        }
    }
}
