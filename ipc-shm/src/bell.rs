//! The bell of a doorbell: a Unix socket that carries bytes without meaning.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::doorbell::Woken;
use crate::failpoint::around;

/// No sleep lasts longer without a full look, whatever bytes were lost.
pub const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Reads that empty a bell; who sends more than that into it waits for the next look.
const MOST_READS: usize = 8;

/// Sends one byte. A full socket means that bytes wait there already.
///
/// # Errors
/// `BrokenPipe` or `ConnectionReset`: the other side's process has closed its end.
pub fn ring(bell: BorrowedFd<'_>) -> io::Result<()> {
    match around(|| send(bell.as_raw_fd(), &[1], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)) {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes reads of this bell end after [`LONGEST_SLEEP`], so that [`wait_limited`] can be one system call.
/// The worker hands out bells that do not block.
pub fn limit_reads(bell: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(bell, FcntlArg::F_GETFL)?);
    fcntl(bell, FcntlArg::F_SETFL(flags.difference(OFlag::O_NONBLOCK)))?;
    Ok(setsockopt(&bell, ReceiveTimeout, &TimeVal::milliseconds(LONGEST_SLEEP.as_millis() as i64))?)
}

/// Waits for a byte of a bell whose reads are limited ([`limit_reads`]), at most [`LONGEST_SLEEP`].
pub fn wait_limited(bell: BorrowedFd<'_>) -> io::Result<Woken> {
    match receive(bell, MsgFlags::empty())? {
        Received::Nothing => Ok(Woken::TimedOut),
        Received::Told(woken) => Ok(woken),
    }
}

/// Waits for a byte, at most that long (and never longer than [`LONGEST_SLEEP`]), and takes what is there.
pub fn wait(bell: BorrowedFd<'_>, longest: Duration) -> io::Result<Woken> {
    let mut polled = [PollFd::new(bell, PollFlags::POLLIN)];
    let longest = longest.min(LONGEST_SLEEP);
    let timeout = PollTimeout::try_from(longest.as_nanos().div_ceil(1_000_000) as i32).unwrap_or(PollTimeout::ZERO);
    match poll(&mut polled, timeout) {
        Ok(0) => Ok(Woken::TimedOut),
        Ok(_) => drain(bell),
        Err(Errno::EINTR) => Ok(Woken::Interrupted),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes the bytes that wait in the socket.
pub fn drain(bell: BorrowedFd<'_>) -> io::Result<Woken> {
    match receive(bell, MsgFlags::MSG_DONTWAIT)? {
        Received::Nothing => Ok(Woken::Look),
        Received::Told(woken) => Ok(woken),
    }
}

/// Takes all bytes that wait in the socket, as far as they are the bytes of a doorbell: a full one holds a few hundred.
pub fn empty(bell: BorrowedFd<'_>) -> io::Result<Woken> {
    for _ in 0..MOST_READS {
        match receive_into(bell, &mut [0; 512], MsgFlags::MSG_DONTWAIT)? {
            Received::Nothing => break,
            Received::Told(Woken::HungUp) => return Ok(Woken::HungUp),
            Received::Told(_) => {}
        }
    }
    Ok(Woken::Look)
}

enum Received {
    Nothing,
    Told(Woken),
}

fn receive(bell: BorrowedFd<'_>, flags: MsgFlags) -> io::Result<Received> {
    receive_into(bell, &mut [0; 64], flags)
}

fn receive_into(bell: BorrowedFd<'_>, bytes: &mut [u8], flags: MsgFlags) -> io::Result<Received> {
    match recv(bell.as_raw_fd(), bytes, flags) {
        Ok(0) | Err(Errno::ECONNRESET | Errno::EPIPE) => Ok(Received::Told(Woken::HungUp)),
        Ok(_) => Ok(Received::Told(Woken::Look)),
        Err(Errno::EAGAIN) => Ok(Received::Nothing),
        Err(Errno::EINTR) => Ok(Received::Told(Woken::Interrupted)),
        Err(errno) => Err(errno.into()),
    }
}
