//! Forks: what a process that holds results does around fork(), so that its child can go on reading them.
//!
//! Leases are the parent's: once it lets go of them, or dies, the worker gives their bytes to somebody else. So before the
//! fork the parent makes a **pin**: a socket pair, one end of which the worker keeps together with everything that the
//! session holds at that time. After the fork the child alone keeps the pin, and the kernel closes it when the
//! child, and whoever it forked in turn, is gone: however they end, the bytes come back. The child never speaks to the
//! worker for it, and its finalizers do nothing.
//!
//! Three calls in one thread: [`before`], then fork(), then [`in_parent`] and [`in_child`]. Only the thread that forks lives
//! on in the child, and whatever lock another one held there stays locked. So the one lock that both sides need is taken
//! before and given back after the fork; the list of descriptors that the child closes needs none.

use std::cell::RefCell;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::bell;

use super::request::Failure;
use super::session::Session;

/// A worker that hangs may delay a fork so long; then the child has no pin.
const PINNED_WITHIN: Duration = Duration::from_secs(1);

/// Every session of this process that is not gone, those of closed clients included: their results may be in use.
static SESSIONS: Mutex<Vec<Weak<Session>>> = Mutex::new(Vec::new());

type Sessions = MutexGuard<'static, Vec<Weak<Session>>>;

/// A fork of this thread that is under way.
struct Fork {
    /// Locked until it is over: in the child nobody else could unlock it.
    sessions: Sessions,
    pinned: Vec<(Arc<Session>, Option<OwnedFd>)>,
}

thread_local! {
    static FORK: RefCell<Option<Fork>> = const { RefCell::new(None) };
}

fn sessions() -> Sessions {
    SESSIONS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Remembers a session for the forks to come.
pub(super) fn remember(session: &Arc<Session>) {
    let add = |sessions: &mut Vec<Weak<Session>>| {
        sessions.retain(|kept| kept.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    };
    FORK.with_borrow_mut(|fork| match fork {
        // Between `before` and the fork this thread has the lock already.
        Some(fork) => add(&mut fork.sessions),
        None => add(&mut sessions()),
    });
}

/// Before a fork: asks for a pin for each session that holds results, or may be given some just now.
///
/// # Errors
/// A worker gave no pin. The fork may go on; what its child inherits then stays valid only while the parent holds it too.
/// [`in_parent`] and [`in_child`] are needed all the same.
pub fn before() -> Result<(), Failure> {
    FORK.with_borrow_mut(|fork| {
        if fork.is_some() {
            return Ok(());
        }
        let sessions = sessions();
        let until = Instant::now() + PINNED_WITHIN;
        let mut failed = Ok(());
        let live: Vec<_> = sessions.iter().filter_map(Weak::upgrade).filter(|session| session.is_mine()).collect();
        let pin = |session: Arc<Session>| {
            let wanted = session.may_hold_results() && !session.is_lost();
            let answer = if wanted { session.pin(until) } else { Ok(None) };
            let pin = answer.unwrap_or_else(|failure| {
                failed = Err(failure);
                None
            });
            (session, pin)
        };
        let pinned = live.into_iter().map(pin).collect();
        *fork = Some(Fork { sessions, pinned });
        failed
    })
}

/// After a fork, in the parent: the pins are the child's alone.
pub fn in_parent() {
    let Some(Fork { sessions, pinned }) = FORK.take() else { return };
    for pin in pinned.into_iter().filter_map(|(_, pin)| pin) {
        // What the parent is lent from now on does not concern the child. A worker that is gone need not be told.
        let _ = bell::ring(pin.as_fd());
    }
    // Not sooner: another thread's child would inherit these pins.
    drop(sessions);
}

/// After a fork, in the child: keeps the pins for as long as it lives, and closes the parent's sockets without shutting
/// them down. Everything else of the parent's sessions is left as it is.
pub fn in_child() {
    let Some(Fork { mut sessions, pinned }) = FORK.take() else { return };
    let inherited: Vec<_> = sessions.drain(..).filter_map(|session| session.upgrade()).collect();
    drop(sessions);
    for session in inherited {
        session.close_inherited();
        // Its end would close numbers that are other files by then.
        std::mem::forget(session);
    }
    for (session, pin) in pinned {
        std::mem::forget(session);
        let _: Option<RawFd> = pin.map(OwnedFd::into_raw_fd);
    }
}
