//! Where a worker is found.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::{Failure, dial};
use crate::layout::STATE_STOPPED;
use crate::segment::{Segment, SegmentError};
use crate::{Outcome, nameless, pulse};

/// How a worker is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// By its segment's name. The socket is the one that the segment names, unless another is given.
    Name {
        /// The segment's name.
        shm: String,
        /// The socket, where it is seen under another path than by the worker.
        socket: Option<PathBuf>,
    },
    /// By its socket alone: the worker says its segment's name there, or hands over a segment without one.
    Socket(PathBuf),
}

impl Address {
    /// By a name, a socket, or both; `None` when nothing is given.
    pub fn of(shm: Option<&str>, socket: Option<PathBuf>) -> Option<Self> {
        match (shm, socket) {
            (Some(shm), socket) => Some(Self::Name { shm: shm.into(), socket }),
            (None, Some(socket)) => Some(Self::Socket(socket)),
            (None, None) => None,
        }
    }

    /// Whether a worker serves there and looks at its requests, as its segment tells without asking anybody. `None`: a socket
    /// alone tells nothing.
    pub fn serves(&self) -> Option<bool> {
        match self {
            Self::Name { shm, .. } => {
                let looks = |segment: Segment| pulse::silence(&segment) <= pulse::SILENT_AFTER;
                Some(Segment::open_serving(shm).is_ok_and(looks))
            }
            Self::Socket(_) => None,
        }
    }

    /// Opens the segment to look at it. It takes no session, and the worker may hang or be dead: where it does not answer,
    /// the segment is looked for among those that processes of this user hold.
    pub fn look(&self, wait: Duration) -> Result<Segment, Failure> {
        let unavailable = |error: SegmentError| Failure::new(Outcome::Unavailable, error.to_string());
        match self {
            Self::Name { shm, .. } => Segment::open(shm).map_err(unavailable),
            Self::Socket(path) => match dial::look(path, Instant::now() + wait) {
                Ok((segment, _)) => Ok(segment),
                Err(failure) => held_for(path, None).ok_or(failure),
            },
        }
    }

    /// The segment of a worker that was killed, or failed, and that nobody has taken the place of. `None`: there is none, its
    /// worker lives, or it left in good order.
    pub fn left_behind(&self) -> Result<Option<Segment>, SegmentError> {
        let segment = match self {
            Self::Name { shm, .. } => match Segment::open(shm) {
                Err(SegmentError::NotFound { .. }) => None,
                opened => Some(opened?),
            },
            Self::Socket(path) => held_for(path, None),
        };
        // One that failed says that it has stopped too; then its supervisor keeps the segment for the next.
        let ended = |segment: &Segment| segment.state() == STATE_STOPPED && !segment.is_supervised();
        Ok(segment.filter(|segment| !segment.is_alive() && !ended(segment)))
    }
}

/// A segment whose worker listens on that socket, or did: rather a live one's. Not the one of that instance.
pub(crate) fn held_for(socket: &Path, except: Option<u64>) -> Option<Segment> {
    let mut found = behind(socket, nameless::find());
    found.retain(|segment| Some(segment.header.instance) != except);
    found.sort_by_key(|segment| (!segment.is_alive(), std::cmp::Reverse(segment.header.started_ns)));
    found.into_iter().next()
}

/// Every such segment, as often as somebody holds it.
pub(crate) fn all_held_for(socket: &Path) -> Vec<Segment> {
    behind(socket, nameless::find_all())
}

fn behind(socket: &Path, mut segments: Vec<Segment>) -> Vec<Segment> {
    let real = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).ok();
    let wanted = real(socket);
    segments.retain(|segment| wanted.is_some() && real(&segment.socket()) == wanted);
    segments
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { shm, .. } => f.write_str(shm),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}
