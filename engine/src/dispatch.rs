//! The way of a request through the worker: taken, run at once or queued, answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::table::Encoded;
use molt_ipc_shm::worker::{Answer, AnswerBody, Host, Inflight, Metrics, Payload, Placed, Service, Stop};
use molt_ipc_shm::{Codec, Outcome, stats};
use tracing::{debug, error, info};

use crate::alloc::Taken;
use crate::body;
use crate::cancel::CancelToken;
use crate::entries::{Entry, Output, Ran, Registry, Run};
use crate::failure::Failure;
use crate::log::Origin;
use crate::queue::{FairQueue, Pushed};
use crate::watchdog::{Running, Threads, Watchdog, lock};

/// How long a call may take when neither it nor its entry says.
const DEFAULT_LIMIT: Duration = Duration::from_secs(5);
const TAKEN_BACK: &str = "taken back before it was started";
const NOT_STARTED: &str = "the worker is stopping; this request was not started";
/// What Busy says about when to come back is never less, nor more, than this.
const SHORTEST_RETRY: Duration = Duration::from_millis(10);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// The mean of running times forgets a request after about so many others.
const RUNS_IN_MEAN: u64 = 8;
/// A scratch buffer larger than this is given back after the request.
const SCRATCH_KEPT: usize = 16 << 20;

/// Takes requests from the poller and runs them.
pub struct Dispatcher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    registry: Registry,
    host: Arc<Host>,
    queue: FairQueue<Inflight>,
    queue_size: usize,
    /// How long a request runs, nanoseconds: a mean in which the last ones count most.
    mean_run_ns: AtomicU64,
    stop: Arc<Stop>,
    /// What each thread runs now, for cancellation and the watchdog.
    running: Threads,
    watchdog: Watchdog,
}

impl Dispatcher {
    /// Starts the threads.
    pub fn new(
        registry: Registry,
        host: Arc<Host>,
        threads: usize,
        queue_size: usize,
        stop: Arc<Stop>,
        watchdog: Watchdog,
    ) -> std::io::Result<Self> {
        let queue = FairQueue::new(queue_size);
        let running = (0..threads).map(|_| Mutex::new(None)).collect();
        let mean_run_ns = AtomicU64::new(0);
        let shared = Arc::new(Shared { registry, host, queue, queue_size, mean_run_ns, stop, running, watchdog });
        let spawn = |index: usize| {
            let shared = shared.clone();
            let run = move || shared.work(index);
            std::thread::Builder::new().name(format!("molt-run-{index}")).spawn(run)
        };
        let threads = (0..threads).map(spawn).collect::<std::io::Result<_>>()?;
        Ok(Self { shared, threads })
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.shared.queue.close();
        let still_running = self.shared.running.iter().any(|running| lock(running).is_some());
        if !still_running {
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

impl Service for Dispatcher {
    fn serve(&self, request: Inflight) {
        let shared = &self.shared;
        let Some(entry) = shared.registry.get(request.entry()) else {
            let failure = shared.registry.unknown(request.entry());
            return request.answer(answer_of(failure));
        };
        let most = shared.host.segment.header.max_body;
        match request.payload_len() {
            Ok(len) if len > most => {
                let text = format!("a body of {len} bytes is larger than the {most} bytes that this worker takes");
                return request.answer(Answer::failure(Outcome::TooLarge, text));
            }
            Ok(_) => {}
            Err(bad) => return request.answer(answer_of(body::bad_handle(bad))),
        }
        if entry.is_short(&request) {
            return shared.run_contained(entry, request, &mut Vec::new(), None);
        }
        shared.enqueue(entry, request);
    }

    fn stopping(&self) {
        // Their threads may be busy for long yet: whoever waits here learns at once that another worker is to be asked.
        let waiting = self.shared.queue.take_if(|_| true);
        self.shared.leave(waiting, |_| Answer::failure(Outcome::Unavailable, NOT_STARTED));
        if self.shared.stop.is_leaving() {
            info!("a successor serves: what runs is finished here, the rest is for the successor");
        }
    }

    fn cancelled(&self, channel: u32) {
        let gone = self.shared.queue.take_if(|request| request.channel() == channel && request.is_cancelled());
        self.shared.leave(gone, |_| Answer::failure(Outcome::Cancelled, TAKEN_BACK));
        for running in &self.shared.running {
            if let Some(running) = &*lock(running)
                && running.probe.is_cancelled()
            {
                running.cancel.cancel();
            }
        }
    }

    fn tick(&self) {
        let shared = &self.shared;
        shared.drop_expired();
        shared.watchdog.look(&shared.running, &shared.host);
    }
}

impl Shared {
    /// Lets a request wait for a thread, or answers Busy: to it, or to one of whoever waits with more than a fair share.
    fn enqueue(&self, entry: &Entry, request: Inflight) {
        if self.queue.len() >= self.queue_size {
            self.drop_expired();
        }
        self.host.queued.fetch_add(1, Ordering::Relaxed);
        match self.queue.push(request.session(), deadline_ns(entry, &request), request) {
            Pushed::Waits => {}
            Pushed::Displaced(request) | Pushed::Refused(request) => {
                self.leave([request], |request| self.busy(request))
            }
        }
    }

    /// What is told to whoever has no place in the queue: also, when there should be one.
    fn busy(&self, request: &Inflight) -> Answer {
        let places = self.queue_size;
        let text = format!(
            "the worker's queue is full: {places} requests wait, and this process has its fair share of them; \
             hint: try again later, or raise --queue"
        );
        let ahead = self.queue.ahead_of(request.session()) as u64;
        let mean = self.mean_run_ns.load(Ordering::Relaxed);
        let wait = Duration::from_nanos(mean.saturating_mul(ahead) / self.running.len() as u64);
        let retry_after = wait.clamp(SHORTEST_RETRY, LONGEST_RETRY).as_secs_f64();
        let details = rmp_serde::to_vec_named(&serde_json::json!({ "retry_after": retry_after })).unwrap_or_default();
        Answer::failure_with(Outcome::Busy, 0, text, &details)
    }

    /// Answers what waits and is late: it shall not take a place, nor a thread, from one that is not.
    fn drop_expired(&self) {
        let now = now_ns();
        self.leave(self.queue.take_expired(now), |request| {
            let queue_us = micros(now.saturating_sub(request.head.sent_ns));
            expired(request.entry(), queue_us, request.queue_depth)
        });
    }

    /// Answers requests that leave the queue without a thread.
    fn leave(&self, requests: impl IntoIterator<Item = Inflight>, answer: impl Fn(&Inflight) -> Answer) {
        for request in requests {
            self.host.queued.fetch_sub(1, Ordering::Relaxed);
            let answer = answer(&request);
            request.answer(answer);
        }
    }

    /// One thread: takes requests until the queue ends.
    fn work(&self, index: usize) {
        let mut scratch = Vec::new();
        while let Some(request) = self.queue.pop() {
            self.host.queued.fetch_sub(1, Ordering::Relaxed);
            // The name was known when the request was queued, and entries never go.
            if let Some(entry) = self.registry.get(request.entry()) {
                self.run_contained(entry, request, &mut scratch, Some(index));
            }
            if scratch.capacity() > SCRATCH_KEPT {
                scratch = Vec::new();
            }
        }
    }

    /// No panic ends a thread: a request that is dropped on the way out answers Internal by itself.
    fn run_contained(&self, entry: &Entry, request: Inflight, scratch: &mut Vec<u8>, thread: Option<usize>) {
        let _origin = Origin::of(&request, entry.slot).enter();
        if catch_unwind(AssertUnwindSafe(|| self.run(entry, request, scratch, thread))).is_err() {
            error!("the worker panicked while it answered");
        }
    }

    /// Runs one request and answers it.
    fn run(&self, entry: &Entry, request: Inflight, scratch: &mut Vec<u8>, thread: Option<usize>) {
        let started = now_ns();
        let queue_us = micros(started.saturating_sub(request.head.sent_ns));
        let mut metrics = Metrics { queue_us, queue_depth: request.queue_depth, ..Metrics::default() };
        let deadline_ns = deadline_ns(entry, &request);
        if started >= deadline_ns {
            let answer = expired(&entry.name, queue_us, request.queue_depth);
            return request.answer(answer);
        }
        if self.stop.is_wanted() {
            return request.answer(Answer::failure(Outcome::Unavailable, NOT_STARTED));
        }
        if !request.begin() {
            return request.answer(Answer::failure(Outcome::Cancelled, TAKEN_BACK));
        }
        let cancel = CancelToken::new();
        if let Some(index) = thread {
            let (probe, cancel) = (request.probe(), cancel.clone());
            let (origin, slot) = (Origin::of(&request, entry.slot), entry.slot);
            *lock(&self.running[index]) = Some(Running { probe, cancel, origin, slot, deadline_ns, late_looks: 0 });
        }
        let before = Taken::now();
        let result = self.guarded(entry, &request, deadline_ns, cancel, scratch);
        let ended = now_ns();
        if let Some(index) = thread {
            *lock(&self.running[index]) = None;
        }
        stats::record_run(&self.host.segment.map, &self.host.segment.geometry, entry.slot, ended - started);
        let (result, foreign) = match result {
            Ok(ran) => {
                (metrics.copied_bytes, metrics.plans) = (ran.copied_bytes, ran.plans.min(u8::MAX.into()) as u8);
                metrics.table_age_ms = ran.tables_since.map(millis_since);
                (Ok(ran.output), ran.taken)
            }
            Err(failure) => (Err(failure), Taken::default()),
        };
        let answer = result.and_then(|output| write(entry, &request, output)).unwrap_or_else(|failure| {
            match failure.outcome {
                // The entry is wrong, or the worker: nobody else will say so.
                Outcome::Internal => error!(message = failure.message, "request failed"),
                outcome => debug!(outcome = outcome.name(), message = failure.message, "request failed"),
            }
            answer_of(failure)
        });
        let taken = Taken::now().since(before);
        let took = now_ns() - started;
        if thread.is_some() {
            self.note_run(took);
        }
        metrics.exec_us = micros(took);
        metrics.allocs = (taken.allocs + foreign.allocs).min(u32::MAX as u64) as u32;
        metrics.alloc_bytes = taken.bytes + foreign.bytes;
        debug!(outcome = answer.outcome.name(), queue_us, exec_us = metrics.exec_us, "request answered");
        request.answer(Answer { metrics, ..answer });
    }

    /// Two threads at once may lose one of both: it is a hint.
    fn note_run(&self, took_ns: u64) {
        let mean = self.mean_run_ns.load(Ordering::Relaxed);
        let next = if mean == 0 { took_ns } else { mean - mean / RUNS_IN_MEAN + took_ns / RUNS_IN_MEAN };
        self.mean_run_ns.store(next, Ordering::Relaxed);
    }

    /// A panic in an entry is one request's Internal error.
    fn guarded(
        &self,
        entry: &Entry,
        request: &Inflight,
        deadline_ns: u64,
        cancel: CancelToken,
        scratch: &mut Vec<u8>,
    ) -> Result<Ran, Failure> {
        let number = if request.head.accept == 0 { request.head.codec } else { request.head.accept };
        let accept = match request.accept() {
            Some(accept) => accept,
            None => return Err(Failure::invalid(format!("codec {number} is none of msgpack, json, raw, arrow"))),
        };
        let deadline = Instant::now() + Duration::from_nanos(deadline_ns.saturating_sub(now_ns()));
        let mut run = Run { request, accept, deadline, cancel, scratch };
        catch_unwind(AssertUnwindSafe(|| entry.run(&mut run))).unwrap_or_else(|_| {
            error!("an entry panicked");
            Err(Failure::internal(format!("entry \"{}\" panicked; the worker goes on", entry.name)))
        })
    }
}

fn micros(ns: u64) -> u32 {
    (ns / 1000).min(u32::MAX as u64) as u32
}

fn millis_since(since: Instant) -> u32 {
    since.elapsed().as_millis().min(u32::MAX as u128) as u32
}

/// The answer of a request whose time was up before a thread was free.
fn expired(entry: &str, queue_us: u32, queue_depth: u32) -> Answer {
    let text = format!("entry \"{entry}\": the deadline passed after {queue_us} us in the queue; it was not started");
    let metrics = Metrics { queue_us, queue_depth, ..Metrics::default() };
    Answer { metrics, ..Answer::failure(Outcome::Timeout, text) }
}

/// When a request's time is up: the caller's wish, capped by the entry's limit.
fn deadline_ns(entry: &Entry, request: &Inflight) -> u64 {
    let limit = entry.limit.map(|limit| request.head.sent_ns.saturating_add(limit.as_nanos() as u64));
    match (request.deadline_ns(), limit) {
        (Some(own), Some(limit)) => own.min(limit),
        (Some(own), None) => own,
        (None, limit) => limit.unwrap_or(request.head.sent_ns.saturating_add(DEFAULT_LIMIT.as_nanos() as u64)),
    }
}

fn answer_of(failure: Failure) -> Answer {
    let details = failure.details.and_then(|details| rmp_serde::to_vec_named(&details).ok()).unwrap_or_default();
    Answer::failure_with(failure.outcome, failure.status.unwrap_or(0), failure.message, &details)
}

/// Makes an answer of an entry's output; tables are written into the arena here, their one copy.
fn write(entry: &Entry, request: &Inflight, output: Output) -> Result<Answer, Failure> {
    // Internal, not Busy: the entry has run, and who is told Busy sends again.
    let no_room = |full: molt_ipc_shm::block::NoBlock| {
        Failure::internal(format!("entry \"{}\": no room for its answer: {full}", entry.name))
    };
    match output {
        Output::Bytes(codec, bytes) => Ok(Answer::ok(codec, AnswerBody::Bytes(bytes))),
        Output::Table(schema, batches) => {
            let encoded = Encoded::new(&schema, batches.into_iter().map(Ok)).map_err(|error| {
                Failure::internal(format!("entry \"{}\": its table cannot be encoded: {error}", entry.name))
            })?;
            let block = request.result_block(encoded.len()).map_err(no_room)?;
            encoded.write_to(&block);
            Ok(Answer::ok(Codec::Arrow, AnswerBody::Table(Placed::Block(block))))
        }
        Output::Resident(resident) => Ok(Answer::ok(Codec::Arrow, AnswerBody::Table(Placed::Resident(resident)))),
        Output::Payload => {
            let codec = body::codec(request)?;
            match request.payload().map_err(body::bad_handle)? {
                Payload::Inline(bytes) if codec != Codec::Arrow => {
                    Ok(Answer::ok(codec, AnswerBody::Bytes(bytes.to_vec())))
                }
                Payload::Inline(bytes) => {
                    let block = request.result_block(bytes.len()).map_err(no_room)?;
                    block.write(0, bytes);
                    Ok(Answer::ok(codec, AnswerBody::Placed(Placed::Block(block))))
                }
                Payload::Arena(handle) => {
                    let block = request.copy_to_block(&handle).map_err(no_room)?;
                    Ok(Answer::ok(codec, AnswerBody::Placed(Placed::Block(block))))
                }
                Payload::Tables(_) => {
                    Err(Failure::invalid(format!("entry \"{}\" takes one body, not tables", entry.name)))
                }
            }
        }
    }
}
