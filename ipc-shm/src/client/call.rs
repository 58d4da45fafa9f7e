//! A call from its sending to its answer, by the worker that it was sent to or, where that is lost, by its successor.

use std::time::Duration;

use crate::Outcome;
use crate::bell::LONGEST_SLEEP;
use crate::os::now_ns;

use super::Client;
use super::channel::{Channel, Waited};
use super::request::{Failure, OwnedRequest, Reply, Request};
use super::retries::RetryBudget;
use super::seek::{self, Patience};

/// How long a request that lost its worker waits for a successor where nobody is known to start one, within its own
/// deadline: the caller should know soon.
const SUCCESSOR_WITHIN: Duration = Duration::from_millis(500);
/// A request that has gone from worker to worker pauses before the next.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What is said beside the loss of a request that would have been sent again.
pub const NO_BUDGET: &str = "; it was not sent again: the retry budget, a fifth of the calls and five a second, is used up; \
                             hint: the worker's log says what it dies of";

/// A call that came back unfinished: a signal arrived, or a tenth of a second passed. It goes on in the worker until it is
/// waited for again or cancelled.
#[derive(Debug)]
pub struct Pending {
    stage: Stage,
    /// What to send, again if the worker is lost meanwhile.
    request: OwnedRequest,
    tries: Tries,
}

/// How far a call has come.
#[derive(Debug)]
enum Stage {
    /// There is no worker yet, or no channel to it.
    Seeking,
    /// The channel has no room for it yet.
    Waiting(Channel),
    /// On its way under this id.
    Sent(Channel, u64),
}

/// What has become of a call so far.
#[derive(Debug)]
struct Tries {
    began_ns: u64,
    /// How often it was sent.
    sent: u32,
    /// Set when there is first need of it: mostly there is none.
    patience: Option<Patience>,
    /// Why it is sent again: what its caller is told if that comes to nothing.
    failed: Option<Failure>,
    pause: Duration,
}

/// How a blocking call came back.
#[derive(Debug)]
pub enum Called {
    /// Answered by the worker; `true`: it was sent a second time.
    Reply(Reply, bool),
    /// A signal arrived while waiting.
    Interrupted(Box<Pending>),
}

impl Tries {
    fn new() -> Self {
        Self { began_ns: now_ns(), sent: 0, patience: None, failed: None, pause: FIRST_PAUSE }
    }

    /// It was handed to a worker, or could not be.
    fn count(&mut self, budget: &RetryBudget) {
        self.sent += 1;
        budget.count_sent();
    }

    /// `timeout`: asked when there is first need of it.
    fn patience(&mut self, timeout: impl FnOnce() -> Duration) -> Patience {
        *self.patience.get_or_insert_with(|| {
            let gone = Duration::from_nanos(now_ns().saturating_sub(self.began_ns));
            Patience::of(Duration::ZERO, timeout().saturating_sub(gone))
        })
    }

    /// Whether it is to be sent once more after this failure: what never ran always, within the one deadline, what may
    /// have run once, and only if that does no harm and the budget has room for it.
    fn again(&mut self, budget: &RetryBudget, request: &Request<'_>, failure: &mut Failure, deadline: u64) -> bool {
        let lost = |failure: &Failure| failure.outcome == Outcome::WorkerLost;
        let may = match failure.outcome {
            Outcome::Unavailable => failure.submitted,
            Outcome::WorkerLost => failure.idempotent && !self.failed.as_ref().is_some_and(lost),
            _ => false,
        };
        let left = Duration::from_nanos(deadline.saturating_sub(now_ns()));
        if !may || !request.resend || left.is_zero() {
            return false;
        }
        if !lost(failure) {
            budget.count_moved();
        } else if !budget.may_run_again() {
            failure.message.push_str(NO_BUDGET);
            return false;
        }
        if self.failed.is_none() || lost(failure) {
            self.failed = Some(failure.clone());
        }
        self.patience = Some(Patience::of(left.min(SUCCESSOR_WITHIN), left));
        if self.sent > 1 {
            std::thread::sleep(seek::jittered(self.pause).min(left));
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        true
    }

    /// What the caller is told: a request that may have run is not called one that never ran.
    fn told(&mut self, failure: Failure) -> Failure {
        match self.failed.take() {
            Some(first) if failure.outcome == Outcome::Unavailable => {
                Failure { message: format!("{}; sent again: {}", first.message, failure.message), ..first }
            }
            _ => failure,
        }
    }
}

impl Client {
    /// Calls an entry and waits. A request that provably never ran is sent again to the worker's successor; one that may
    /// have run once more, if it is idempotent. All within the one deadline.
    pub fn call(&self, request: &Request<'_>) -> Result<Called, Failure> {
        let mut tries = Tries::new();
        Ok(match self.go_on(request, &mut tries, Stage::Seeking)? {
            Attempted::Reply(reply) => Called::Reply(reply, tries.sent > 1),
            Attempted::Interrupted(stage) => {
                let blocks = match &stage {
                    Stage::Sent(channel, id) => channel.blocks_of(*id),
                    Stage::Seeking | Stage::Waiting(_) => &[],
                };
                let request = OwnedRequest::of(request, blocks);
                Called::Interrupted(Box::new(Pending { stage, request, tries }))
            }
        })
    }

    /// Waits on for an interrupted call.
    pub fn resume(&self, mut pending: Box<Pending>) -> Result<Called, Failure> {
        let Pending { stage, request, tries } = &mut *pending;
        let stage = std::mem::replace(stage, Stage::Seeking);
        Ok(match request.with(|request| self.go_on(request, tries, stage))? {
            Attempted::Reply(reply) => Called::Reply(reply, tries.sent > 1),
            Attempted::Interrupted(stage) => {
                pending.stage = stage;
                Called::Interrupted(pending)
            }
        })
    }

    /// Goes on with a call from wherever it is, until it is answered, has failed for good, or a tenth of a second has passed.
    fn go_on(&self, request: &Request<'_>, tries: &mut Tries, mut stage: Stage) -> Result<Attempted, Failure> {
        loop {
            let (deadline, attempted) = match stage {
                Stage::Sent(channel, id) => (channel.deadline_of(id).unwrap_or_else(now_ns), self.settle(channel, id)),
                Stage::Waiting(channel) => {
                    let deadline = channel.session().deadline_from(tries.began_ns, request);
                    (deadline, self.send(channel, request, tries, deadline))
                }
                Stage::Seeking => {
                    let found = match self.present() {
                        Some(session) => Ok(Some(session)),
                        None => self.find(tries.patience(|| self.timeout_of(request)), LONGEST_SLEEP),
                    };
                    let session = match found {
                        Ok(Some(session)) => session,
                        Ok(None) => return Ok(Attempted::Interrupted(Stage::Seeking)),
                        Err(failure) => return Err(tries.told(failure)),
                    };
                    let deadline = session.deadline_from(tries.began_ns, request);
                    let attempted = match session.checkout_within(deadline, LONGEST_SLEEP) {
                        Ok(Some(channel)) => self.send(channel, request, tries, deadline),
                        Ok(None) => return Ok(Attempted::Interrupted(Stage::Seeking)),
                        Err(failure) => {
                            tries.count(&self.retries);
                            Err(failure)
                        }
                    };
                    (deadline, attempted)
                }
            };
            let mut failure = match attempted {
                Ok(attempted) => return Ok(attempted),
                Err(failure) => failure,
            };
            if !tries.again(&self.retries, request, &mut failure, deadline) {
                return Err(tries.told(failure));
            }
            stage = Stage::Seeking;
        }
    }

    /// Sends the request as soon as the channel has room, and waits for its answer.
    fn send(
        &self,
        mut channel: Channel,
        request: &Request<'_>,
        tries: &mut Tries,
        deadline: u64,
    ) -> Result<Attempted, Failure> {
        match channel.submit_within(request, deadline) {
            Ok(None) => Ok(Attempted::Interrupted(Stage::Waiting(channel))),
            Ok(Some(id)) => {
                tries.count(&self.retries);
                self.settle(channel, id)
            }
            Err(failure) => {
                tries.count(&self.retries);
                channel.check_in();
                Err(failure)
            }
        }
    }

    /// Waits for an answer.
    fn settle(&self, mut channel: Channel, id: u64) -> Result<Attempted, Failure> {
        let settled = match channel.wait(id) {
            // A worker that refuses because it stops is as good as gone: its successor is looked up.
            Waited::Reply(reply) if reply.outcome == Outcome::Unavailable => {
                self.forget(channel.session());
                Err(reply.into_failure())
            }
            Waited::Reply(reply) => Ok(Attempted::Reply(reply)),
            Waited::Failed(failure) => Err(failure),
            Waited::Interrupted => return Ok(Attempted::Interrupted(Stage::Sent(channel, id))),
        };
        channel.check_in();
        settled
    }

    /// Takes an interrupted call back.
    pub fn cancel(&self, pending: Box<Pending>) {
        match pending.stage {
            Stage::Seeking => {}
            Stage::Waiting(channel) => channel.check_in(),
            Stage::Sent(mut channel, id) => {
                channel.abandon(id);
                channel.check_in();
            }
        }
    }
}

/// How far a call came without failing.
enum Attempted {
    Reply(Reply),
    Interrupted(Stage),
}
