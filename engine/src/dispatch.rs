//! The way of a request through the worker: taken, run at once or queued, answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::table::Encoded;
use molt_ipc_shm::worker::{Answer, AnswerBody, Host, Inflight, Metrics, Payload, Placed, Probe, Service, Stop};
use molt_ipc_shm::{Codec, Outcome, stats};
use tracing::{debug, error, info};

use crate::alloc::Taken;
use crate::body;
use crate::cancel::CancelToken;
use crate::entries::{Entry, Output, Ran, Registry, Run};
use crate::failure::Failure;

/// How long a call may take when neither it nor its entry says.
const DEFAULT_LIMIT: Duration = Duration::from_secs(5);
const NOT_STARTED: &str = "the worker is stopping; this request was not started";
/// A scratch buffer larger than this is given back after the request.
const SCRATCH_KEPT: usize = 16 << 20;

/// Takes requests from the poller and runs them.
pub struct Dispatcher {
    shared: Arc<Shared>,
    queue: Option<Sender<Inflight>>,
    /// The queue's other end, to empty it when the worker stops.
    waiting: Receiver<Inflight>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    registry: Registry,
    host: Arc<Host>,
    queue_size: usize,
    stop: Arc<Stop>,
    /// What each thread runs now, for cancellation.
    running: Vec<Mutex<Option<(Probe, CancelToken)>>>,
}

impl Dispatcher {
    /// Starts the threads.
    pub fn new(
        registry: Registry,
        host: Arc<Host>,
        threads: usize,
        queue_size: usize,
        stop: Arc<Stop>,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = bounded::<Inflight>(queue_size);
        let running = (0..threads).map(|_| Mutex::new(None)).collect();
        let shared = Arc::new(Shared { registry, host, queue_size, stop, running });
        let spawn = |index: usize| {
            let (shared, receiver) = (shared.clone(), receiver.clone());
            let run = move || shared.work(index, &receiver);
            std::thread::Builder::new().name(format!("molt-run-{index}")).spawn(run)
        };
        let threads = (0..threads).map(spawn).collect::<std::io::Result<_>>()?;
        Ok(Self { shared, queue: Some(sender), waiting: receiver, threads })
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.queue = None; // the threads see the end of the queue
        let still_running = self.shared.running.iter().any(|running| lock(running).is_some());
        if !still_running {
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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
        let Some(queue) = &self.queue else { return };
        shared.host.queued.fetch_add(1, Ordering::Relaxed);
        if let Err(refused) = queue.try_send(request) {
            shared.host.queued.fetch_sub(1, Ordering::Relaxed);
            let (TrySendError::Full(request) | TrySendError::Disconnected(request)) = refused;
            let size = shared.queue_size;
            let text =
                format!("the worker's queue is full: {size} requests wait; hint: try again later, or raise --queue");
            request.answer(Answer::failure(Outcome::Busy, text));
        }
    }

    fn stopping(&self) {
        // Their threads may be busy for long yet: whoever waits here learns at once that another worker is to be asked.
        for request in self.waiting.try_iter() {
            self.shared.host.queued.fetch_sub(1, Ordering::Relaxed);
            request.answer(Answer::failure(Outcome::Unavailable, NOT_STARTED));
        }
        if self.shared.stop.is_leaving() {
            info!("a successor serves: what runs is finished here, the rest is for the successor");
        }
    }

    fn cancelled(&self, _channel: u32) {
        for running in &self.shared.running {
            if let Some((probe, token)) = &*lock(running)
                && probe.is_cancelled()
            {
                token.cancel();
            }
        }
    }
}

impl Shared {
    /// One thread: takes requests until the queue ends.
    fn work(&self, index: usize, queue: &Receiver<Inflight>) {
        let mut scratch = Vec::new();
        for request in queue {
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
        if catch_unwind(AssertUnwindSafe(|| self.run(entry, request, scratch, thread))).is_err() {
            error!(entry = entry.name, "the worker panicked while it answered");
        }
    }

    /// Runs one request and answers it.
    fn run(&self, entry: &Entry, request: Inflight, scratch: &mut Vec<u8>, thread: Option<usize>) {
        let started = now_ns();
        let queue_us = (started.saturating_sub(request.head.sent_ns) / 1000).min(u32::MAX as u64) as u32;
        let mut metrics = Metrics { queue_us, queue_depth: request.queue_depth, ..Metrics::default() };
        let deadline_ns = deadline_ns(entry, &request);
        if started >= deadline_ns {
            let name = &entry.name;
            let text =
                format!("entry \"{name}\": the deadline passed after {queue_us} us in the queue; it was not started");
            return request.answer(Answer { metrics, ..Answer::failure(Outcome::Timeout, text) });
        }
        if self.stop.is_wanted() {
            return request.answer(Answer::failure(Outcome::Unavailable, NOT_STARTED));
        }
        if !request.begin() {
            return request.answer(Answer::failure(Outcome::Cancelled, "taken back before it was started"));
        }
        let cancel = CancelToken::new();
        if let Some(index) = thread {
            *lock(&self.running[index]) = Some((request.probe(), cancel.clone()));
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
                (Ok(ran.output), ran.taken)
            }
            Err(failure) => (Err(failure), Taken::default()),
        };
        let answer = result.and_then(|output| write(entry, &request, output)).unwrap_or_else(|failure| {
            debug!(entry = entry.name, outcome = failure.outcome.name(), message = failure.message, "request failed");
            answer_of(failure)
        });
        let taken = Taken::now().since(before);
        metrics.exec_us = ((now_ns() - started) / 1000).min(u32::MAX as u64) as u32;
        metrics.allocs = (taken.allocs + foreign.allocs).min(u32::MAX as u64) as u32;
        metrics.alloc_bytes = taken.bytes + foreign.bytes;
        request.answer(Answer { metrics, ..answer });
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
            error!(entry = entry.name, pid = request.pid(), "an entry panicked");
            Err(Failure::internal(format!("entry \"{}\" panicked; the worker goes on", entry.name)))
        })
    }
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
