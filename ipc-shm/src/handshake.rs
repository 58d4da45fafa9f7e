//! What client and worker say on the session socket: a few framed messages, and descriptors beside them.
//!
//! ```text
//!   client -> HELLO    who I am, which layout and which start of the worker I mean
//!   worker -> WELCOME  your session slot             or REFUSED (outcome, text)
//!   client -> OPEN     one more channel, please
//!   worker -> CHANNEL  its number + its doorbell     or REFUSED
//!   client -> PIN      I am about to fork, and my child keeps what I hold
//!   worker -> PINNED   I keep that too               or REFUSED
//!   client closes the socket: the session ends (if its client has let go of the slot, see `slot`)
//!
//!   anybody of this user -> LOOK     where is your segment? (before HELLO, or instead of it)
//!   worker -> SEGMENT                its name, or the segment itself
//!
//!   the worker's successor -> LEAVE   which start of the worker is to finish what it runs and go
//! ```
//! A message is a head of 8 bytes (length of the rest, kind) and at most [`MESSAGE_MAX`] bytes. Doorbell bytes travel on
//! sockets of their own, so they never mix with messages.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::failpoint::around;
use crate::record::record;

/// The longest message, bytes.
pub const MESSAGE_MAX: usize = 1024;

/// Kinds of messages.
pub mod message {
    /// Client: [`super::Hello`].
    pub const HELLO: u32 = 1;
    /// Worker: [`super::Welcome`].
    pub const WELCOME: u32 = 2;
    /// Worker: one byte outcome, then text.
    pub const REFUSED: u32 = 3;
    /// Client: no payload.
    pub const OPEN: u32 = 4;
    /// Worker: [`super::Opened`], with the doorbell's descriptor.
    pub const CHANNEL: u32 = 5;
    /// Client or tool: no payload. Takes no session slot.
    pub const LOOK: u32 = 6;
    /// Worker: the segment's name; nothing and a descriptor when it has none.
    pub const SEGMENT: u32 = 7;
    /// A successor: [`super::Leave`].
    pub const LEAVE: u32 = 8;
    /// Client: no payload, with one end of a socket pair. It is about to fork.
    pub const PIN: u32 = 9;
    /// Worker: no payload. What the session holds is kept until the other end is closed.
    pub const PINNED: u32 = 10;
}

record! {
    /// The client introduces itself. Its uid and pid are the kernel's word, not its own.
    Hello: 24 {
        /// The layout's version.
        layout_version: u32,
        /// Zero.
        reserved: u32,
        /// The layout's hash.
        layout_hash: u64,
        /// The instance in the header it mapped: another start of the worker refuses it.
        instance: u64,
    }
}

record! {
    /// The session is made.
    Welcome: 16 {
        /// Its slot.
        slot: u32,
        /// Zero.
        reserved: u32,
        /// The slot's generation.
        generation: u64,
    }
}

record! {
    /// The channel is made.
    Opened: 16 {
        /// Its number.
        channel: u32,
        /// Zero.
        reserved: u32,
        /// Its generation.
        generation: u64,
    }
}

record! {
    /// A successor serves under the worker's name: the worker finishes what it runs and goes.
    Leave: 8 {
        /// The instance that is meant: another start of the worker refuses it.
        instance: u64,
    }
}

/// Sends one message, with a descriptor beside it if there is one.
pub fn send(socket: BorrowedFd<'_>, kind: u32, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    assert!(payload.len() <= MESSAGE_MAX);
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(payload);
    let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &control[..] };
    let slices = [IoSlice::new(&bytes)];
    let sent = around(|| sendmsg::<()>(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None))?;
    // Messages are far smaller than a socket's buffer: a short write means that the peer does not read.
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::other("the peer does not read its messages")) }
}

/// A message as it came.
#[derive(Debug)]
pub struct Message {
    /// One of [`message`].
    pub kind: u32,
    /// What follows the head.
    pub payload: Vec<u8>,
    /// The descriptor beside it.
    pub fd: Option<OwnedFd>,
}

/// Collects messages from a stream of bytes.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// A descriptor, and how many bytes were there when it had come. A read ends with the bytes that a descriptor came
    /// beside, so it belongs to the message that ends there or later, and not to one that came whole before it.
    fd: Option<(OwnedFd, usize)>,
}

/// What reading a socket brought.
#[derive(Debug)]
pub enum Received {
    /// A whole message.
    Message(Message),
    /// Nothing more now.
    Nothing,
    /// The other side closed it.
    Closed,
}

impl Inbox {
    /// Reads until a message is whole, or nothing more is there.
    ///
    /// # Errors
    /// `InvalidData` for what is no message.
    pub fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<Received> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Received::Message(message));
            }
            let mut chunk = [0; MESSAGE_MAX];
            let mut slices = [IoSliceMut::new(&mut chunk)];
            // As many descriptors as a message can carry (SCM_MAX_FD): what is cut off would stay open in this process.
            let mut control = cmsg_space!([RawFd; 253]);
            let read = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC);
            let (bytes, fds) = match read {
                // This process has no room for all of the descriptors: some have come, or none.
                Ok(message) if message.flags.contains(MsgFlags::MSG_CTRUNC) => {
                    let bytes = message.bytes;
                    (bytes, rights_in(&control))
                }
                Ok(message) => {
                    let rights = |message| match message {
                        ControlMessageOwned::ScmRights(fds) => fds,
                        _ => Vec::new(),
                    };
                    (message.bytes, message.cmsgs()?.flat_map(rights).collect::<Vec<RawFd>>())
                }
                Err(nix::errno::Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::ECONNRESET) => return Ok(Received::Closed),
                Err(errno) => return Err(errno.into()),
            };
            for fd in fds {
                // SAFETY: the kernel has just put this descriptor into our table for this message alone; an earlier one is
                // closed as it is replaced.
                self.fd = Some((unsafe { OwnedFd::from_raw_fd(fd) }, self.bytes.len() + bytes));
            }
            if bytes == 0 {
                return Ok(Received::Closed);
            }
            self.bytes.extend_from_slice(&chunk[..bytes]);
        }
    }

    /// Whether the next [`Inbox::read`] needs nothing from the socket: a message, or what is none, lies here already.
    pub fn has_message(&self) -> bool {
        self.bytes.split_first_chunk::<4>().is_some_and(|(len, rest)| {
            let len = u32::from_le_bytes(*len) as usize;
            rest.len() >= 4 && (len > MESSAGE_MAX || rest.len() - 4 >= len)
        })
    }

    fn whole(&mut self) -> io::Result<Option<Message>> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<8>() else { return Ok(None) };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len > MESSAGE_MAX || !(message::HELLO..=message::PINNED).contains(&kind) {
            let what = format!("message of kind {kind} and {len} bytes, at most {MESSAGE_MAX} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let payload = rest[..len].to_vec();
        let end = 8 + len;
        self.bytes.drain(..end);
        let fd = self.fd.take_if(|(_, at)| *at <= end).map(|(fd, _)| fd);
        if let Some((_, at)) = &mut self.fd {
            *at -= end;
        }
        Ok(Some(Message { kind, payload, fd }))
    }
}

/// The descriptors that the kernel has installed of a message whose control data it cut short: one `cmsghdr` (length, level,
/// type), then their numbers. Nothing has come where it is still zero.
fn rights_in(control: &[u8]) -> Vec<RawFd> {
    const HEAD: usize = 16;
    let Some((len, rest)) = control.split_first_chunk::<8>() else { return Vec::new() };
    let numbers = (usize::from_le_bytes(*len).min(control.len())).saturating_sub(HEAD) / 4;
    rest.get(HEAD - 8..).unwrap_or_default().as_chunks::<4>().0[..numbers]
        .iter()
        .map(|raw| RawFd::from_le_bytes(*raw))
        .collect()
}
