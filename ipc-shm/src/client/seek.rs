//! Looking for a worker: at first, and again when the one that was there has gone.
//!
//! How long that pays depends on what there is. Nobody: the caller is told at once, or waits as long as it likes to. A
//! worker that is starting, or a dead one whose supervisor holds its socket open: somebody is about to serve, so a client
//! queues up there and is told the moment that it does. Where the socket is all that is known of a worker, the question
//! for its segment waits in that queue. All clients of a worker look at the same time when it dies; pauses
//! between tries are therefore of random length, and a process looks once, however many of its threads wait.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Outcome;
use crate::handshake::{self, Hello, Inbox, Message, Received, message};
use crate::layout::{LAYOUT_VERSION, STATE_STARTING, layout_hash};
use crate::segment::{Segment, random};
use crate::{Address, address};

use super::dial;
use super::greeting::{Greeted, Greeting};
use super::request::Failure;
use super::session::{HANDSHAKE_WITHIN, Session};

/// Until when to look for a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Where nobody is about to serve.
    pub absent: Instant,
    /// Where somebody is.
    pub restart: Instant,
}

impl Patience {
    /// That long from now.
    pub fn of(absent: Duration, restart: Duration) -> Self {
        let now = Instant::now();
        Self { absent: now + absent, restart: now + restart.max(absent) }
    }

    /// What is to be said where somebody may be there soon.
    fn not_yet(self, why: Failure) -> Sought {
        if Instant::now() < self.restart { Sought::NotYet(why) } else { Sought::TooLate(why) }
    }
}

/// What came of looking for a while.
#[derive(Debug)]
pub(super) enum Sought {
    /// A session with the worker.
    Found(Arc<Session>),
    /// Nobody serves, and nobody is about to: true of whoever looks now.
    Failed(Failure),
    /// Somebody may be there soon, and this one's patience is over.
    TooLate(Failure),
    /// A signal came, or the time for this look is over; why there is no session yet.
    NotYet(Failure),
}

/// What is about to be.
enum Prospect {
    /// Nobody is about to serve.
    Nobody,
    /// Somebody is: look again soon.
    Soon,
    /// The worker is dead and its supervisor holds its socket open.
    Queue(Segment),
}

/// A place in the queue of a socket whose worker is being started.
#[derive(Debug)]
struct Place {
    line: UnixStream,
    inbox: Inbox,
    /// The dead worker's.
    instance: u64,
}

/// The question for a segment, put to whoever serves at a socket, or will.
#[derive(Debug)]
struct Question {
    line: UnixStream,
    inbox: Inbox,
    put: Instant,
}

/// A search that may be interrupted and gone on with.
#[derive(Debug)]
pub(super) struct Seeker {
    place: Option<Place>,
    /// A worker that has not answered a hello yet.
    greeting: Option<Box<Greeting>>,
    question: Option<Question>,
    /// The worker behind the socket was seen to die, to leave or to start: who holds the socket open is about to serve. Its
    /// segment is not kept for that: who waits keeps no memory of a dead worker.
    expected: bool,
    pause: Duration,
    /// Tries in a row that found a worker that serves and did not get a session.
    turned_away: u32,
}

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// A worker that serves may go between two steps of a try, and its successor too; beyond that something else is wrong.
const TURNED_AWAY_MOST: u32 = 5;

/// A time between half of this and one and a half of it.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause.mul_f64((random() % 1024) as f64 / 1024.0)
}

impl Seeker {
    /// A new search. `expected`: the worker that was there was seen to die, or to leave.
    pub fn new(expected: bool) -> Self {
        Self { place: None, greeting: None, question: None, expected, pause: FIRST_PAUSE, turned_away: 0 }
    }

    /// Looks until there is a session, patience is over, a signal arrives, or `slice` has passed.
    pub fn seek(&mut self, address: &Address, patience: Patience, slice: Duration) -> Sought {
        let slice_ends = Instant::now() + slice;
        match address {
            Address::Name { shm, socket } => self.seek_name(shm, socket.as_deref(), patience, slice_ends),
            Address::Socket(path) => self.seek_behind(path, patience, slice_ends),
        }
    }

    fn seek_name(&mut self, name: &str, socket: Option<&Path>, patience: Patience, slice_ends: Instant) -> Sought {
        loop {
            let greeted = self.greet(patience, slice_ends, || Greeting::by_name(name, socket));
            let (mut failure, hangs) = match greeted {
                Welcome::Over(sought) => return sought,
                // Another one may have its name by now.
                Welcome::Silent(greeting) => (greeting.unanswered(), greeting.is_still(name)),
                Welcome::No(failure) => (failure, false),
            };
            let mut prospect = self.prospect(name, hangs);
            if let Prospect::Queue(dead) = &prospect {
                match self.queue_up(dead, socket, patience.restart.min(slice_ends)) {
                    Queued::Told => continue,
                    Queued::TurnedAway(text) => {
                        failure = Failure::new(Outcome::Unavailable, text);
                        prospect = Prospect::Nobody;
                    }
                    Queued::Interrupted => return Sought::NotYet(failure),
                    Queued::Waiting | Queued::Refused => {}
                }
            }
            let rest = match prospect {
                Prospect::Nobody => self.rest_of_absence(failure, patience, slice_ends),
                Prospect::Soon | Prospect::Queue(_) => self.rest(failure, patience.restart, slice_ends),
            };
            if let Some(over) = rest {
                return over;
            }
        }
    }

    /// Waits for the welcome of a worker: of the one that was greeted before, or of a new one.
    fn greet(
        &mut self,
        patience: Patience,
        slice_ends: Instant,
        new: impl FnOnce() -> Result<Box<Greeting>, Failure>,
    ) -> Welcome {
        let greeting = match self.greeting.take().map_or_else(new, Ok) {
            Ok(greeting) => greeting,
            Err(failure) if failure.outcome != Outcome::Unavailable => return Welcome::Over(Sought::Failed(failure)),
            Err(failure) => return Welcome::No(failure),
        };
        let answers_by = greeting.answers_by();
        match greeting.wait(answers_by.min(patience.restart).min(slice_ends)) {
            Greeted::Session(session) => Welcome::Over(Sought::Found(session)),
            Greeted::Failed(failure) if failure.outcome == Outcome::Unavailable => Welcome::No(failure),
            Greeted::Failed(failure) => Welcome::Over(Sought::Failed(failure)),
            Greeted::NotYet(greeting) => {
                if Instant::now() >= answers_by {
                    return Welcome::Silent(greeting);
                }
                let why = greeting.unanswered();
                self.greeting = Some(greeting);
                Welcome::Over(patience.not_yet(why))
            }
        }
    }

    /// A pause before the next try, if there is to be one. A name cannot be waited on; the pause grows to keep this cheap.
    fn rest(&mut self, failure: Failure, until: Instant, slice_ends: Instant) -> Option<Sought> {
        let now = Instant::now();
        if now >= until {
            return Some(Sought::TooLate(failure));
        }
        if now >= slice_ends {
            return Some(Sought::NotYet(failure));
        }
        std::thread::sleep(jittered(self.pause).min(until - now));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        None
    }

    /// The same where nobody is about to serve.
    fn rest_of_absence(&mut self, failure: Failure, patience: Patience, slice_ends: Instant) -> Option<Sought> {
        match self.rest(failure, patience.absent, slice_ends) {
            Some(Sought::TooLate(failure)) => Some(Sought::Failed(failure)),
            other => other,
        }
    }

    /// Asks behind a socket which segment is there, as long as somebody is known to be about to answer.
    fn seek_behind(&mut self, path: &Path, patience: Patience, slice_ends: Instant) -> Sought {
        loop {
            let (failure, is_soon) = match self.hear_of(path, patience, slice_ends) {
                Asked::Over(sought) => return sought,
                Asked::Gone(failure) => (failure, self.expected || self.is_soon()),
                Asked::TurnedAway(failure) => (failure, self.is_soon()),
                Asked::Nobody(failure) => (failure, false),
            };
            let rest = match is_soon {
                true => self.rest(failure, patience.restart, slice_ends),
                false => self.rest_of_absence(failure, patience, slice_ends),
            };
            if let Some(over) = rest {
                return over;
            }
        }
    }

    /// One try behind a socket: the question for the segment, then a hello to its worker over the same connection.
    fn hear_of(&mut self, path: &Path, patience: Patience, slice_ends: Instant) -> Asked {
        let mut new = None;
        if self.greeting.is_none() {
            let (segment, line) = match self.ask(path, patience, slice_ends) {
                Ok(answered) => answered,
                Err(asked) => return asked,
            };
            match segment.serving() {
                Ok(segment) => new = Some((segment, line)),
                // It leaves: its successor is about to have the path, or has it by now.
                Err(error) => return Asked::TurnedAway(Failure::new(Outcome::Unavailable, error.to_string())),
            }
        }
        let greet = || {
            let (segment, line) = new.ok_or_else(|| dial::silent(path))?;
            Greeting::over(segment, line, path.to_path_buf())
        };
        match self.greet(patience, slice_ends, greet) {
            Welcome::Over(sought) => Asked::Over(sought),
            Welcome::Silent(greeting) => Asked::Nobody(greeting.unanswered()),
            Welcome::No(failure) => Asked::TurnedAway(failure),
        }
    }

    /// Whether a worker that somebody has just seen is worth a further look.
    fn is_soon(&mut self) -> bool {
        self.turned_away += 1;
        self.turned_away <= TURNED_AWAY_MOST
    }

    /// Asks for the segment: the answer, and the connection that it came over.
    fn ask(&mut self, path: &Path, patience: Patience, slice_ends: Instant) -> Result<(Segment, UnixStream), Asked> {
        let question = match self.question.take() {
            Some(question) => question,
            None => {
                let line = dial::ask(path).map_err(Asked::Nobody)?;
                Question { line, inbox: Inbox::default(), put: Instant::now() }
            }
        };
        let restarting = self.expected;
        let Question { line, inbox, put } = self.question.insert(question);
        // A worker that serves answers at once, or it hangs; one that is being started answers when it serves.
        let answers_by = if restarting { patience.restart } else { *put + HANDSHAKE_WITHIN };
        let heard = hear(line, inbox, answers_by.min(patience.restart).min(slice_ends));
        if let Heard::Nothing | Heard::Interrupted = heard {
            let now = Instant::now();
            if now < answers_by {
                let why = if restarting { dial::silent(path) } else { unanswered(path, *put) };
                return Err(Asked::Over(patience.not_yet(why)));
            }
            if !restarting {
                // Perhaps its worker is dead and held for the next: then that segment says so.
                self.expected = address::held_for(path, None).is_some_and(|found| is_about_to_serve(&found));
                if self.expected && now < patience.restart {
                    return Err(Asked::Over(Sought::NotYet(dial::silent(path))));
                }
            }
        }
        let Some(Question { line, .. }) = self.question.take() else { return Err(Asked::Nobody(dial::silent(path))) };
        match heard {
            Heard::Message(told) if told.kind == message::SEGMENT => {
                let segment = dial::segment_of(told, path).map_err(Asked::Gone)?;
                self.expected = segment.is_going();
                Ok((segment, line))
            }
            Heard::Message(told) if told.kind == message::REFUSED => {
                let text = String::from_utf8_lossy(told.payload.get(1..).unwrap_or_default()).into_owned();
                Err(Asked::Nobody(Failure::new(Outcome::Unavailable, text)))
            }
            Heard::Nothing | Heard::Interrupted => Err(Asked::Nobody(dial::silent(path))),
            _ => Err(Asked::Gone(dial::silent(path))),
        }
    }

    fn prospect(&mut self, name: &str, hangs: bool) -> Prospect {
        let Ok(segment) = Segment::open(name) else { return Prospect::Nobody };
        match segment.is_alive() {
            false if segment.is_supervised() => Prospect::Queue(segment),
            // Dead when it was looked at, and its successor has the name by now, whose supervisor may not have said so yet.
            false if self.turned_away < TURNED_AWAY_MOST && !is_still(&segment) => {
                self.turned_away += 1;
                Prospect::Soon
            }
            true if segment.state() == STATE_STARTING => Prospect::Soon,
            // It serves by now, or it did until just now and has been replaced since.
            true if !hangs && segment.is_serving() && self.turned_away < TURNED_AWAY_MOST => {
                self.turned_away += 1;
                Prospect::Soon
            }
            _ => Prospect::Nobody,
        }
    }

    /// Waits in the queue of a dead worker's socket for the next one, which sends whoever means the dead one away.
    fn queue_up(&mut self, dead: &Segment, socket: Option<&Path>, until: Instant) -> Queued {
        let instance = dead.header.instance;
        if self.place.as_ref().is_none_or(|place| place.instance != instance) {
            let path = socket.map_or_else(|| dead.socket(), PathBuf::from);
            let Ok(line) = dial::connect_to(&path) else { return Queued::Refused };
            let hello = Hello { layout_version: LAYOUT_VERSION, reserved: 0, layout_hash: layout_hash(), instance };
            // Where this fails somebody has turned the queue away already: what it was told is there to be read.
            let _ = handshake::send(line.as_fd(), message::HELLO, &hello.encode(), None);
            self.place = Some(Place { line, inbox: Inbox::default(), instance });
        }
        let Some(Place { line, inbox, .. }) = &mut self.place else { return Queued::Refused };
        let queued = wait_in(line, inbox, until);
        if !matches!(queued, Queued::Waiting | Queued::Interrupted) {
            self.place = None;
        }
        match queued {
            // By the next worker, or by a supervisor that has nobody to serve?
            Queued::TurnedAway(_) if !is_still(dead) => {
                self.pause = FIRST_PAUSE;
                Queued::Told
            }
            other => other,
        }
    }
}

/// Whether that worker is starting, or dead and its supervisor about to start it again.
fn is_about_to_serve(segment: &Segment) -> bool {
    match segment.is_alive() {
        true => segment.state() == STATE_STARTING,
        false => segment.is_supervised(),
    }
}

/// Whether this dead worker still has the name.
fn is_still(dead: &Segment) -> bool {
    Segment::open(&dead.name).is_ok_and(|now| now.header.instance == dead.header.instance && !now.is_alive())
}

enum Queued {
    /// The next worker has told: look the name up again.
    Told,
    /// Nobody serves, and this is why.
    TurnedAway(String),
    /// Nobody has said anything yet.
    Waiting,
    /// There is no queue, or no more.
    Refused,
    /// A signal arrived.
    Interrupted,
}

/// What came of asking behind a socket, where that is no segment.
enum Asked {
    /// Enough of it for now.
    Over(Sought),
    /// Whoever was there has gone meanwhile.
    Gone(Failure),
    /// A worker that leaves, or gives no session.
    TurnedAway(Failure),
    /// Nobody serves, or whoever holds the socket does not answer, and this is why.
    Nobody(Failure),
}

/// What came of a hello.
enum Welcome {
    /// Enough of it for now: a session, or no more patience.
    Over(Sought),
    /// The worker has not answered in the time that anybody is given.
    Silent(Box<Greeting>),
    /// There was nobody to greet, or whoever was there does not want it.
    No(Failure),
}

/// What is said when time is up and whoever holds a socket may answer yet.
fn unanswered(path: &Path, put: Instant) -> Failure {
    let text = format!(
        "whoever holds {} has not told of a segment for {:.3} s, and the time for this call is over; nothing was sent",
        path.display(),
        put.elapsed().as_secs_f64()
    );
    Failure::new(Outcome::Timeout, text)
}

fn wait_in(line: &UnixStream, inbox: &mut Inbox, until: Instant) -> Queued {
    match hear(line, inbox, until) {
        Heard::Message(told) if told.kind == message::REFUSED => {
            Queued::TurnedAway(String::from_utf8_lossy(told.payload.get(1..).unwrap_or_default()).into_owned())
        }
        Heard::Message(_) | Heard::Closed => Queued::Refused,
        Heard::Nothing => Queued::Waiting,
        Heard::Interrupted => Queued::Interrupted,
    }
}

/// What came over a connection.
pub(super) enum Heard {
    Message(Message),
    /// Nothing in time.
    Nothing,
    /// It was closed, or it broke.
    Closed,
    /// A signal arrived.
    Interrupted,
}

pub(super) fn hear(line: &UnixStream, inbox: &mut Inbox, until: Instant) -> Heard {
    loop {
        match inbox.read(line.as_fd()) {
            Ok(Received::Message(told)) => return Heard::Message(told),
            Ok(Received::Nothing) => {}
            Ok(Received::Closed) | Err(_) => return Heard::Closed,
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Heard::Nothing;
        }
        let left = left.as_nanos().div_ceil(1_000_000).min(60_000) as i32;
        let mut polled = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Heard::Interrupted,
            Err(_) => return Heard::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 38: clients that all look at the same moment do not go on looking at the same moments.
    #[test]
    fn pauses_are_spread_evenly_over_as_long_as_they_are() {
        const PAUSE: Duration = Duration::from_millis(100);
        let mut tenths = [0; 10];
        for _ in 0..2000 {
            let pause = jittered(PAUSE);
            assert!(pause >= PAUSE / 2 && pause < PAUSE * 3 / 2, "{pause:?}");
            tenths[((pause - PAUSE / 2).as_nanos() * 10 / PAUSE.as_nanos()) as usize] += 1;
        }
        // 200 in each on the average; 80 less is six standard deviations away.
        assert!(tenths.iter().all(|count| (120..=280).contains(count)), "{tenths:?}");
    }
}
