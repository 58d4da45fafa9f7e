//! The checked worker: small entries that verify what they are given, and a journal of what was started.
//!
//! | entry | does |
//! | --- | --- |
//! | `echo` | answers its payload: from the frame, or copied inside the arena |
//! | `turn` | answers every byte's complement: inline or leased, as its length asks |
//! | `grow` | answers as many bytes as wanted, written into a block |
//! | `put` | takes its payload's extents over, lists them in the catalogue and answers with them, as a resident table is put and read |
//! | `slow` | takes as many microseconds as wanted, on a thread of the pool |
//! | `hold` | is answered when it is taken back |
//! | `wrong` | refuses |

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use molt_ipc_shm::catalogue::{Catalogue, Listing};
use molt_ipc_shm::frame::Handle;
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::segment::{Blueprint, OwnedSegment};
use molt_ipc_shm::worker::{
    Answer, AnswerBody, Host, Inflight, Payload, Placed, Poller, Resident, Service, StartError, Stop,
};
use molt_ipc_shm::{Codec, Outcome, stats};

use super::{Break, Place, until_input_ends};
use crate::journal::Journal;
use crate::payload;

const ENTRIES: [&str; 7] = ["echo", "turn", "grow", "put", "slow", "hold", "wrong"];
const THREADS: usize = 2;

/// Sizes that are quick to reserve, and large enough that nothing of the workload is ever refused for want of room.
pub fn geometry() -> Geometry {
    Geometry {
        sessions: 32,
        channels: 64,
        ring_bytes: 16 << 10,
        cells_per_channel: 32,
        leases_per_session: 128,
        entries: 8,
        extent_bytes: 64 << 10,
        extents: 384,
    }
}

struct Checked {
    place: Place,
    journal: Journal,
    held: Mutex<Vec<Inflight>>,
    pool: (Mutex<VecDeque<Inflight>>, Condvar),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread of the worker panics")
}

impl Service for Checked {
    fn serve(&self, request: Inflight) {
        match request.entry() {
            "slow" | "grow" => {
                locked(&self.pool.0).push_back(request);
                self.pool.1.notify_one();
            }
            "hold" => self.hold(request),
            _ => self.run(request),
        }
    }

    fn cancelled(&self, _channel: u32) {
        let mut held = locked(&self.held);
        let (taken_back, others): (Vec<_>, Vec<_>) = held.drain(..).partition(Inflight::is_cancelled);
        *held = others;
        drop(held);
        for request in taken_back {
            request.answer(Answer::failure(Outcome::Cancelled, "the caller took it back"));
        }
    }
}

impl Checked {
    /// Starts it: what was asked, or `None` if it was answered already.
    fn begin(&self, request: Inflight) -> Option<(Inflight, Vec<u8>, payload::Key, u32)> {
        if !request.begin() {
            request.answer(Answer::failure(Outcome::Cancelled, "taken back before it started"));
            return None;
        }
        let body = match request.payload() {
            Ok(Payload::Inline(bytes)) => Ok(bytes.to_vec()),
            Ok(Payload::Arena(handle)) => request.copy_out(&handle).map_err(|bad| bad.to_string()),
            Ok(Payload::Tables(_)) => Err("tables".to_owned()),
            Err(bad) => Err(bad.to_string()),
        };
        match body.and_then(|body| payload::check(&body).map(|(key, want)| (body, key, want))) {
            Ok((body, key, want)) => {
                self.journal.run(key.client, key.seq);
                if self.place.breaks(Break::Double) {
                    self.journal.run(key.client, key.seq);
                }
                Some((request, body, key, want))
            }
            // Also of a client that is gone by now: its bytes stay until the worker has let go of every request of it.
            Err(what) => {
                self.place.accuse(&format!("a request of process {} came as {what}", request.pid()));
                request.answer(Answer::failure(Outcome::Internal, what));
                None
            }
        }
    }

    fn hold(&self, request: Inflight) {
        if let Some((request, ..)) = self.begin(request) {
            locked(&self.held).push(request);
        }
    }

    fn run(&self, request: Inflight) {
        let started = Instant::now();
        let Some((request, body, key, want)) = self.begin(request) else { return };
        let host = request.host().clone();
        let entry = ENTRIES.iter().position(|entry| *entry == request.entry());
        let mut answer = match request.entry() {
            "echo" => match request.payload() {
                Ok(Payload::Arena(handle)) => in_block(request.copy_to_block(&handle)),
                _ => Answer::ok(Codec::Raw, AnswerBody::Bytes(body)),
            },
            "turn" => Answer::ok(Codec::Raw, AnswerBody::Bytes(payload::turned(&body))),
            "grow" => in_block(request.result_block(want as usize).inspect(|block| {
                let mut bytes = payload::grown(key, want as usize);
                bytes[0] ^= u8::from(self.place.breaks(Break::Garble));
                block.write(0, &bytes);
            })),
            "put" => match request.payload() {
                Ok(Payload::Arena(handle)) => {
                    list(&host, key.seq.into(), body.len());
                    put(&request, &handle)
                }
                _ => Answer::ok(Codec::Raw, AnswerBody::Bytes(body)),
            },
            "slow" => {
                self.work(&request, Duration::from_micros(u64::from(want)));
                Answer::ok(Codec::Raw, AnswerBody::Bytes(body))
            }
            "wrong" => Answer::failure(Outcome::InvalidInput, "as was wanted"),
            other => Answer::failure(Outcome::UnknownEntry, format!("no entry is called {other}")),
        };
        if self.place.breaks(Break::Leak)
            && let Ok(block) = request.result_block(1 << 16)
        {
            block.abandon();
        }
        if self.place.breaks(Break::Descriptor) {
            std::mem::forget(std::fs::File::open("/dev/null"));
        }
        answer.metrics.exec_us = started.elapsed().as_micros() as u32;
        if let Some(index) = entry {
            let spent = started.elapsed().as_nanos() as u64;
            stats::record_run(&host.segment.map, &host.segment.geometry, index as u32, spent);
        }
        request.answer(answer);
    }

    fn work(&self, request: &Inflight, longest: Duration) {
        let end = Instant::now() + longest;
        while Instant::now() < end && !request.is_cancelled() {
            std::thread::sleep(Duration::from_micros(200).min(end.saturating_duration_since(Instant::now())));
        }
    }

    fn pool(&self) {
        loop {
            let mut queue = locked(&self.pool.0);
            let next = loop {
                match queue.pop_front() {
                    Some(next) => break next,
                    None => queue = self.pool.1.wait(queue).expect("no thread of the worker panics"),
                }
            };
            drop(queue);
            self.run(next);
        }
    }
}

/// Lists a table, as a worker does for the one after it. Only the poller's thread comes here: one writer at a time.
fn list(host: &Host, version: u64, bytes: usize) {
    let table = Listing { name: "put".into(), version, bytes: bytes as u64, ..Listing::default() };
    Catalogue { last: version, tables: vec![table], unlisted: 0 }.write(&host.segment.map, &host.segment.geometry);
}

/// Wherever the worker before this one was killed, what it says of its tables is whole.
fn read_catalogue(place: &Place) {
    if let Ok(Some(dead)) = place.address().left_behind()
        && Catalogue::read(&dead.map, &dead.geometry).is_none()
    {
        place.accuse(&format!("the catalogue of the dead worker (pid {}) cannot be read", dead.header.worker_pid));
    }
}

/// The payload's own extents, read by its client under a lease from now on. A payload that does not lie in extents of its own
/// (one that was sent again to another worker, say) is copied.
fn put(request: &Inflight, handle: &Handle) -> Answer {
    match request.take_over(handle) {
        Ok(block) => {
            let resident = Resident::new(request.host().segment.map.clone(), block);
            Answer::ok(Codec::Raw, AnswerBody::Placed(Placed::Resident(resident)))
        }
        Err(_) => in_block(request.copy_to_block(handle)),
    }
}

fn in_block(block: Result<molt_ipc_shm::block::Block, molt_ipc_shm::block::NoBlock>) -> Answer {
    match block {
        Ok(block) => Answer::ok(Codec::Raw, AnswerBody::Placed(Placed::Block(block))),
        Err(full) => Answer::failure(Outcome::Internal, full.to_string()),
    }
}

fn prepared(place: &Place) -> Result<Poller, StartError> {
    let plan =
        Blueprint { geometry: geometry(), socket: place.socket.clone(), max_body: 1 << 20, session_quota: 8 << 20 };
    let owned = match place.memfd {
        true => OwnedSegment::create_nameless(&plan)?,
        false => OwnedSegment::create(&place.shm, &plan)?,
    };
    for (index, entry) in ENTRIES.iter().enumerate() {
        stats::name_entry(&owned.segment.map, &owned.segment.geometry, index as u32, entry, 0, *entry == "echo");
    }
    Poller::new(owned)
}

/// Serves until its input is closed.
pub fn play(place: Place) -> Result<(), String> {
    let stop = Arc::new(Stop::default());
    let journal = Journal::open(&place.journal()).map_err(|error| error.to_string())?;
    let service = Arc::new(Checked { place: place.clone(), journal, held: Mutex::default(), pool: Default::default() });
    for _ in 0..THREADS {
        let service = service.clone();
        std::thread::spawn(move || service.pool());
    }
    read_catalogue(&place);
    let mut poller = prepared(&place).map_err(|error| error.to_string())?;
    let (stopped, waker) = (stop.clone(), poller.waker());
    until_input_ends(move || {
        stopped.want();
        let _ = waker.write(1);
    });
    poller.open(false).map_err(|error| error.to_string())?;
    poller.run(&*service, &stop, Duration::from_millis(500)).map_err(|error| error.to_string())?;
    drop(poller);
    if place.broken == Some(Break::Name) {
        let left = format!("/dev/shm{}.{:016x}.new", place.shm, place.number);
        std::fs::write(left, b"left").map_err(|error| error.to_string())?;
    }
    Ok(())
}
