//! The checked client: threads that call, hold, take back, come and go; every answer is held against what it must be.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::{Body, Called, Client, Failure, Payload, Reply, Request};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::blocks::Filled;
use super::forks::Children;
use super::{Break, Place, event_loop, until_input_ends};
use crate::journal::{Event, Journal, Plan, Resend};
use crate::payload::{self, Key};

/// Longer than anything takes on a machine that is busy with other things, a stop of the worker included.
const PATIENCE: Duration = Duration::from_secs(20);
/// A body above an eighth of the ring travels in the arena.
const LONGEST_INLINE: usize = 1500;
/// Answers and blocks that a thread looks at for a while before it lets go.
const HELD: usize = 3;

/// How a client behaves.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Manner {
    /// Threads that call.
    #[arg(long, default_value_t = 2)]
    pub threads: u8,
    /// A thread with an event loop's channel.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub event_loop: bool,
    /// Microseconds between two calls of a thread.
    #[arg(long, default_value_t = 200)]
    pub pause_us: u64,
    /// What it does, in which order.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The worker is the real one: only what it too has (`echo`).
    #[arg(long)]
    pub echo_only: bool,
}

/// What the threads of a client share.
pub struct Caller {
    /// Where it writes.
    pub place: Place,
    /// How it behaves.
    pub manner: Manner,
    /// Its way to the worker.
    pub client: Client,
    /// Its journal.
    pub journal: Journal,
    /// It is to end.
    pub over: Arc<AtomicBool>,
    next: AtomicU32,
}

/// A request to be made.
pub struct Ask {
    /// Its number.
    pub key: Key,
    /// Its entry.
    pub entry: &'static str,
    /// Its body.
    pub body: Vec<u8>,
    /// What it is.
    pub plan: Plan,
    /// How often it may run.
    pub resend: Resend,
    /// What its answer must be.
    pub answer: Vec<u8>,
    timeout: Duration,
}

impl Ask {
    /// The request, with its body in the frame or copied.
    pub fn request(&self) -> Request<'_> {
        self.with(Payload::Bytes(&self.body))
    }

    fn with<'a>(&'a self, payload: Payload<'a>) -> Request<'a> {
        // `echo` is marked idempotent in the segment: that way is gone too.
        let marked = self.entry == "echo" && self.resend.idempotent;
        Request {
            entry: self.entry.as_bytes(),
            params: &[],
            payload,
            codec: 3,
            accept: 0,
            idempotent: (!marked).then_some(self.resend.idempotent),
            resend: self.resend.allowed,
            timeout: Some(self.timeout),
            fallback_timeout: PATIENCE,
            trace: None,
        }
    }
}

impl Caller {
    /// The next request of a thread.
    pub fn ask(&self, random: &mut StdRng, looping: bool) -> Ask {
        let key = Key { client: self.place.number, seq: self.next.fetch_add(1, Ordering::Relaxed) };
        let resend = Resend { idempotent: random.random(), allowed: random.random_bool(0.8) };
        let short = random.random_range(payload::HEAD..LONGEST_INLINE);
        let long = random.random_range(LONGEST_INLINE..90_000);
        let kind = if self.manner.echo_only { random.random_range(0..40) } else { random.random_range(0..100) };
        let (entry, len, want, plan) = match kind {
            0..30 => ("echo", short, 0, Plan::Plain),
            30..40 => ("echo", long, 0, Plan::Plain),
            40..58 => ("turn", short, 0, Plan::Plain),
            58..62 => ("turn", long, 0, Plan::Plain),
            // From extents of its own, which only a blocking call has here.
            62..66 if !looping => ("put", long, 0, Plan::Plain),
            62..66 => ("turn", long, 0, Plan::Plain),
            66..82 => ("grow", short, random.random_range(1..90_000), Plan::Plain),
            82..88 => ("slow", short, random.random_range(100..1000), Plan::Plain),
            88..93 => ("slow", short, random.random_range(500..4000), Plan::Hasty),
            93..97 => ("hold", short, 0, Plan::TakenBack),
            _ => ("wrong", short, 0, Plan::Wrong),
        };
        // A blocking call can be taken back only when it has lasted a tenth of a second: seldom.
        let (entry, want, plan) = match plan {
            Plan::TakenBack if !looping && random.random_bool(0.9) => ("echo", 0, Plan::Plain),
            _ => (entry, want, plan),
        };
        let body = payload::request(key, len, want);
        let answer = match entry {
            "turn" => payload::turned(&body),
            "grow" => payload::grown(key, want as usize),
            _ => body.clone(),
        };
        let timeout = if plan == Plan::Hasty { Duration::from_millis(random.random_range(1..4)) } else { PATIENCE };
        Ask { key, entry, body, plan, resend, answer, timeout }
    }

    /// A request is about to be sent.
    pub fn begun(&self, thread: u8, ask: &Ask) {
        self.journal.write(thread, ask.key.seq, Event::Begun(ask.plan, ask.resend));
    }

    /// It has ended.
    pub fn ended(&self, thread: u8, ask: &Ask, outcome: Outcome, again: bool) {
        if !self.place.breaks(Break::Lose) {
            self.journal.write(thread, ask.key.seq, Event::Ended(outcome, again));
        }
    }

    /// Holds an answer against what it must be.
    pub fn verify(&self, ask: &Ask, reply: &Reply) {
        if reply.outcome == Outcome::Ok {
            self.compare(&ask.answer, &reply.to_vec(), &format!("the answer to {} {:?}", ask.entry, ask.key));
        }
    }

    fn compare(&self, expected: &[u8], found: &[u8], what: &str) {
        if let Some(at) = payload::differs(expected, found) {
            let (expected, found) = (expected.len(), found.len());
            self.place.accuse(&format!("{what}: byte {at} differs ({found} bytes, expected {expected})"));
        }
    }

    /// Whether this process is to end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Calls, waits on through interruptions, and takes back what is to be taken back.
    fn call(&self, random: &mut StdRng, ask: &Ask, request: &Request<'_>) -> Result<(Reply, bool), Outcome> {
        let failed = |failure: Failure| {
            if failure.outcome != Outcome::Timeout {
                self.place.explain(ask.key.seq, &failure.message);
            }
            failure.outcome
        };
        let mut called = self.client.call(request).map_err(failed)?;
        loop {
            match called {
                Called::Reply(reply, again) => return Ok((reply, again)),
                Called::Interrupted(pending) if ask.plan == Plan::TakenBack && random.random_bool(0.7) => {
                    self.client.cancel(pending);
                    return Err(Outcome::Cancelled);
                }
                Called::Interrupted(pending) => called = self.client.resume(pending).map_err(failed)?,
            }
        }
    }

    fn one(&self, thread: u8, random: &mut StdRng, held: &mut VecDeque<(Ask, Reply)>, filled: &mut VecDeque<Filled>) {
        let mut ask = self.ask(random, false);
        if filled.len() >= HELD || (!filled.is_empty() && random.random_bool(0.3)) {
            let old = filled.pop_front();
            old.iter().filter_map(|old| old.is_whole().err()).for_each(|what| self.place.accuse(&what));
        }
        // A body that is written where it will be read, and sent from there.
        let put = ask.entry == "put";
        let session = if put || random.random_bool(0.25) { self.client.session().ok() } else { None };
        let block = session.and_then(|session| match put {
            true => session.block_of_own_extents(ask.body.len()).ok(),
            false => session.block(ask.body.len()).ok(),
        });
        let block = block.map(|block| Filled::new(block, ask.body.clone()));
        if put && block.is_none() {
            ask.entry = "echo"; // there is no room, or no worker: nothing to be taken over
        }
        self.begun(thread, &ask);
        let ended = match &block {
            Some(filled) => self.call(random, &ask, &ask.with(Payload::Block(&filled.block))),
            None => self.call(random, &ask, &ask.request()),
        };
        // What was put is the worker's, and with the answer somebody else's.
        filled.extend(block.filter(|_| !put));
        match ended {
            Ok((reply, again)) => {
                self.verify(&ask, &reply);
                self.ended(thread, &ask, reply.outcome, again);
                if matches!(reply.body, Body::Leased(_)) {
                    held.push_back((ask, reply));
                }
            }
            Err(outcome) => {
                self.ended(thread, &ask, outcome, false);
                if outcome == Outcome::Unavailable {
                    std::thread::sleep(Duration::from_millis(1)); // nobody serves now
                }
            }
        }
        if held.len() > HELD {
            // What was held is still what it was: nobody else got its bytes.
            held.pop_front().iter().for_each(|(ask, reply)| self.verify(ask, reply));
        }
    }

    fn calls(&self, thread: u8) {
        let mut random = StdRng::seed_from_u64(self.manner.seed ^ u64::from(thread) << 56);
        let (mut held, mut filled) = (VecDeque::<(Ask, Reply)>::new(), VecDeque::new());
        let mut children = Children::default();
        while !self.is_over() {
            self.one(thread, &mut random, &mut held, &mut filled);
            if random.random_bool(0.02) {
                // Another session comes and goes.
                if let Ok(other) = Client::attach_to(self.place.address(), Duration::ZERO) {
                    let _ = other.session().and_then(|session| session.block(payload::HEAD));
                }
            }
            if !held.is_empty() && random.random_bool(0.005) {
                let pause = Duration::from_millis(random.random_range(1..50));
                let look = || held.iter().for_each(|(ask, reply)| self.verify(ask, reply));
                let forked = children.fork(pause, look);
                forked.unwrap_or_else(|what| self.place.accuse(&what));
            }
            if self.manner.pause_us > 0 {
                std::thread::sleep(Duration::from_micros(random.random_range(0..self.manner.pause_us)));
            }
        }
        held.iter().for_each(|(ask, reply)| self.verify(ask, reply));
        children.finish().unwrap_or_else(|what| self.place.accuse(&what));
        filled.iter().filter_map(|old| old.is_whole().err()).for_each(|what| self.place.accuse(&what));
    }
}

/// Calls until its input is closed.
pub fn play(place: Place, manner: Manner) -> Result<(), String> {
    let over = until_input_ends(|| {});
    let journal = Journal::open(&place.journal()).map_err(|error| error.to_string())?;
    let client = Client::attach_to(place.address(), PATIENCE).map_err(|error| error.to_string())?;
    let caller = Caller { place, manner, client, journal, over, next: AtomicU32::new(0) };
    std::thread::scope(|scope| {
        let caller = &caller;
        (0..manner.threads).for_each(|thread| {
            scope.spawn(move || caller.calls(thread));
        });
        if manner.event_loop {
            scope.spawn(move || event_loop::turn(caller, manner.threads));
        }
    });
    Ok(())
}
