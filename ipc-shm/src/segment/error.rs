//! Why a segment could not be made or opened.

use std::path::PathBuf;

use std::io;

use crate::layout::SOCKET_PATH_MAX;

/// Why a segment could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Not a name that shared memory can have.
    #[error("{0:?} is not a segment name; hint: a slash, then letters, digits, '.', '_' or '-', like /molt0")]
    Name(String),
    /// Nothing has that name.
    #[error(
        "there is no segment {name}: no molt_worker runs under that name; hint: start one with `molt_worker --shm {name}`"
    )]
    NotFound {
        /// The name.
        name: String,
    },
    /// Another user's, or not a plain shared-memory object.
    #[error("segment {name} belongs to user {uid}, not to {own}; nothing of it was read")]
    Foreign {
        /// The name.
        name: String,
        /// Its owner.
        uid: u32,
        /// Who asks.
        own: u32,
    },
    /// A symbolic link, a folder, a device.
    #[error("{name} is not a plain shared-memory object; nothing of it was read")]
    NotPlain {
        /// The name.
        name: String,
    },
    /// Made by other code.
    #[error(
        "segment {name} has layout version {theirs}, this program has {ours}; hint: install the same version of molt_worker and molt_accel"
    )]
    Version {
        /// The name.
        name: String,
        /// The segment's.
        theirs: u32,
        /// This program's.
        ours: u32,
    },
    /// Made by another build of the same layout version.
    #[error(
        "segment {name} was made by another build of molt (layout hash {theirs:#x}, this program has {ours:#x}); hint: install molt_worker and molt_accel from the same build"
    )]
    Build {
        /// The name.
        name: String,
        /// The segment's.
        theirs: u64,
        /// This program's.
        ours: u64,
    },
    /// Not a segment, or a broken one.
    #[error("segment {name} is damaged: {what}; hint: stop its worker and start it again")]
    Damaged {
        /// The name.
        name: String,
        /// Which field, and the numbers.
        what: String,
    },
    /// Its worker has not finished starting, or is no longer there.
    #[error(
        "the worker of segment {name} (pid {pid}) is {state}; hint: start it again with `molt_worker --shm {name}`"
    )]
    NotServing {
        /// The name.
        name: String,
        /// The worker's process.
        pid: u32,
        /// What it is instead.
        state: &'static str,
    },
    /// A live worker has the name.
    #[error(
        "segment {name} belongs to a running worker (pid {pid}); hint: choose another --shm, stop that worker, or take over with --replace"
    )]
    Alive {
        /// The name.
        name: String,
        /// Its worker.
        pid: u32,
    },
    /// A dead worker has the name, and its supervisor is about to start it again.
    #[error(
        "segment {name} belongs to a supervised worker that is being started again (supervisor pid {pid}); hint: choose another --shm, stop that supervisor, or take over with --replace"
    )]
    Supervised {
        /// The name.
        name: String,
        /// Its supervisor.
        pid: u32,
    },
    /// Somebody holds the lock on a name's changes and does not let go.
    #[error("the name {name} is being changed by another process that does not go on; hint: is one of them stopped?")]
    NameBusy {
        /// The name.
        name: String,
    },
    /// /dev/shm is too small.
    #[error(
        "{dir} has {free} bytes free, the segment needs {wanted}{held}; hint: use a smaller --arena, or enlarge {dir} (docker run --shm-size)"
    )]
    NoSpace {
        /// The folder.
        dir: &'static str,
        /// Bytes free there.
        free: u64,
        /// Bytes needed.
        wanted: u64,
        /// Which segments hold what of the rest, and what removes them.
        held: String,
    },
    /// A descriptor that came over a socket is not what a worker without a name keeps its segment in.
    #[error("the descriptor that {name} handed over {what}; nothing of it was read")]
    NotSealed {
        /// The socket.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Too little memory for a segment without a name.
    #[error(
        "{limit} leaves {free} bytes of memory, the segment of {name} needs {wanted}; hint: use a smaller --arena, or \
         allow more memory"
    )]
    NoMemory {
        /// The socket.
        name: String,
        /// What limits it.
        limit: String,
        /// Bytes that are left.
        free: u64,
        /// Bytes needed.
        wanted: u64,
    },
    /// The socket's path does not fit the header.
    #[error("socket path {path:?} has {len} bytes, at most {SOCKET_PATH_MAX} fit; hint: choose a shorter --socket")]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        len: usize,
    },
    /// The operating system refused.
    #[error("{doing} segment {name}: {error}")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// The name.
        name: String,
        /// Why not.
        error: io::Error,
    },
}
