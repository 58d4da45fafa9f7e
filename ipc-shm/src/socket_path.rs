//! The path of a worker's socket: whose it is, whether somebody serves there, and who may put another in its place.
//!
//! A path is changed only under its lock file (`PATH.lock`): an exclusive lock that the kernel lets go of when its holder
//! dies. The file exists while a name changes, and goes with the change. Whether somebody serves is what the kernel says to
//! a connection: a socket that nobody listens on any more refuses it, however its worker ended. Neither hangs on a pid.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use crate::client::dial;
use crate::failpoint::around;

/// A change of a name takes a moment; who holds its lock longer hangs.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);
/// Binding takes a moment; who holds the folder's lock longer hangs.
const BOUND_WITHIN: Duration = Duration::from_millis(200);

/// Why a socket's path cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Something else, or another user, has it.
    #[error("{path} is {what} of user {uid}; hint: remove it, or choose another --socket")]
    Squatted {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
        /// Its owner.
        uid: u32,
    },
    /// Others could put their own socket there.
    #[error(
        "{folder}, where the socket is to lie, {what}: another user could put a socket of their own there; hint: a folder of \
         this user with mode 0700, or choose another --socket"
    )]
    Exposed {
        /// The folder.
        folder: PathBuf,
        /// Why.
        what: String,
    },
    /// A worker serves there.
    #[error(
        "socket {path} belongs to a running worker (pid {pid}); hint: choose another --socket, stop that worker, or take \
         over with --replace"
    )]
    Alive {
        /// The path.
        path: PathBuf,
        /// Who listens, as the kernel says; 0: not to be learned.
        pid: u32,
    },
    /// Another start has been changing it for too long.
    #[error(
        "{lock} has been held for {CHANGE_WITHIN:?} by another start on this socket; hint: look for a start that hangs"
    )]
    Held {
        /// The lock file.
        lock: PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: {error}")]
    Os {
        /// The path.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PathError {
    let path = path.to_path_buf();
    move |error| PathError::Os { path, error }
}

/// The exclusive right to change what lies at a path, until dropped.
#[derive(Debug)]
pub struct PathLock {
    path: PathBuf,
    _held: Flock<File>,
}

impl PathLock {
    /// Waits for it as long as a change of a name may take.
    pub fn take(socket: &Path) -> Result<Self, PathError> {
        let path = beside(socket, ".lock");
        let until = Instant::now() + CHANGE_WITHIN;
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = options.open(&path).map_err(|error| match std::fs::symlink_metadata(&path) {
                Ok(meta) if !is_own(&meta) || !meta.is_file() => squatted(&path, &meta),
                _ => failed(&path)(error),
            })?;
            let meta = file.metadata().map_err(failed(&path))?;
            if !is_own(&meta) || !meta.is_file() {
                return Err(squatted(&path, &meta));
            }
            // Whoever held it before may have removed the file: the lock counts only on the one that has the name.
            if let Ok(held) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                && std::fs::symlink_metadata(&path).is_ok_and(|now| now.ino() == meta.ino())
            {
                return Ok(Self { path, _held: held });
            }
            if Instant::now() > until {
                return Err(PathError::Held { lock: path });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn beside(socket: &Path, ending: &str) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn is_own(meta: &Metadata) -> bool {
    meta.uid() == geteuid().as_raw()
}

fn squatted(path: &Path, meta: &Metadata) -> PathError {
    let kind = meta.file_type();
    let what = match () {
        () if kind.is_socket() => "a socket",
        () if kind.is_symlink() => "a symbolic link, not a socket,",
        () if kind.is_dir() => "a folder, not a socket,",
        () => "a file, not a socket,",
    };
    PathError::Squatted { path: path.into(), what, uid: meta.uid() }
}

/// Makes the socket's folder if it is not there, for this user alone; refuses one where others could exchange a socket.
pub fn prepare_folder(socket: &Path) -> Result<(), PathError> {
    let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    if !folder.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    }
    let meta = std::fs::metadata(folder).map_err(failed(folder))?;
    let exposed = |what: String| Err(PathError::Exposed { folder: folder.into(), what });
    match meta.mode() {
        _ if !is_own(&meta) && meta.uid() != 0 => exposed(format!("belongs to user {}", meta.uid())),
        // With the sticky bit, as /tmp has it, nobody removes what is another's.
        mode if mode & 0o022 != 0 && mode & 0o1000 == 0 => {
            exposed(format!("may be written by others (mode {:04o})", mode & 0o7777))
        }
        _ => Ok(()),
    }
}

/// Refuses a path that has something else than a socket of this user.
pub fn check_free_of_others(socket: &Path) -> Result<(), PathError> {
    match std::fs::symlink_metadata(socket) {
        Ok(meta) if !meta.file_type().is_socket() || !is_own(&meta) => Err(squatted(socket, &meta)),
        _ => Ok(()),
    }
}

/// The process that listens on a socket; 0 where the kernel does not say; `None`: nobody does.
pub fn listener_of(socket: &Path) -> Option<u32> {
    match dial::open(socket) {
        Ok(stream) => Some(getsockopt(&stream, PeerCredentials).map_or(0, |who| who.pid() as u32)),
        // A full queue is somebody's.
        Err(error) if error.kind() == io::ErrorKind::Other => Some(0),
        Err(_) => None,
    }
}

/// Whether that is a socket of this user that nobody listens on.
fn is_stale(path: &Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket() && is_own(&meta));
    // Whoever cannot even ask, for want of descriptors say, has not been refused.
    socket && dial::open(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Removes a socket that nobody listens on, and what killed starts left beside it. Returns what it removed.
pub fn remove_stale(socket: &Path) -> Vec<PathBuf> {
    let Ok(_lock) = PathLock::take(socket) else { return Vec::new() };
    let mut removed = FolderLock::take(socket).map_or_else(Vec::new, |folder| folder.sweep(socket));
    if is_stale(socket) && std::fs::remove_file(socket).is_ok() {
        removed.push(socket.into());
    }
    removed
}

/// The socket's folder, locked while a socket is bound in it and not listened on yet: it looks like a dead one's then. The
/// kernel lets go of the lock when its holder dies; one that hangs is not waited for.
#[derive(Debug)]
pub(crate) struct FolderLock {
    folder: PathBuf,
    _held: Flock<File>,
}

impl FolderLock {
    /// Waits for it as long as binding may take.
    pub fn take(socket: &Path) -> Option<Self> {
        let folder = socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let until = Instant::now() + BOUND_WITHIN;
        let mut file = File::open(folder).ok()?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Some(Self { folder: folder.into(), _held: held }),
                Err(_) if Instant::now() > until => return None,
                Err((again, _)) => file = again,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes what starts that were killed before they had the path left beside it: sockets of this user on which nobody
    /// listens. Returns what it removed.
    pub fn sweep(&self, socket: &Path) -> Vec<PathBuf> {
        let (Some(own), Ok(files)) = (socket.file_name(), std::fs::read_dir(&self.folder)) else { return Vec::new() };
        let unpublished = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let ending = name.strip_prefix(own.as_encoded_bytes()).and_then(|rest| rest.strip_prefix(b"."));
            ending.is_some_and(|ending| ending.len() == 8 && ending.iter().all(u8::is_ascii_hexdigit))
        };
        let files = files.flatten().map(|entry| entry.path()).filter(unpublished);
        files.filter(|path| is_stale(path) && around(|| std::fs::remove_file(path)).is_ok()).collect()
    }
}
