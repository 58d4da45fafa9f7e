//! The session's line to its worker: questions over the socket, and their answers in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Outcome;
use crate::handshake::{self, Inbox, Message, Received, message};

use super::request::Failure;

/// The session's socket.
#[derive(Debug)]
pub(super) struct Line {
    stream: UnixStream,
    inbox: Inbox,
    /// Answers that have not come, by their kinds, the oldest first: whoever asked has run out of time.
    owed: VecDeque<u32>,
    /// A channel that came late, for the next one who asks.
    late: Option<Result<Message, HandshakeError>>,
}

/// What a session asks for once it is there.
pub(super) enum Question<'a> {
    Channel,
    /// With the worker's end of the pin.
    Pin(BorrowedFd<'a>),
}

impl Line {
    /// Of a connection over which the worker has said welcome.
    pub fn new(stream: UnixStream, inbox: Inbox) -> Self {
        Self { stream, inbox, owed: VecDeque::new(), late: None }
    }

    /// Asks, and waits until then. Answers come in the order of the questions: what others waited for in vain comes first,
    /// and a channel among it is kept.
    pub fn ask(&mut self, question: Question<'_>, until: Instant) -> Result<Message, HandshakeError> {
        let (kind, wanted, beside) = match question {
            Question::Channel => (message::OPEN, message::CHANNEL, None),
            Question::Pin(theirs) => (message::PIN, message::PINNED, Some(theirs)),
        };
        let any = wanted == message::CHANNEL; // the one that is still to come is as good as another one
        if any && let Some(late) = self.late.take() {
            return late;
        }
        if !any || !self.owed.contains(&wanted) {
            handshake::send(self.stream.as_fd(), kind, &[], beside).map_err(HandshakeError::Broken)?;
            self.owed.push_back(wanted);
        }
        loop {
            let due = self.owed.front().copied().unwrap_or(wanted);
            let answer = receive(&self.stream, &mut self.inbox, due, until);
            match &answer {
                Err(HandshakeError::TimedOut) => return answer,
                Err(HandshakeError::Interrupted) if any => return answer,
                Err(HandshakeError::Interrupted) => continue, // a fork waits for its pin
                _ => {}
            }
            self.owed.pop_front();
            if due == wanted && (any || self.owed.is_empty()) {
                return answer;
            }
            if matches!(&answer, Err(HandshakeError::Broken(_))) {
                return answer; // nothing more will come
            }
            if due == message::CHANNEL {
                self.late = Some(answer);
            }
        }
    }
}

/// Why an answer of the worker did not come.
#[derive(Debug)]
pub(super) enum HandshakeError {
    Refused(Outcome, String),
    /// It may still come.
    TimedOut,
    /// A signal arrived; it may still come.
    Interrupted,
    Broken(io::Error),
}

impl HandshakeError {
    /// In words: `cannot` says what it was asked for.
    pub fn about(self, cannot: &dyn Fn(&str, &dyn std::fmt::Display) -> Failure) -> Failure {
        match self {
            Self::Refused(outcome, text) => Failure::new(outcome, text),
            Self::TimedOut => cannot("its answer", &"none came in time"),
            Self::Interrupted => cannot("its answer", &"a signal arrived before it"),
            Self::Broken(error) => cannot("its answer", &error),
        }
    }
}

/// Waits for one message of a kind.
pub(super) fn receive(
    stream: &UnixStream,
    inbox: &mut Inbox,
    kind: u32,
    until: Instant,
) -> Result<Message, HandshakeError> {
    let broken = |error: io::Error| HandshakeError::Broken(error);
    let received = loop {
        match inbox.read(stream.as_fd()).map_err(broken)? {
            Received::Nothing => {}
            received => break received,
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HandshakeError::TimedOut);
        }
        let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        let left = PollTimeout::try_from(left.as_millis().min(60_000) as i32 + 1).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, left) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Err(HandshakeError::Interrupted),
            Err(errno) => return Err(broken(errno.into())),
        }
    };
    match received {
        Received::Message(message) if message.kind == kind => Ok(message),
        Received::Message(message) if message.kind == message::REFUSED => {
            let outcome = message.payload.first().and_then(|code| Outcome::from_code(*code));
            let text = String::from_utf8_lossy(message.payload.get(1..).unwrap_or_default()).into_owned();
            Err(HandshakeError::Refused(outcome.unwrap_or(Outcome::Unavailable), text))
        }
        Received::Message(message) => {
            let what = format!("message of kind {}, not {kind}", message.kind);
            Err(HandshakeError::Broken(io::Error::new(io::ErrorKind::InvalidData, what)))
        }
        Received::Closed => Err(HandshakeError::Broken(io::ErrorKind::ConnectionReset.into())),
        Received::Nothing => Err(HandshakeError::TimedOut),
    }
}

/// The same, through whatever signals arrive: for waits of a second at most.
pub(super) fn receive_through(
    stream: &UnixStream,
    inbox: &mut Inbox,
    kind: u32,
    until: Instant,
) -> Result<Message, HandshakeError> {
    loop {
        match receive(stream, inbox, kind, until) {
            Err(HandshakeError::Interrupted) => {}
            received => return received,
        }
    }
}
