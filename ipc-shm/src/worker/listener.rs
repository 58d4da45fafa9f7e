//! The socket where clients say hello.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::failpoint::around;
use crate::segment::SegmentError;
use crate::socket_path::{self, PathError, PathLock};

/// Binding takes a moment; who holds the folder's lock longer hangs.
const LOCKED_WITHIN: Duration = Duration::from_millis(200);

/// How long a process takes to end, as far as its descriptors go.
const DYING_WITHIN: Duration = Duration::from_millis(300);

/// Why the worker cannot begin to listen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The socket's path, or its folder.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The operating system refused.
    #[error("{doing} {path}: {error}")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// A listening socket of this user, unlinked when dropped.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    /// Where it lies now: under a name of its own until the segment has its name.
    path: PathBuf,
    inode: u64,
    /// Where it is to lie.
    place: PathBuf,
}

impl Listener {
    /// Listens under a name of its own beside `place`, and is moved there when the segment has its name, as that is:
    /// nobody ever finds a half-made one, what a dead worker left is replaced, and a start that is refused disturbs no
    /// live worker.
    pub fn bind(place: PathBuf, instance: u64) -> Result<Self, StartError> {
        let os = |doing| {
            let path = place.clone();
            move |error: io::Error| StartError::Os { doing, path, error }
        };
        socket_path::prepare_folder(&place)?;
        socket_path::check_free_of_others(&place)?;
        let lock = lock_folder(&place);
        if lock.is_some() {
            sweep(&place);
        }
        let mut path = place.clone().into_os_string();
        path.push(format!(".{:08x}", instance as u32));
        let path = PathBuf::from(path);
        let socket = around(|| UnixListener::bind(&path)).map_err(os("listen on"))?;
        drop(lock);
        let settled = around(|| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)))
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| std::fs::symlink_metadata(&path));
        match settled {
            Ok(meta) => Ok(Self { socket, path, inode: meta.ino(), place }),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(os("listen on")(error))
            }
        }
    }

    /// Moves it to its place. A socket that nobody listens on is replaced, one that somebody does only with `replace`; then
    /// that process is returned.
    pub fn publish(&mut self, replace: bool) -> Result<Option<u32>, StartError> {
        let _lock = PathLock::take(&self.place)?;
        socket_path::check_free_of_others(&self.place)?;
        let mut previous = socket_path::listener_of(&self.place);
        // The kernel closes a dying worker's descriptors one after the other: its lock may be gone before its socket is.
        let until = Instant::now() + DYING_WITHIN;
        while let (Some(pid), false) = (previous, replace) {
            if Instant::now() > until {
                return Err(PathError::Alive { path: self.place.clone(), pid }.into());
            }
            std::thread::sleep(Duration::from_millis(10));
            previous = socket_path::listener_of(&self.place);
        }
        let failed = |error| StartError::Os { doing: "listen on", path: self.place.clone(), error };
        around(|| std::fs::rename(&self.path, &self.place)).map_err(failed)?;
        self.path = self.place.clone();
        Ok(previous)
    }

    /// The next connection, if one waits.
    pub fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().map(|(stream, _)| stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Only one's own: after an upgrade the path belongs to the next worker, who may be moving in just now.
        let _lock = PathLock::take(&self.place);
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = around(|| std::fs::remove_file(&self.path));
        }
    }
}

/// Where sockets live when nobody says: a folder that only this user can enter.
pub fn default_socket(shm: &str) -> PathBuf {
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|dir| PathBuf::from(dir).join("molt"))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("molt-{}", geteuid().as_raw())));
    base.join(format!("{}.sock", shm.trim_start_matches('/')))
}

/// The folder, locked while a socket is bound in it and not listened on yet: it looks like a dead one's then. The kernel
/// lets go of the lock when its holder dies; one that hangs is not waited for.
fn lock_folder(place: &Path) -> Option<Flock<File>> {
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let until = Instant::now() + LOCKED_WITHIN;
    let mut file = File::open(folder).ok()?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Some(locked),
            Err(_) if Instant::now() > until => return None,
            Err((again, _)) => file = again,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes what starts that were killed before they moved their socket to `place` left beside it: sockets of this user on
/// which nobody listens. Under the folder's lock.
fn sweep(place: &Path) {
    let (Some(folder), Some(own)) = (place.parent(), place.file_name().and_then(OsStr::to_str)) else { return };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_unmoved = |name: &str| {
        let ending = name.strip_prefix(own).and_then(|rest| rest.strip_prefix('.'));
        ending.is_some_and(|ending| ending.len() == 8 && ending.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_own = |meta: Metadata| meta.file_type().is_socket() && meta.uid() == geteuid().as_raw();
        let is_dead =
            || UnixStream::connect(entry.path()).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if entry.file_name().to_str().is_some_and(is_unmoved) && entry.metadata().is_ok_and(is_own) && is_dead() {
            let _ = around(|| std::fs::remove_file(entry.path()));
        }
    }
}
