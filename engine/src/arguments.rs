//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use molt_ipc_shm::Address;
use molt_ipc_shm::worker::default_socket;

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
        kill -HUP SUPERVISOR                             starts the program at the same path anew and moves over to it\n  \
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
    pub arena: Size,
    /// Threads that run entries [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Requests that may wait for a thread, with fair shares for each client process; one more is answered Busy at once.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue: u32,
    /// Seconds that an entry may run on after its request's time is up. Then a supervised worker is replaced by a new one,
    /// and takes the entry along when it ends; one without a supervisor says so in its log and to `molt-shm-stat doctor`.
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = parse_grace)]
    pub grace: Duration,
    /// Stay as a supervisor: start the worker again when it dies, with growing pauses, while clients wait in the queue of
    /// its socket. SIGHUP starts a new worker and lets the old one finish and leave once the new one serves.
    #[arg(long)]
    pub supervise: bool,
    /// Take the name over from a running worker, which finishes what it runs and leaves once this one serves.
    #[arg(long)]
    pub replace: bool,
    /// Refuse ad-hoc SQL (`client.query`); SQL entries of the manifest still run.
    #[arg(long)]
    pub no_adhoc_sql: bool,
    /// Memory of all running SQL together, of which what sorts, groups and joins take counts: a size like 1GiB, or auto for
    /// a quarter of the memory that this process may still take when it starts.
    #[arg(long, default_value = "auto", value_name = "SIZE", value_parser = parse_auto)]
    pub sql_memory: Size,
    /// Disk space for SQL that needs more memory than that: a size like 4GiB; 0: none, it fails then.
    #[arg(long, default_value = "4GiB", value_name = "SIZE", value_parser = parse_size)]
    pub spill: u64,
    /// Folder for that, in which the worker makes a private one [default: $TMPDIR, or /tmp].
    #[arg(long, value_name = "PATH")]
    pub spill_dir: Option<PathBuf>,
    /// What a supervisor hands to the worker that it starts.
    #[arg(long, hide = true, value_name = "FD,INODE,FD,FIRST", value_parser = parse_handed)]
    pub supervised: Option<Handed>,
}

/// What a supervisor hands to its worker: the socket where clients may wait already, and a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handed {
    /// The listening socket's descriptor.
    pub listener: i32,
    /// The inode of the socket's path.
    pub inode: u64,
    /// The pipe's descriptor: a byte there says that the worker serves.
    pub ready: i32,
    /// It is the supervisor's first worker: a dead one's name is taken only if nobody starts that again.
    pub first: bool,
}

impl std::fmt::Display for Handed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{},{},{},{}", self.listener, self.inode, self.ready, self.first)
    }
}

fn parse_handed(text: &str) -> Result<Handed, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let parse = |parts: [&str; 4]| {
        let [listener, inode, ready, first] = parts;
        Some(Handed {
            listener: listener.parse().ok()?,
            inode: inode.parse().ok()?,
            ready: ready.parse().ok()?,
            first: first.parse().ok()?,
        })
    };
    <[&str; 4]>::try_from(parts).ok().and_then(parse).ok_or_else(|| "only a supervisor says this".to_owned())
}

impl Arguments {
    /// Where the worker is found.
    pub fn address(&self) -> Address {
        match self.memfd {
            true => Address::Socket(self.socket()),
            false => Address::Name { shm: self.shm.clone(), socket: None },
        }
    }

    /// Where the worker listens. The segment carries the path to processes with other working folders.
    pub fn socket(&self) -> PathBuf {
        let socket = self.socket.clone().unwrap_or_else(|| default_socket(&self.shm));
        std::path::absolute(&socket).unwrap_or(socket)
    }
}

/// How much of something there is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// What suits what the machine, or the container, has to spare.
    Auto,
    /// That many bytes.
    Bytes(u64),
}

fn parse_grace(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0.1 to 3600".into()),
    }
}

/// Reads `auto` or a size with its unit.
fn parse_auto(text: &str) -> Result<Size, String> {
    if text.eq_ignore_ascii_case("auto") { Ok(Size::Auto) } else { parse_size(text).map(Size::Bytes) }
}

/// The same, within what an arena may have.
fn parse_arena(text: &str) -> Result<Size, String> {
    let (least, most) = (1 << 20, 1 << 38);
    match parse_auto(text)? {
        Size::Bytes(bytes) if !(least..=most).contains(&bytes) => Err(format!("{text} is outside 1MiB to 256GiB")),
        size => Ok(size),
    }
}

/// Reads a size with its unit.
pub fn parse_size(text: &str) -> Result<u64, String> {
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
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no size; like 256MiB"))?;
    number.checked_mul(scale).ok_or_else(|| format!("{text} is more than any machine has"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_supervisor_hands_over_is_read_as_it_was_written() {
        let handed = Handed { listener: 5, inode: 77, ready: 6, first: true };
        assert_eq!(parse_handed(&handed.to_string()), Ok(handed));
        for wrong in ["", "5", "5,77,6", "5,77,6,true,1", "a,77,6,true"] {
            assert!(parse_handed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_arena("auto"), Ok(Size::Auto));
        assert_eq!(parse_arena("256MiB"), Ok(Size::Bytes(256 << 20)));
        assert_eq!(parse_arena("64mb"), Ok(Size::Bytes(64_000_000)));
        assert_eq!(parse_arena("2g"), Ok(Size::Bytes(2 << 30)));
        for wrong in ["", "MiB", "12 parsecs", "-1MiB", "1", "99999999999GiB", "1.5GiB"] {
            assert!(parse_arena(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_auto("auto"), Ok(Size::Auto));
        assert_eq!(parse_auto("1"), Ok(Size::Bytes(1)), "only an arena has a least size");
    }
}
