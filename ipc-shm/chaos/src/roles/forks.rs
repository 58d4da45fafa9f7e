//! Forks of a client: a child that reads what it inherited, whatever becomes of the process that it came from.

use std::time::Duration;

use molt_ipc_shm::client::forks;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Children of a thread that live, at most: each is a descriptor of the worker's.
const MOST: usize = 4;

/// The children of one thread.
#[derive(Default)]
pub struct Children(Vec<Pid>);

impl Children {
    /// Forks a child that runs `look` at once, and again after a pause, in which its parent may let go of everything. The
    /// child tells of what it finds by itself. None is forked when the worker does not keep what it would inherit.
    pub fn fork(&mut self, pause: Duration, look: impl Fn()) -> Result<(), String> {
        self.reap()?;
        if self.0.len() >= MOST {
            return Ok(());
        }
        if forks::before().is_err() {
            forks::in_parent();
            return Ok(());
        }
        // SAFETY: the child uses memory, files and this library's answer to a fork, all of which the C library and this
        // library make usable in it; it never returns to what the other threads were doing, and ends without their exits.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                forks::in_child();
                look();
                std::thread::sleep(pause);
                look();
                // SAFETY: ends this process at once.
                unsafe { nix::libc::_exit(0) }
            }
            Ok(ForkResult::Parent { child }) => {
                forks::in_parent();
                self.0.push(child);
                Ok(())
            }
            Err(_) => {
                forks::in_parent();
                Ok(())
            }
        }
    }

    /// Takes leave of those that have ended; one that did not end in good order is an error.
    fn reap(&mut self) -> Result<(), String> {
        let mut wrong = Ok(());
        self.0.retain(|child| match waitpid(*child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => true,
            Ok(WaitStatus::Exited(_, 0)) => false,
            other => {
                wrong = Err(format!("a forked child ended with {other:?}"));
                false
            }
        });
        wrong
    }

    /// Waits for the last ones.
    pub fn finish(mut self) -> Result<(), String> {
        let mut wrong = Ok(());
        while !self.0.is_empty() {
            wrong = wrong.and(self.reap());
            std::thread::sleep(Duration::from_millis(1));
        }
        wrong
    }
}
