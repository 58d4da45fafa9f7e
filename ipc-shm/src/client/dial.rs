//! Connecting to a worker's socket: who serves there is checked before a word is said.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};
use nix::unistd::geteuid;

use crate::Outcome;
use crate::failpoint::around;
use crate::handshake::{self, Inbox, Message, message};
use crate::nameless;
use crate::segment::Segment;

use super::line::receive_through;
use super::request::Failure;

/// Connects without waiting: a worker that hangs lets its queue fill, and who waits there waits for ever.
pub(crate) fn open(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    around(|| connect(stream.as_raw_fd(), &address)).map_err(|errno| match errno {
        Errno::EAGAIN => io::Error::other("its queue of newcomers is full: it hangs, or it is overrun"),
        errno => errno.into(),
    })?;
    Ok(stream.into())
}

/// Connects to a socket of this user that a process of this user serves.
pub(crate) fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let own = geteuid().as_raw();
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.file_type().is_socket() || meta.uid() != own {
        let what = if meta.file_type().is_socket() { "a socket" } else { "no socket" };
        return Err(io::Error::other(format!("it is {what} of user {}; this process runs as user {own}", meta.uid())));
    }
    let stream = open(path)?;
    let server = getsockopt(&stream, PeerCredentials)?.uid();
    if server != own {
        return Err(io::Error::other(format!("it is served by user {server}, not by this one ({own})")));
    }
    Ok(stream)
}

fn cannot(path: &Path, what: &str, error: &dyn std::fmt::Display) -> Failure {
    let path = path.display();
    let text = format!(
        "no worker can be reached on {path}: {what}: {error}; hint: start one with `molt_worker --memfd --socket {path}`"
    );
    Failure::new(Outcome::Unavailable, text)
}

/// Asks the worker behind a socket for its segment, which may be in any state. The connection can go on with a hello.
pub(crate) fn look(path: &Path, until: Instant) -> Result<(Segment, UnixStream), Failure> {
    let stream = ask(path)?;
    let mut inbox = Inbox::default();
    let answer = receive_through(&stream, &mut inbox, message::SEGMENT, until);
    let answer = answer.map_err(|error| error.about(&|what, error| cannot(path, what, error)))?;
    Ok((segment_of(answer, path)?, stream))
}

/// Puts the question; who serves there may be busy, or not there yet.
pub(super) fn ask(path: &Path) -> Result<UnixStream, Failure> {
    let stream = connect_to(path).map_err(|error| cannot(path, "connect", &error))?;
    // Where this fails a supervisor without a worker has turned the newcomer away already: what it said is there to be read.
    let _ = handshake::send(stream.as_fd(), message::LOOK, &[], None);
    Ok(stream)
}

/// The segment that the answer means.
pub(super) fn segment_of(answer: Message, path: &Path) -> Result<Segment, Failure> {
    let opened = match (answer.fd, std::str::from_utf8(&answer.payload)) {
        (Some(object), Ok("")) => nameless::open(object, &path.display().to_string()),
        (None, Ok(name)) if !name.is_empty() => Segment::open(name),
        _ => return Err(cannot(path, "its answer", &"neither a segment nor the name of one")),
    };
    opened.map_err(|error| Failure::new(Outcome::Unavailable, error.to_string()))
}

/// What is said of a worker that does not answer.
pub(super) fn silent(path: &Path) -> Failure {
    cannot(path, "its answer", &"none came in time")
}
