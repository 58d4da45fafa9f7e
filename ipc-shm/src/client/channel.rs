//! A channel as its client uses it: one thread at a time, checked out of the session's pool.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::bell;
use crate::cell::{self, CellState};
use crate::checkout;
use crate::doorbell::{self, Woken};
use crate::frame::{Handle, RequestHead, ResponseHead, kind, request_flag, response_flag};
use crate::layout::channel;
use crate::os::now_ns;
use crate::ring::{Consumer, Producer, RingPlace};
use crate::spin::SpinBudget;
use crate::word::Word64;
use crate::{Outcome, attention};

use super::holdings::ClientBlock;
use super::parts::Parts;
use super::request::{Body, Failure, Reply, Request};
use super::session::{GRACE_NS, Session};

/// A client that waits for room looks so often whether an answer has made a cell free.
const LOOK_FOR_CELLS_EVERY: Duration = Duration::from_millis(5);

/// A request in flight on this channel.
#[derive(Debug)]
struct Open {
    id: u64,
    deadline_ns: u64,
    idempotent: bool,
    /// Kept until the worker has let go, whatever the caller did meanwhile.
    blocks: Vec<Arc<ClientBlock>>,
    /// The caller waits no longer: the late answer is dropped.
    abandoned: bool,
}

/// A channel.
pub struct Channel {
    session: Arc<Session>,
    index: u32,
    /// Its slot's.
    generation: u64,
    /// There until the channel is dropped.
    bell: Option<OwnedFd>,
    /// Reads of the bell end by themselves.
    limited: bool,
    requests: Producer,
    responses: Consumer,
    open: Vec<Option<Open>>,
    free_cells: Vec<u32>,
    frame: Vec<u8>,
    ticket: u64,
    spin: SpinBudget,
    /// Why nothing more can come through it.
    broken: Option<String>,
    /// Its session counts it as in use.
    pub(super) checked_out: bool,
    /// The worker does not take it back: see `checkout`.
    held: bool,
    /// When it was last used, CLOCK_MONOTONIC nanoseconds.
    used_ns: u64,
}

/// How a wait ended.
#[derive(Debug)]
pub enum Waited {
    /// The worker answered.
    Reply(Reply),
    /// Nobody answers: timed out, or the worker is gone.
    Failed(Failure),
    /// A signal arrived, or a tenth of a second passed; the request goes on.
    Interrupted,
}

/// Why a frame was not committed.
#[derive(Debug)]
pub enum NotSubmitted {
    /// No room in the ring for a frame of so many bytes, or no free cell: something must be answered first.
    Full(usize),
    /// It cannot be sent at all.
    Failed(Failure),
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({} of {:?}, {} in flight)", self.index, self.session, self.in_flight())
    }
}

impl Channel {
    pub(super) fn new(session: Arc<Session>, index: u32, generation: u64, bell: OwnedFd) -> Self {
        let (map, geometry) = (&session.segment.map, session.segment.geometry);
        Self {
            requests: Producer::new(map.clone(), RingPlace::of_requests(&geometry, index)),
            responses: Consumer::new(map.clone(), RingPlace::of_responses(&geometry, index)),
            open: (0..geometry.cells_per_channel).map(|_| None).collect(),
            free_cells: (0..geometry.cells_per_channel).rev().collect(),
            session,
            index,
            generation,
            limited: bell::limit_reads(bell.as_fd()).is_ok(),
            bell: Some(bell),
            frame: Vec::new(),
            ticket: 0,
            spin: SpinBudget::client(),
            broken: None,
            checked_out: false,
            held: true,
            used_ns: now_ns(),
        }
    }

    /// The session it belongs to.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The doorbell's descriptor.
    pub fn bell(&self) -> BorrowedFd<'_> {
        bell_of(&self.bell)
    }

    /// Puts it back into the pool.
    pub fn check_in(self) {
        let session = self.session.clone();
        session.check_in(self);
    }

    /// About to be used; `false`: the worker has taken it back.
    pub(super) fn take_up(&mut self) -> bool {
        self.held = self.held || checkout::check_out(self.word(channel::CHECKOUT), self.generation);
        self.held
    }

    /// Not used any more, unless answers are still to come; `false`: the worker wants it back.
    pub(super) fn lay_down(&mut self) -> bool {
        if self.in_flight() > 0 {
            return true;
        }
        let kept = checkout::check_in(self.word(channel::CHECKOUT), self.generation);
        self.held &= !kept;
        kept
    }

    /// When it was last used, CLOCK_MONOTONIC nanoseconds.
    pub(super) fn used_ns(&self) -> u64 {
        self.used_ns
    }

    fn word(&self, word: usize) -> &Word64 {
        self.session.segment.map.u64(self.session.segment.geometry.channel(self.index) + word)
    }

    fn cell(&self, cell: u32) -> &Word64 {
        self.session.segment.map.u64(self.session.segment.geometry.cell(self.index, cell))
    }

    /// What an open request carries in the arena.
    pub(super) fn blocks_of(&self, id: u64) -> &[Arc<ClientBlock>] {
        self.open.iter().flatten().find(|open| open.id == id).map_or(&[], |open| &open.blocks)
    }

    /// When an open request's time is up.
    pub(super) fn deadline_of(&self, id: u64) -> Option<u64> {
        self.open.iter().flatten().find(|open| open.id == id).map(|open| open.deadline_ns)
    }

    /// Requests whose answers have not been read.
    pub fn in_flight(&self) -> usize {
        self.open.len() - self.free_cells.len()
    }

    /// Commits one request frame and wakes the worker if it sleeps.
    pub fn submit(&mut self, request: &Request<'_>, deadline_ns: u64) -> Result<u64, NotSubmitted> {
        if let Some(what) = &self.broken {
            return Err(NotSubmitted::Failed(self.gone(what, false)));
        }
        if let Some(failure) = self.session.silent_worker() {
            return Err(NotSubmitted::Failed(failure));
        }
        let mut parts = Parts::plan(&self.session, request).map_err(NotSubmitted::Failed)?;
        let len = parts.len(request);
        let Some(cell_index) = self.free_cells.last().copied() else { return Err(NotSubmitted::Full(len)) };
        // Asked before anything is copied into the arena: while the ring is full this is tried again and again.
        if let Ok(false) = self.requests.fits(len, 0) {
            return Err(NotSubmitted::Full(len));
        }
        parts.place(&self.session, request).map_err(NotSubmitted::Failed)?;
        let id = Session::next_id();
        self.used_ns = now_ns();
        let head = RequestHead {
            len: len as u32,
            kind: kind::REQUEST,
            id,
            deadline_ns,
            sent_ns: self.used_ns,
            cell: cell_index,
            flags: parts.flags,
            codec: request.codec,
            accept: request.accept,
            name_len: request.entry.len() as u16,
            handles: (parts.handles.len() / Handle::BYTES) as u16,
            params_len: parts.params.len() as u32,
            names_len: parts.names.len() as u32,
            payload_len: parts.payload.len() as u32,
            reserved: 0,
        };
        let broken = match self.requests.reserve(len, 0) {
            Ok(Some(room)) => {
                let map = &self.session.segment.map;
                let cell = map.u64(self.session.segment.geometry.cell(self.index, cell_index));
                let names = parts.names.as_bytes();
                let (head, trace) = (head.encode(), parts.trace());
                let frame = [&head, request.entry, parts.params, names, &parts.handles, parts.payload, trace];
                cell::submit(cell, id, room, &frame);
                None
            }
            Ok(None) => return Err(NotSubmitted::Full(len)),
            Err(fault) => Some(fault.to_string()),
        };
        if let Some(what) = broken {
            let failure = self.gone(&what, false);
            self.broken = Some(what);
            return Err(NotSubmitted::Failed(failure));
        }
        let idempotent = parts.flags & request_flag::IDEMPOTENT != 0;
        self.free_cells.pop();
        self.open[cell_index as usize] =
            Some(Open { id, deadline_ns, idempotent, blocks: parts.blocks, abandoned: false });
        self.wake_worker();
        Ok(id)
    }

    /// The same, waiting for room for a tenth of a second at most. `None`: there is none yet, or a signal arrived.
    pub fn submit_within(&mut self, request: &Request<'_>, deadline_ns: u64) -> Result<Option<u64>, Failure> {
        let mut ends = None;
        loop {
            let len = match self.submit(request, deadline_ns) {
                Ok(id) => return Ok(Some(id)),
                Err(NotSubmitted::Failed(failure)) => return Err(failure),
                Err(NotSubmitted::Full(len)) => len,
            };
            if !self.session.segment.is_serving() {
                let name = &self.session.segment.name;
                let text = format!("the worker of {name} is stopping; this request was not sent");
                return Err(Failure { submitted: true, ..Failure::new(Outcome::Unavailable, text) });
            }
            let now = now_ns();
            if now >= deadline_ns {
                let text = "the channel stayed full until the deadline: the worker takes no requests";
                return Err(Failure::new(Outcome::Timeout, text));
            }
            let slice_ends = *ends.get_or_insert(now + bell::LONGEST_SLEEP.as_nanos() as u64);
            let left = slice_ends.min(deadline_ns).saturating_sub(now);
            if left == 0 || self.wait_for_room(len, Duration::from_nanos(left)) == Woken::Interrupted {
                self.session.look_for_scans();
                return Ok(None);
            }
        }
    }

    /// Waits until a frame of so many bytes has room, not long.
    fn wait_for_room(&mut self, len: usize, longest: Duration) -> Woken {
        self.ticket += 1;
        let place = self.session.segment.geometry.channel(self.index) + channel::ROOM_SLEEP;
        let map = self.session.segment.map.clone();
        let Self { requests, free_cells, bell, .. } = self;
        let room = || !matches!(requests.fits(len, 0), Ok(false)) && !free_cells.is_empty();
        // No bell rings for a cell that became free.
        let wait = || bell::wait(bell_of(bell), longest.min(LOOK_FOR_CELLS_EVERY));
        let woken = doorbell::sleep(map.u64(place), self.ticket, room, wait);
        let how = woken.as_ref().map_or(Woken::Look, |woken| *woken);
        self.note_wake(woken);
        self.drop_late_answers();
        how
    }

    /// Waits for one request's answer, at most until a little after its deadline.
    pub fn wait(&mut self, id: u64) -> Waited {
        let Some(deadline_ns) = self.deadline_of(id) else {
            return Waited::Failed(Failure::new(Outcome::Internal, format!("request {id} is not open")));
        };
        loop {
            while let Some((found, reply)) = self.next_reply() {
                if found == id {
                    return Waited::Reply(reply);
                }
            }
            if self.broken.is_some() {
                return Waited::Failed(self.lose(id));
            }
            let now = now_ns();
            if now >= deadline_ns + GRACE_NS {
                return Waited::Failed(self.time_out(id));
            }
            // Where other threads of this process wait too, they or their worker need the core.
            let alone = self.session.channels_in_use() <= 1;
            let Self { spin, responses, .. } = self;
            if alone && spin.spin(|| responses.has_frame().unwrap_or(true)) {
                continue;
            }
            self.ticket += 1;
            let map = self.session.segment.map.clone();
            let word = map.u64(self.session.segment.geometry.channel(self.index) + channel::RESPONSE_SLEEP);
            let longest = Duration::from_nanos(deadline_ns + GRACE_NS - now);
            let responses = &mut self.responses;
            let look = || responses.has_frame().unwrap_or(true);
            let wait = || {
                let bell = bell_of(&self.bell);
                if self.limited && longest >= bell::LONGEST_SLEEP {
                    bell::wait_limited(bell)
                } else {
                    bell::wait(bell, longest)
                }
            };
            let woken = doorbell::sleep(word, self.ticket, look, wait);
            self.spin.slept(now_ns() - now);
            // A long sleep comes back too: the caller looks at what else it has to do (Python runs signal handlers; one
            // that arrived just before the sleep did not interrupt it) and waits on.
            let back = match woken {
                Ok(Woken::Interrupted) => true,
                Ok(Woken::TimedOut) => longest >= bell::LONGEST_SLEEP,
                _ => false,
            };
            self.note_wake(woken);
            if back {
                self.session.look_for_scans();
            }
            if back && !self.responses.has_frame().unwrap_or(true) {
                return Waited::Interrupted;
            }
        }
    }

    /// Announces sleep to the worker and looks once more: `true`, nothing is there and the doorbell will ring.
    pub fn arm(&mut self) -> bool {
        self.ticket += 1;
        doorbell::announce(self.word(channel::RESPONSE_SLEEP), self.ticket);
        !self.responses.has_frame().unwrap_or(true)
    }

    /// Takes the doorbell's bytes.
    pub fn drain_bell(&mut self) {
        let woken = bell::drain(bell_of(&self.bell));
        self.note_wake(woken);
    }

    fn note_wake(&mut self, woken: std::io::Result<Woken>) {
        match woken {
            Ok(Woken::HungUp) => self.hung_up("it closed its end of the doorbell"),
            Err(error) => self.hung_up(&error.to_string()),
            Ok(Woken::Look | Woken::TimedOut | Woken::Interrupted) => {}
        }
    }

    /// Remembers that the worker is gone, once what it had still answered is read.
    fn hung_up(&mut self, what: &str) {
        if !matches!(self.responses.has_frame(), Ok(true)) {
            self.broken.get_or_insert_with(|| what.to_owned());
            self.session.mark_dead();
        }
    }

    /// Whether the worker is gone.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// The next answer that somebody still waits for.
    pub fn next_reply(&mut self) -> Option<(u64, Reply)> {
        loop {
            match self.responses.pop(kind::RESPONSE, &mut self.frame) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(fault) => {
                    self.broken.get_or_insert_with(|| fault.to_string());
                    return None;
                }
            }
            match self.accept() {
                Ok(Some(reply)) => return Some((reply.head.id, reply)),
                Ok(None) => {}
                Err(what) => {
                    self.broken.get_or_insert(what);
                    return None;
                }
            }
        }
    }

    /// Reads what came for requests that nobody waits for any more. For a channel on which nobody waits.
    pub(super) fn drop_late_answers(&mut self) {
        while self.next_reply().is_some() {}
    }

    /// Checks the frame just popped. `None`: its caller waits no longer.
    fn accept(&mut self) -> Result<Option<Reply>, String> {
        let frame = std::mem::take(&mut self.frame);
        let Some((head, rest)) = frame.split_first_chunk::<{ ResponseHead::BYTES }>() else {
            return Err(format!("response frame of {} bytes", frame.len()));
        };
        let head = ResponseHead::decode(head);
        let outcome = Outcome::from_code(head.outcome).ok_or_else(|| format!("outcome {}", head.outcome))?;
        let open = self.open.get_mut(head.cell as usize).ok_or_else(|| format!("cell {}", head.cell))?;
        let Some(open) = open.take_if(|open| open.id == head.id) else {
            return Err(format!("an answer to request {}, which is not open in cell {}", head.id, head.cell));
        };
        cell::release(self.cell(head.cell));
        self.free_cells.push(head.cell);
        let body = if head.flags & response_flag::LEASED != 0 {
            let handle = rest.first_chunk::<{ Handle::BYTES }>().ok_or("a leased answer without a handle")?;
            Body::Leased(self.session.lease(Handle::decode(handle), head.lease)?)
        } else {
            Body::Inline(frame)
        };
        Ok((!open.abandoned).then_some(Reply { outcome, head, body }))
    }

    /// Takes a request back: its cell says so, the worker is told, its late answer will be dropped.
    pub fn abandon(&mut self, id: u64) -> Option<CellState> {
        let index = self.open.iter().position(|open| open.as_ref().is_some_and(|open| open.id == id))?;
        let was = cell::cancel(self.cell(index as u32), id);
        if let Some(open) = &mut self.open[index] {
            open.abandoned = true;
        }
        self.wake_worker();
        was
    }

    fn wake_worker(&mut self) {
        let segment = &self.session.segment;
        let ring = || bell::ring(bell_of(&self.bell));
        if let Err(error) = attention::call(&segment.map, &segment.geometry, self.index, ring) {
            self.hung_up(&error.to_string());
        }
    }

    /// Gives up on a request whose time is over.
    pub fn time_out(&mut self, id: u64) -> Failure {
        let was = self.abandon(id);
        let state = match was {
            Some(CellState::Queued) => "it was still queued",
            Some(CellState::Running) => "it was running",
            _ => "its answer was on the way",
        };
        let name = &self.session.segment.name;
        Failure::new(Outcome::Timeout, format!("request {id} to {name} passed its deadline: {state}"))
    }

    /// What became of a request whose worker is gone: the cell is the evidence.
    pub fn lose(&mut self, id: u64) -> Failure {
        let what = self.broken.clone().unwrap_or_default();
        let idempotent = self.open.iter().flatten().any(|open| open.id == id && open.idempotent);
        let was = self.abandon(id);
        Failure { idempotent, ..self.gone(&what, was != Some(CellState::Queued)) }
    }

    fn gone(&self, what: &str, may_have_run: bool) -> Failure {
        let name = &self.session.segment.name;
        let pid = self.session.segment.header.worker_pid;
        let (outcome, state) = if may_have_run {
            (Outcome::WorkerLost, "the request may have run")
        } else {
            (Outcome::Unavailable, "the request never ran")
        };
        let message = format!(
            "the worker of {name} (pid {pid}) is gone ({what}); {state}; hint: start it again, clients find it by themselves"
        );
        Failure { outcome, message, submitted: true, idempotent: false }
    }

    /// Ids of requests that somebody waits for.
    pub fn awaited(&self) -> Vec<u64> {
        self.open.iter().flatten().filter(|open| !open.abandoned).map(|open| open.id).collect()
    }

    /// Ids of requests whose time is over at `now`, or all if the worker is gone.
    pub fn overdue(&self, now: u64) -> Vec<u64> {
        let all = self.broken.is_some();
        let late = |open: &&Open| !open.abandoned && (all || now >= open.deadline_ns.saturating_add(GRACE_NS));
        self.open.iter().flatten().filter(late).map(|open| open.id).collect()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.checked_out {
            self.session.no_longer_in_use();
        }
        // The worker may still be reading what these requests carry.
        self.open.iter().flatten().flat_map(|open| &open.blocks).for_each(|block| block.abandon());
        let Some(bell) = self.bell.take() else { return };
        if self.session.is_mine() {
            checkout::give_back(self.word(channel::CHECKOUT), self.generation);
            self.session.channel_closed(bell.as_raw_fd());
        } else {
            // A forked child has closed the number already; it may be another file's by now.
            let _ = bell.into_raw_fd();
        }
    }
}

fn bell_of(bell: &Option<OwnedFd>) -> BorrowedFd<'_> {
    let Some(bell) = bell else { unreachable!("taken by drop alone") };
    bell.as_fd()
}
