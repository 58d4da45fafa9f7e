//! The few system calls that neither std nor nix wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;
use nix::time::{ClockId, clock_gettime};

/// A descriptor that becomes readable when the process ends. It names the process, not the number: a reused pid is
/// another process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call that takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A descriptor for the process at the other end of a Unix socket: the kernel's own word (Linux 6.5), not a number that
/// may have been reused since. Older kernels answer through the number.
///
/// # Errors
/// Any error but a lack of descriptors means that the process is dead.
pub fn peer_pidfd(socket: BorrowedFd<'_>, pid: u32) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `fd`, which has that many.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, (&raw mut fd).cast(), &raw mut len)
    };
    if result < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOPROTOOPT) { pidfd_open(pid) } else { Err(error) };
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor that the process which started this one has left open for it, by its number: it is this program's from now
/// on, and not its children's.
///
/// # Errors
/// There is none of that number.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: a system call that takes integers and fails where no descriptor has that number.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    // SAFETY: the descriptor is open, it was left open for this process on purpose, and its number is asked for once, before
    // anything else in this process could have taken it into its hands.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// How many descriptors this process may have open (its soft RLIMIT_NOFILE).
pub fn most_descriptors() -> u64 {
    // SAFETY: takes an integer and returns one.
    unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.max(0) as u64
}

static PID: AtomicU32 = AtomicU32::new(0);

/// This process's number, without a system call: every lease and block that is let go of asks whether it is in a forked
/// child.
#[inline]
pub fn pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => look_up_pid(),
        pid => pid,
    }
}

#[cold]
fn look_up_pid() -> u32 {
    static WATCH_FORKS: Once = Once::new();
    extern "C" fn in_child() {
        PID.store(0, Ordering::Relaxed);
    }
    WATCH_FORKS.call_once(|| {
        // SAFETY: the handler only stores to an atomic, which is allowed in a forked child.
        let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        assert_eq!(result, 0, "no memory for a fork handler");
    });
    let pid = std::process::id();
    PID.store(pid, Ordering::Relaxed);
    pid
}

/// Nanoseconds of CLOCK_MONOTONIC: one machine, one clock, so deadlines travel as absolute values.
#[inline]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    now.as_nanos() as u64
}
