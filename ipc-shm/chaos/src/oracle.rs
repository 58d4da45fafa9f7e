//! What is owed for every request, held against what clients and workers wrote down.
//!
//! | rule | |
//! | --- | --- |
//! | one outcome | a request that was begun ends once; of a killed client at most once |
//! | at most once | what is not idempotent never runs twice, what is runs at most twice, and only where it may be sent again |
//! | an answer is an answer | what ended Ok has run |
//! | Unavailable never ran | unless it is idempotent and was sent twice |
//! | nothing from nowhere | nothing runs that nobody asked for |
//! | no needless error | while a worker lives, a plain request is answered |

use std::collections::HashMap;

use molt_ipc_shm::Outcome;

use crate::journal::{Event, Plan, Record, Resend};

/// How often each request (client, sequence number) began to run.
pub type Runs = HashMap<(u32, u32), u32>;

/// A client's life.
#[derive(Debug)]
pub struct Life<'a> {
    /// Its number.
    pub client: u32,
    /// What it wrote.
    pub records: &'a [Record],
    /// It was killed: its last requests may lack an end.
    pub killed: bool,
    /// A worker died, was not there, or stood still in its time: requests may fail for that.
    pub disturbed: bool,
}

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Requests begun.
    pub requests: u64,
    /// By outcome.
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Without an end, of killed clients.
    pub unfinished: u64,
    /// Sent a second time.
    pub again: u64,
    /// Runs that began.
    pub runs: u64,
}

impl Tally {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(own, more)| *own += more);
        self.unfinished += other.unfinished;
        self.again += other.again;
        self.runs += other.runs;
    }

    /// The outcomes in words.
    pub fn outcomes(&self) -> String {
        let named = Outcome::ALL.iter().zip(self.outcomes).filter(|(_, count)| *count > 0);
        named.map(|(outcome, count)| format!("{} {count}", outcome.name())).collect::<Vec<_>>().join(", ")
    }
}

struct Asked {
    plan: Plan,
    resend: Resend,
    end: Option<(Outcome, bool)>,
}

/// Counts, and says what was broken. `runs`: `None` where the worker keeps no journal.
pub fn judge(lives: &[Life<'_>], runs: Option<&Runs>) -> (Tally, Vec<String>) {
    let (mut tally, mut broken) = (Tally::default(), Vec::new());
    let mut known = 0;
    for life in lives {
        let asked = read(life, &mut tally, &mut broken);
        for (seq, request) in &asked {
            let ran = runs.map(|runs| runs.get(&(life.client, *seq)).copied().unwrap_or(0));
            known += u64::from(ran.unwrap_or(0));
            tally.unfinished += u64::from(life.killed && request.end.is_none());
            let name = || format!("client {} request {seq} ({:?})", life.client, request.plan);
            if let Some(what) = owed(life, request, ran) {
                broken.push(format!("{}: {what}", name()));
            }
        }
    }
    if let Some(runs) = runs {
        tally.runs = runs.values().map(|count| u64::from(*count)).sum();
        if tally.runs > known {
            broken.push(format!("{} runs of requests that nobody asked for", tally.runs - known));
        }
    }
    (tally, broken)
}

fn read(life: &Life<'_>, tally: &mut Tally, broken: &mut Vec<String>) -> HashMap<u32, Asked> {
    let mut asked: HashMap<u32, Asked> = HashMap::new();
    for record in life.records {
        let name = || format!("client {} request {}", life.client, record.seq);
        match record.event {
            Event::Begun(plan, resend) => {
                tally.requests += 1;
                if asked.insert(record.seq, Asked { plan, resend, end: None }).is_some() {
                    broken.push(format!("{} was begun twice", name()));
                }
            }
            Event::Ended(outcome, again) => {
                tally.outcomes[outcome as usize] += 1;
                tally.again += u64::from(again);
                match asked.get_mut(&record.seq) {
                    Some(request) => {
                        if let Some((first, _)) = request.end.replace((outcome, again)) {
                            broken.push(format!("{} ended twice: {first:?}, then {outcome:?}", name()));
                        }
                    }
                    None => broken.push(format!("{} ended as {outcome:?} and was never begun", name())),
                }
            }
        }
    }
    asked
}

fn owed(life: &Life<'_>, request: &Asked, ran: Option<u32>) -> Option<String> {
    let Resend { idempotent, allowed } = request.resend;
    let most = if idempotent && allowed { 2 } else { 1 };
    let Some((outcome, again)) = request.end else {
        return match ran {
            _ if !life.killed => Some("it never ended".into()),
            Some(ran) if ran > most => Some(format!("it ran {ran} times, at most {most} are allowed")),
            _ => None,
        };
    };
    if again && !allowed {
        return Some("it was sent a second time, which its caller forbade".into());
    }
    if let Some(ran) = ran {
        let twice_maybe = idempotent && allowed;
        match outcome {
            _ if ran > most => return Some(format!("it ran {ran} times, at most {most} are allowed")),
            Outcome::Ok if ran == 0 => return Some("it was answered and never ran".into()),
            Outcome::Unavailable | Outcome::Busy if ran > 0 && !twice_maybe => {
                return Some(format!("it ended as {outcome:?}, which says that it never ran, and ran {ran} times"));
            }
            _ => {}
        }
    }
    let expected = match (request.plan, outcome) {
        (Plan::Wrong, Outcome::Ok) => false,
        (Plan::Wrong, Outcome::InvalidInput) => true,
        (Plan::Hasty, Outcome::Ok | Outcome::Timeout) => true,
        (Plan::TakenBack, Outcome::Ok | Outcome::Cancelled | Outcome::Timeout) => true,
        (_, Outcome::Ok) => true,
        (_, Outcome::WorkerLost | Outcome::Unavailable | Outcome::Timeout) => life.disturbed,
        _ => false,
    };
    (!expected).then(|| format!("it ended as {outcome:?} for no reason that is known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONCE: Resend = Resend { idempotent: false, allowed: true };
    const TWICE: Resend = Resend { idempotent: true, allowed: true };

    fn record(seq: u32, event: Event) -> Record {
        Record { at_ns: 0, seq, thread: 0, event }
    }

    fn one(
        plan: Plan,
        resend: Resend,
        ends: &[(Outcome, bool)],
        ran: u32,
        killed: bool,
        disturbed: bool,
    ) -> Vec<String> {
        let mut records = vec![record(5, Event::Begun(plan, resend))];
        records.extend(ends.iter().map(|(outcome, again)| record(5, Event::Ended(*outcome, *again))));
        let runs: Runs = if ran > 0 { [((1, 5), ran)].into() } else { Runs::new() };
        judge(&[Life { client: 1, records: &records, killed, disturbed }], Some(&runs)).1
    }

    #[test]
    fn what_is_right_is_accepted() {
        use Outcome::{Cancelled, InvalidInput, Ok, Timeout, Unavailable, WorkerLost};
        let right = [
            one(Plan::Plain, ONCE, &[(Ok, false)], 1, false, false),
            one(Plan::Plain, TWICE, &[(Ok, true)], 2, false, true),
            one(Plan::Plain, ONCE, &[(WorkerLost, false)], 1, false, true),
            one(Plan::Plain, ONCE, &[(WorkerLost, false)], 0, false, true),
            one(Plan::Plain, ONCE, &[(Unavailable, false)], 0, false, true),
            one(Plan::Plain, TWICE, &[(Unavailable, true)], 1, false, true),
            one(Plan::Hasty, ONCE, &[(Timeout, false)], 0, false, false),
            one(Plan::TakenBack, ONCE, &[(Cancelled, false)], 0, false, false),
            one(Plan::Wrong, ONCE, &[(InvalidInput, false)], 1, false, false),
            one(Plan::Plain, ONCE, &[], 1, true, false),
        ];
        right.iter().enumerate().for_each(|(case, broken)| assert!(broken.is_empty(), "case {case}: {broken:?}"));
    }

    #[test]
    fn every_planted_violation_is_found() {
        use Outcome::{Busy, Cancelled, Internal, Ok, Timeout, Unavailable, WorkerLost};
        let wrong = [
            ("lost", one(Plan::Plain, ONCE, &[], 1, false, false)),
            ("two outcomes", one(Plan::Plain, ONCE, &[(Ok, false), (Ok, false)], 1, false, false)),
            ("ran twice", one(Plan::Plain, ONCE, &[(Ok, false)], 2, false, true)),
            ("ran twice, killed", one(Plan::Plain, ONCE, &[], 2, true, true)),
            ("ran three times", one(Plan::Plain, TWICE, &[(Ok, true)], 3, false, true)),
            ("never ran", one(Plan::Plain, ONCE, &[(Ok, false)], 0, false, false)),
            ("ran after all", one(Plan::Plain, ONCE, &[(Unavailable, false)], 1, false, true)),
            ("busy after all", one(Plan::Plain, ONCE, &[(Busy, false)], 1, false, true)),
            ("needless", one(Plan::Plain, ONCE, &[(WorkerLost, false)], 0, false, false)),
            ("needless", one(Plan::Plain, ONCE, &[(Timeout, false)], 0, false, false)),
            ("internal", one(Plan::Plain, ONCE, &[(Internal, false)], 1, false, true)),
            ("not asked", one(Plan::Plain, ONCE, &[(Cancelled, false)], 0, false, true)),
            ("not refused", one(Plan::Wrong, ONCE, &[(Ok, false)], 1, false, false)),
        ];
        wrong.iter().for_each(|(case, broken)| assert_eq!(broken.len(), 1, "{case}: {broken:?}"));
        let never = Resend { idempotent: true, allowed: false };
        assert_eq!(one(Plan::Plain, never, &[(Ok, true)], 1, false, true).len(), 1, "sent again");
        let stray: Runs = [((9, 9), 1)].into();
        assert_eq!(judge(&[], Some(&stray)).1.len(), 1, "from nowhere");
        let ended = [record(1, Event::Ended(Ok, false))];
        let life = Life { client: 1, records: &ended, killed: false, disturbed: false };
        assert_eq!(judge(&[life], None).1.len(), 1, "an end without a beginning");
    }
}
