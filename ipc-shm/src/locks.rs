//! The locks on a segment's object, and what each of them says.
//!
//! They are locks of open file descriptions (`F_OFD_SETLK`) on ranges of bytes, most of them beyond the object's end: the
//! kernel lets go of them when their holder dies, however it dies, so none of these questions is ever asked of a pid, and
//! asking (`F_OFD_GETLK`) takes nothing, not even for a moment.
//!
//! | lock | who holds it | what it says |
//! | --- | --- | --- |
//! | [`ObjectLock::Life`] | the worker, as long as it lives | the worker of this segment lives |
//! | [`ObjectLock::Name`] | whoever changes what the name or the socket's path stand for | nobody else does so meanwhile |
//! | [`ObjectLock::Supervisor`] | the supervisor, as long as it lives | a worker that died is started again |
//!
//! Why a check and an unlink cannot be torn apart: a name is moved away from an object, or removed, only under that
//! object's name lock, and after a look, under the lock, that the name still stands for it. A start holds the name lock of
//! its own object too, from before it has the name until its socket has its path. So whoever holds the name lock of the
//! object that has the name knows that name and path stay as they are until it lets go.

use std::fs::File;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// One of an object's locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectLock {
    /// Its worker lives.
    Life,
    /// Its name is being changed.
    Name,
    /// Its worker is started again when it dies.
    Supervisor,
}

/// No object is this long: ranges from here on lock no byte that exists.
const BEYOND: libc::off_t = 1 << 62;
/// How often a lock that somebody has is tried again: it is held for a few system calls.
const TRY_EVERY: Duration = Duration::from_millis(1);

impl ObjectLock {
    fn range(self, kind: libc::c_int) -> libc::flock {
        let (l_start, l_len) = match self {
            Self::Life => (0, BEYOND),
            Self::Name => (BEYOND, 1),
            Self::Supervisor => (BEYOND + 1, 1),
        };
        let l_whence = libc::SEEK_SET as libc::c_short;
        libc::flock { l_type: kind as libc::c_short, l_whence, l_start, l_len, l_pid: 0 }
    }

    /// Takes it if nobody else has it. It belongs to the open file, and ends with it.
    pub fn take(self, file: &File) -> bool {
        fcntl(file, FcntlArg::F_OFD_SETLK(&self.range(libc::F_WRLCK))).is_ok()
    }

    /// Takes it as soon as nobody else has it, within `longest`.
    pub fn wait(self, file: &File, longest: Duration) -> bool {
        let end = Instant::now() + longest;
        while !self.take(file) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(TRY_EVERY);
        }
        true
    }

    /// Lets go of it before the file is closed.
    pub fn release(self, file: &File) {
        let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&self.range(libc::F_UNLCK)));
    }

    /// Whether another open file has it.
    pub fn is_held(self, file: &File) -> bool {
        let mut found = self.range(libc::F_WRLCK);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && found.l_type != libc::F_UNLCK as libc::c_short
    }
}
