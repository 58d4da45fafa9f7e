//! The session socket: any bytes, split anywhere, with descriptors beside them. The messages that come out are those of a
//! simple model, whatever the splits, and every descriptor is closed in the end.

use std::collections::VecDeque;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use molt_ipc_shm::handshake::{Inbox, MESSAGE_MAX, Received, message};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::input::Input;

/// Pieces: `| length u16, its top bits: how many descriptors, whether to read after it | bytes |`
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (ours, theirs) = UnixStream::pair().expect("a connection");
    ours.set_nonblocking(true).and_then(|()| theirs.set_nonblocking(true)).expect("sockets");
    let (watch, beside) = nix::unistd::pipe().expect("a pipe");
    let mut stream = Stream { socket: ours, inbox: Inbox::default(), expected: Expected::default() };
    let mut ended = false;
    while !input.is_empty() && !ended {
        let piece = input.u16();
        let fds = [0, 0, 0, 0, 1, 2, 5, 253][(piece >> 11) as usize & 7];
        let bytes = input.bytes((piece as usize & 0x7ff).max(1));
        let sent = shout(&theirs, bytes, fds, &beside);
        stream.expected.bytes.extend(&bytes[..sent]);
        if piece & 0x4000 != 0 {
            ended = stream.read(false);
        }
    }
    drop(theirs);
    if !ended {
        assert!(hangs_up(&stream.socket), "a closed connection stayed open");
        stream.read(true);
    }
    drop((stream, beside));
    assert!(hangs_up(&watch), "a descriptor stayed open");
}

/// Whether the other end is closed. A target beside this one that looks through /proc/self/fd holds each descriptor
/// there for a moment, so what is closed may end a little later. What stays open is open in ten seconds too.
fn hangs_up(end: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(end.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::from(10_000u16)).expect("poll") == 1
}

fn shout(socket: &UnixStream, bytes: &[u8], fds: usize, beside: &OwnedFd) -> usize {
    if fds == 0 {
        return (&*socket).write(bytes).unwrap_or(0);
    }
    let rights: Vec<RawFd> = vec![beside.as_raw_fd(); fds];
    let control = [ControlMessage::ScmRights(&rights)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, flags, None).unwrap_or(0)
}

/// The messages of a byte stream, found the simplest way.
#[derive(Default)]
struct Expected {
    bytes: VecDeque<u8>,
}

impl Expected {
    /// The next whole message; `None`: not all of it is there; `Err`: what comes is none.
    fn next(&mut self) -> Result<Option<(u32, Vec<u8>)>, ()> {
        let word = |at: usize| {
            let bytes: Vec<u8> = self.bytes.iter().skip(at).take(4).copied().collect();
            bytes.try_into().ok().map(u32::from_le_bytes)
        };
        let (Some(len), Some(kind)) = (word(0), word(4)) else { return Ok(None) };
        if len as usize > MESSAGE_MAX || !(message::HELLO..=message::PINNED).contains(&kind) {
            return Err(());
        }
        if self.bytes.len() < 8 + len as usize {
            return Ok(None);
        }
        Ok(Some((kind, self.bytes.drain(..8 + len as usize).skip(8).collect())))
    }
}

struct Stream {
    socket: UnixStream,
    inbox: Inbox,
    expected: Expected,
}

impl Stream {
    /// Reads all that is there; `true`: nothing more will come out of it.
    fn read(&mut self, closed: bool) -> bool {
        loop {
            match self.inbox.read(self.socket.as_fd()) {
                Ok(Received::Message(found)) => {
                    assert_eq!(self.expected.next(), Ok(Some((found.kind, found.payload))));
                }
                Ok(Received::Nothing) => {
                    assert!(!closed && self.expected.next() == Ok(None));
                    return false;
                }
                Ok(Received::Closed) => {
                    assert!(closed && self.expected.next() == Ok(None));
                    return true;
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
                    assert_eq!(self.expected.next(), Err(()));
                    return true;
                }
            }
        }
    }
}
