//! A hello to a worker, and its welcome: waited for piece by piece, so that whoever waits can look at signals and at its
//! own deadline in between, and another one can wait on.

use std::fmt::Display;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::Outcome;
use crate::handshake::{self, Hello, Inbox, Message, Welcome, message};
use crate::layout::{LAYOUT_VERSION, layout_hash};
use crate::segment::Segment;

use super::dial;
use super::request::Failure;
use super::seek::{Heard, hear};
use super::session::{HANDSHAKE_WITHIN, Session};

/// A worker that was greeted and has not answered yet.
#[derive(Debug)]
pub(super) struct Greeting {
    segment: Segment,
    stream: UnixStream,
    inbox: Inbox,
    path: PathBuf,
    said: Instant,
}

/// What came of waiting for the welcome.
pub(super) enum Greeted {
    Session(Arc<Session>),
    /// There will be no session with it.
    Failed(Failure),
    /// Nothing yet: a signal came, or the time is over.
    NotYet(Box<Greeting>),
}

impl Greeting {
    /// Greets the worker that serves under a name.
    pub fn by_name(shm: &str, socket: Option<&Path>) -> Result<Box<Self>, Failure> {
        let segment =
            Segment::open_serving(shm).map_err(|error| Failure::new(Outcome::Unavailable, error.to_string()))?;
        let path = socket.map_or_else(|| segment.socket(), Path::to_path_buf);
        let stream = dial::connect_to(&path).map_err(|error| out_of_reach(&segment, &path, "connect", &error))?;
        Self::over(segment, stream, path)
    }

    /// Greets over a connection to the worker, at `path` for messages.
    pub fn over(segment: Segment, stream: UnixStream, path: PathBuf) -> Result<Box<Self>, Failure> {
        let hello = Hello {
            layout_version: LAYOUT_VERSION,
            reserved: 0,
            layout_hash: layout_hash(),
            instance: segment.header.instance,
        };
        stream
            .set_nonblocking(true)
            .and_then(|()| handshake::send(stream.as_fd(), message::HELLO, &hello.encode(), None))
            .map_err(|error| out_of_reach(&segment, &path, "say hello", &error))?;
        Ok(Box::new(Self { segment, stream, inbox: Inbox::default(), path, said: Instant::now() }))
    }

    /// When a worker that has not answered is known to hang.
    pub fn answers_by(&self) -> Instant {
        self.said + HANDSHAKE_WITHIN
    }

    /// Whether the name that it was found by leads to this worker still.
    pub fn is_still(&self, name: &str) -> bool {
        Segment::open(name).is_ok_and(|now| now.header.instance == self.segment.header.instance)
    }

    /// Waits for the welcome until then.
    pub fn wait(mut self: Box<Self>, until: Instant) -> Greeted {
        match hear(&self.stream, &mut self.inbox, until) {
            Heard::Message(answer) => self.read(&answer).map_or_else(Greeted::Failed, Greeted::Session),
            Heard::Nothing | Heard::Interrupted => Greeted::NotYet(self),
            Heard::Closed => Greeted::Failed(self.cannot("its answer", &"it closed the connection")),
        }
    }

    fn read(self, answer: &Message) -> Result<Arc<Session>, Failure> {
        match answer.kind {
            message::WELCOME => {}
            message::REFUSED => return Err(refusal(answer)),
            other => return Err(self.cannot("its answer", &format!("message of kind {other}"))),
        }
        let bytes = answer.payload[..].try_into().map_err(|_| self.cannot("welcome", &"its size"))?;
        let welcome = Welcome::decode(bytes);
        if welcome.slot >= self.segment.geometry.sessions {
            return Err(self.cannot("welcome", &format!("slot {}", welcome.slot)));
        }
        Ok(Session::new(self.segment, self.stream, self.inbox, welcome))
    }

    /// What is said of a worker that has not answered in the time that its caller has, or that anybody has.
    pub fn unanswered(&self) -> Failure {
        let waited = self.said.elapsed();
        if waited >= HANDSHAKE_WITHIN {
            return self.cannot("its answer", &format!("none came in {:.1} s", waited.as_secs_f64()));
        }
        let (name, pid) = (&self.segment.name, self.segment.header.worker_pid);
        let text = format!(
            "the worker of {name} (pid {pid}) has not answered a hello for {:.3} s, and the time for this call is over; \
             nothing was sent",
            waited.as_secs_f64()
        );
        Failure::new(Outcome::Timeout, text)
    }

    fn cannot(&self, what: &str, error: &dyn Display) -> Failure {
        out_of_reach(&self.segment, &self.path, what, error)
    }
}

/// A worker's refusal in its own words.
fn refusal(answer: &Message) -> Failure {
    let outcome = answer.payload.first().and_then(|code| Outcome::from_code(*code)).unwrap_or(Outcome::Unavailable);
    let text = String::from_utf8_lossy(answer.payload.get(1..).unwrap_or_default()).into_owned();
    Failure::new(outcome, text)
}

fn out_of_reach(segment: &Segment, path: &Path, what: &str, error: &dyn Display) -> Failure {
    let text = format!(
        "segment {} is there, but its worker (pid {}) cannot be reached on {}: {what}: {error}; \
         hint: is the worker's --socket folder visible here?",
        segment.name,
        segment.header.worker_pid,
        path.display()
    );
    Failure::new(Outcome::Unavailable, text)
}
