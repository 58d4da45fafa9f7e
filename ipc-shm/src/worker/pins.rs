//! Pins: what forked children keep of their parents' results.
//!
//! A client that is about to fork sends one end of a socket pair; its child keeps the other. The results of a pin stay where
//! they are until that end is closed in every process that has it, whatever the parent does with its leases and whether it
//! lives.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::Outcome;
use crate::bell;
use crate::doorbell::Woken;
use crate::handshake::{self, message};

use super::peer::{Peer, Pinned};
use super::poller::{Poller, Token};

/// Each is a descriptor of the worker's: more living children that inherited results are a leak.
const PINS_OF_ONE: usize = 128;

/// A pin.
pub(super) struct Pin {
    socket: OwnedFd,
    peer: Arc<Peer>,
    pub pinned: Arc<Pinned>,
}

impl Poller {
    /// The session's process is about to fork.
    pub(super) fn pin(&mut self, id: u64, socket: Option<OwnedFd>) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let Some(peer) = session.peer.clone() else { return Err("a pin was asked for before hello".into()) };
        let own = self.pins.values().filter(|pin| Arc::ptr_eq(&pin.peer, &peer)).count();
        if own >= PINS_OF_ONE {
            let text = format!("{own} forked children keep results of this process, as many as may");
            return self.refuse(id, Outcome::Busy, &text);
        }
        let Some(socket) = socket else {
            return self.refuse(id, Outcome::Busy, "no descriptor for a pin came through");
        };
        let pin = self.next_session;
        if let Err(error) = self.watch(&socket, Token::Pin(pin)) {
            return self.refuse(id, Outcome::Busy, &format!("the pin cannot be watched: {error}"));
        }
        self.next_session += 1;
        // Before the answer: from then on the parent may let go of what its child was promised.
        let pinned = peer.pin();
        self.pins.insert(pin, Pin { socket, peer, pinned });
        handshake::send(session.socket.as_fd(), message::PINNED, &[], None).map_err(|error| error.to_string())
    }

    /// A byte: the fork is over. The end: the child is gone, and so is whoever it forked.
    pub(super) fn hear_pin(&mut self, id: u64) {
        let Some(pin) = self.pins.get(&id) else { return };
        pin.peer.seal(&pin.pinned);
        if !matches!(bell::drain(pin.socket.as_fd()), Ok(Woken::Look | Woken::Interrupted)) {
            let _ = self.epoll.delete(&pin.socket);
            self.pins.remove(&id);
        }
    }
}
