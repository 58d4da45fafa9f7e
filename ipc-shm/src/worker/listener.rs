//! The socket where clients say hello.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{AcceptConn, PeerCredentials};
use nix::unistd::geteuid;

use crate::Outcome;
use crate::failpoint::around;
use crate::handshake::{self, message};
use crate::segment::{SegmentError, random};
use crate::socket_path::{self, FolderLock, PathError, PathLock};

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

/// A listening socket of this user. Clients that come while nobody accepts wait in its queue, so a supervisor that keeps it
/// open keeps them too, whatever becomes of the worker.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    /// The name of its own under which it was bound; it lies there until the segment has its name.
    bound: PathBuf,
    inode: u64,
    /// Where it is to lie.
    place: PathBuf,
}

impl Listener {
    /// Listens under a name of its own beside `place`, and is moved there when the segment has its name, as that is:
    /// nobody ever finds a half-made one, what a dead worker left is replaced, and a start that is refused disturbs no
    /// live worker.
    pub fn bind(place: PathBuf) -> Result<Self, StartError> {
        let os = |doing| {
            let path = place.clone();
            move |error: io::Error| StartError::Os { doing, path, error }
        };
        socket_path::prepare_folder(&place)?;
        socket_path::check_free_of_others(&place)?;
        let lock = FolderLock::take(&place);
        if let Some(lock) = &lock {
            lock.sweep(&place);
        }
        let mut bound = place.clone().into_os_string();
        bound.push(format!(".{:08x}", random() as u32));
        let bound = PathBuf::from(bound);
        let socket = around(|| UnixListener::bind(&bound)).map_err(os("listen on"))?;
        drop(lock);
        let settled = around(|| std::fs::set_permissions(&bound, std::fs::Permissions::from_mode(0o600)))
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| std::fs::symlink_metadata(&bound));
        match settled {
            Ok(meta) => Ok(Self { socket, bound, inode: meta.ino(), place }),
            Err(error) => {
                let _ = std::fs::remove_file(&bound);
                Err(os("listen on")(error))
            }
        }
    }

    /// A socket that a supervisor has bound and hands on: its descriptor, and the inode that [`Listener::inode`] told.
    pub fn inherited(fd: OwnedFd, inode: u64, place: PathBuf) -> Result<Self, StartError> {
        let os = |error: io::Error| StartError::Os {
            doing: "take over the listening socket of",
            path: place.clone(),
            error,
        };
        if !getsockopt(&fd, AcceptConn).map_err(|errno| os(errno.into()))? {
            return Err(os(io::Error::other("it is not one that listens")));
        }
        let socket = UnixListener::from(fd);
        let address = socket.local_addr().map_err(os)?;
        let Some(bound) = address.as_pathname().map(Path::to_path_buf) else {
            return Err(os(io::Error::other("it has no path")));
        };
        Ok(Self { socket, bound, inode, place })
    }

    /// Where it is to lie.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The number by which its path is known again.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    fn is_at(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket() && meta.ino() == self.inode)
    }

    /// Whether it lies in its place.
    pub fn is_placed(&self) -> bool {
        self.is_at(&self.place)
    }

    /// Moves it to its place, if it is not there already. A socket that nobody listens on is replaced, one that somebody
    /// does only with `replace`. With a named segment only for who holds its name lock, which is always taken first.
    pub(super) fn publish(&self, replace: bool) -> Result<(), StartError> {
        let _lock = PathLock::take(&self.place)?;
        if self.is_placed() {
            return Ok(());
        }
        socket_path::check_free_of_others(&self.place)?;
        // The kernel closes a dying worker's descriptors one after the other: its lock may be gone before its socket is.
        let until = Instant::now() + DYING_WITHIN;
        while !replace && let Some(pid) = socket_path::listener_of(&self.place) {
            if Instant::now() > until {
                return Err(PathError::Alive { path: self.place.clone(), pid }.into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let failed = |error| StartError::Os { doing: "listen on", path: self.place.clone(), error };
        around(|| std::fs::rename(&self.bound, &self.place)).map_err(failed)
    }

    /// Removes its path unless that is another's by now.
    pub fn unlink(&self) {
        // Whoever is next may be moving in just now.
        let _lock = PathLock::take(&self.place);
        if self.is_placed() {
            let _ = around(|| std::fs::remove_file(&self.place));
        }
    }

    /// Tells everybody who waits in the queue why nobody serves, so that they need not wait.
    pub fn turn_away(&self, why: &str) {
        let mut payload = vec![Outcome::Unavailable as u8];
        payload.extend_from_slice(&why.as_bytes()[..why.floor_char_boundary(handshake::MESSAGE_MAX - 1)]);
        while let Ok(newcomer) = self.accept() {
            let user = getsockopt(&newcomer, PeerCredentials).map(|credentials| credentials.uid());
            if user == Ok(geteuid().as_raw()) {
                // Whoever has gone meanwhile needs no answer.
                let _ = handshake::send(newcomer.as_fd(), message::REFUSED, &payload, None);
            }
        }
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
        // The name of its own is nobody else's business; its place is left by whoever gives up the segment's name.
        if self.is_at(&self.bound) {
            let _ = around(|| std::fs::remove_file(&self.bound));
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
