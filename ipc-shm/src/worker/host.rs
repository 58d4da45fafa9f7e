//! What the worker's threads share: the segment, the worker's own blocks, and how an answer is written.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::eventfd::EventFd;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};

use crate::arena::{Arena, OWNER_WORKER};
use crate::bell;
use crate::block::{Block, Blocks, NoBlock};
use crate::cell;
use crate::doorbell;
use crate::frame::{RESERVED_RESPONSE, ResponseHead, kind, response_flag};
use crate::layout::{channel, totals};
use crate::outcome::Outcome;
use crate::ring::RingFault;
use crate::segment::Segment;
use crate::stats;
use crate::table::Encoded;

use super::inflight::{Answer, AnswerBody, Inflight, Placed};
use super::peer::{Peer, ReplyPath, ReplyRing};
use super::resident::Resident;

/// Room that stays free in a response ring for the padding that one frame at its end may need.
const WRAP_SLACK: usize = RESERVED_RESPONSE;

/// Why a table could not be put into the arena.
#[derive(Debug, thiserror::Error)]
pub enum NotResident {
    /// It has no Arrow form.
    #[error("it cannot be encoded: {0}")]
    Encoding(#[from] ArrowError),
    /// There is no room.
    #[error(transparent)]
    NoRoom(#[from] NoBlock),
}

/// The worker, as all of its threads see it.
#[derive(Debug)]
pub struct Host {
    /// The bytes.
    pub segment: Segment,
    /// The worker's own blocks: results.
    pub blocks: Arc<Blocks>,
    /// Requests that wait for a thread. The engine keeps it.
    pub queued: AtomicUsize,
    /// Requests that run on though their time was up long ago: nobody waits for them, and nothing stops them. The engine
    /// keeps it.
    pub overdue: AtomicUsize,
    /// Wakes the poller, once there is one.
    pub(super) wake: OnceLock<Arc<EventFd>>,
}

impl Host {
    /// The host of a segment.
    pub fn new(segment: Segment) -> Arc<Self> {
        let arena = Arena::new(segment.map.clone(), segment.geometry, OWNER_WORKER);
        let blocks = Blocks::new(arena, u64::MAX);
        Arc::new(Self {
            segment,
            blocks,
            queued: AtomicUsize::new(0),
            overdue: AtomicUsize::new(0),
            wake: OnceLock::new(),
        })
    }

    /// A block for a result. If the arena is full, what `peer` has let go of is collected first.
    pub fn result_block(&self, peer: &Peer, len: usize) -> Result<Block, NoBlock> {
        self.blocks.allocate(len).or_else(|_| {
            peer.collect_released(&self.segment.map, &self.segment.geometry);
            self.blocks.allocate(len)
        })
    }

    /// Puts a table of the worker's own into the arena, for everybody.
    pub fn make_resident(
        &self,
        schema: &Schema,
        batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
    ) -> Result<Arc<Resident>, NotResident> {
        let encoded = Encoded::new(schema, batches)?;
        let block = self.blocks.allocate_run(encoded.len())?;
        encoded.write_to(&block);
        Ok(Resident::new(self.segment.map.clone(), block))
    }

    /// Whether one more request of this channel may be taken: it needs a reserved response frame.
    pub(super) fn reserve_answer(&self, path: &ReplyPath) -> Result<bool, RingFault> {
        let mut ring = path.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let taken = ring.taken as usize;
        let fits = ring.producer.fits(RESERVED_RESPONSE, taken * RESERVED_RESPONSE + WRAP_SLACK)?;
        ring.taken += u32::from(fits);
        Ok(fits)
    }

    /// Writes the one answer of a request and wakes its client.
    pub(super) fn answer(&self, request: &Inflight, answer: Answer) {
        let (map, geometry) = (&self.segment.map, &self.segment.geometry);
        let path = &request.path;
        let word = map.u64(geometry.cell(path.index, request.head.cell));
        let answer = if cell::finish(word, request.head.id) {
            answer
        } else {
            Answer::failure(Outcome::Cancelled, "the caller took it back")
        };
        let mut outcome = answer.outcome;
        if answer.metrics.copied_bytes > 0 {
            stats::count(map, geometry, totals::COPIED_BYTES, answer.metrics.copied_bytes);
        }
        if !path.peer.gone.load(Ordering::Acquire) {
            // A long answer goes into the arena before the ring is locked: the poller needs the lock for every request.
            let answer = self.place(&path.peer, answer);
            let mut ring = path.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            ring.taken -= 1;
            let written = self.write(&mut ring, request, answer);
            drop(ring);
            if let Ok(told) = written {
                outcome = told;
            }
            if let Err(fault) = written {
                path.peer.cut.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(fault.to_string());
            } else {
                let sleep = map.u64(geometry.channel(path.index) + channel::RESPONSE_SLEEP);
                // A client that hung up is noticed by the poller; its answer simply stays unread.
                if let Ok(true) = doorbell::ring_if_asleep(sleep, || bell::ring(path.bell.as_fd())) {
                    stats::count(map, geometry, totals::DOORBELLS, 1);
                }
            }
        }
        stats::count_outcome(map, geometry, outcome);
        let was_last = path.peer.in_flight.fetch_sub(1, Ordering::AcqRel) == 1;
        if was_last && path.peer.gone.load(Ordering::Acquire) {
            // What it had can come back now, not at the next full look (which finds what is missed here).
            let _ = self.wake.get().map(|wake| wake.write(1));
        }
    }

    /// Puts an answer that is too long for the ring into the arena. Without room there, it becomes what says so.
    fn place(&self, peer: &Peer, answer: Answer) -> Answer {
        let most_inline = self.segment.geometry.ring_bytes as usize / 8;
        match &answer.body {
            AnswerBody::Bytes(bytes) if ResponseHead::BYTES + bytes.len() > most_inline => {
                match self.result_block(peer, bytes.len()) {
                    Ok(block) => {
                        block.write(0, bytes);
                        Answer { body: AnswerBody::Placed(Placed::Block(block)), ..answer }
                    }
                    Err(full) => answer.without_room(&full.to_string()),
                }
            }
            _ => answer,
        }
    }

    /// Inline if there is room beyond what is reserved for others, else in the arena under a lease; if neither has room,
    /// the reserved frame says so. Returns the outcome that was told.
    fn write(&self, ring: &mut ReplyRing, request: &Inflight, mut answer: Answer) -> Result<Outcome, RingFault> {
        let keep = ring.taken as usize * RESERVED_RESPONSE + WRAP_SLACK;
        if let AnswerBody::Bytes(bytes) = &answer.body {
            let len = ResponseHead::BYTES + bytes.len();
            let keep = if len <= RESERVED_RESPONSE { 0 } else { keep };
            if let Some(room) = ring.producer.reserve(len, keep)? {
                room.commit(&[&head_of(request, &answer, len).encode(), bytes]);
                return Ok(answer.outcome);
            }
            match self.result_block(&request.path.peer, bytes.len()) {
                Ok(block) => {
                    block.write(0, bytes);
                    answer.body = AnswerBody::Placed(Placed::Block(block));
                }
                Err(full) => answer = answer.without_room(&full.to_string()),
            }
        }
        let valid = if matches!(answer.body, AnswerBody::Table(_)) { response_flag::VALID } else { 0 };
        let (placed, mut answer) = match answer.body {
            AnswerBody::Placed(placed) | AnswerBody::Table(placed) => {
                (Some(placed), Answer { body: AnswerBody::Bytes(Vec::new()), ..answer })
            }
            AnswerBody::Bytes(_) => (None, answer),
        };
        if let Some(placed) = placed {
            let handle = placed.handle();
            let peer = &request.path.peer;
            let lent = peer.lend(placed).or_else(|placed| {
                // What the client has let go of since the last look makes room.
                peer.collect_released(&self.segment.map, &self.segment.geometry);
                peer.lend(placed)
            });
            match lent {
                Ok(lease) => {
                    let mut head = head_of(request, &answer, ResponseHead::BYTES + handle.encode().len());
                    head.flags |= response_flag::LEASED | valid;
                    head.lease = lease;
                    return self.commit_reserved(ring, &head, &handle.encode()).map(|()| answer.outcome);
                }
                Err(_) => {
                    let most = self.segment.geometry.leases_per_session;
                    let text = format!("this process holds all of its {most} results; hint: let go of tables");
                    answer = answer.without_room(&text);
                }
            }
        }
        let AnswerBody::Bytes(text) = &answer.body else { unreachable!("taken out above") };
        let head = head_of(request, &answer, ResponseHead::BYTES + text.len());
        self.commit_reserved(ring, &head, text).map(|()| answer.outcome)
    }

    /// Writes into the frame that was reserved when the request was taken.
    fn commit_reserved(&self, ring: &mut ReplyRing, head: &ResponseHead, rest: &[u8]) -> Result<(), RingFault> {
        let len = head.len as usize;
        match ring.producer.reserve(len, 0)? {
            Some(room) => {
                room.commit(&[&head.encode(), rest]);
                Ok(())
            }
            // Only a peer that moved its head back could take the reserved room away.
            None => Err(RingFault::Length { len: len as u64, at: 0, committed: 0 }),
        }
    }
}

fn head_of(request: &Inflight, answer: &Answer, len: usize) -> ResponseHead {
    ResponseHead {
        len: len as u32,
        kind: kind::RESPONSE,
        id: request.head.id,
        cell: request.head.cell,
        flags: 0,
        plans: answer.metrics.plans,
        outcome: answer.outcome as u8,
        codec: answer.codec,
        status: answer.status,
        queue_depth: answer.metrics.queue_depth.min(u16::MAX as u32) as u16,
        queue_us: answer.metrics.queue_us,
        exec_us: answer.metrics.exec_us,
        allocs: answer.metrics.allocs,
        alloc_bytes: answer.metrics.alloc_bytes,
        copied_bytes: answer.metrics.copied_bytes,
        text_or_age: match answer.outcome {
            Outcome::Ok => answer.metrics.table_age_ms.map_or(0, |age| age.saturating_add(1)),
            _ => answer.text_len,
        },
        lease: 0,
    }
}

impl Answer {
    /// What is told when there is no room for it: an entry that has run is Internal, not Busy (who is told Busy sends
    /// again); a failure keeps its outcome and as much of its text as the reserved frame holds.
    fn without_room(self, why: &str) -> Self {
        let most = RESERVED_RESPONSE - ResponseHead::BYTES;
        let (outcome, mut text) = match (self.outcome, self.body) {
            (Outcome::Ok, _) => (Outcome::Internal, why.as_bytes().to_vec()),
            (outcome, AnswerBody::Bytes(mut body)) => {
                body.truncate(self.text_len as usize);
                (outcome, body)
            }
            (outcome, AnswerBody::Placed(_) | AnswerBody::Table(_)) => (outcome, why.as_bytes().to_vec()),
        };
        let mut end = text.len().min(most);
        while end < text.len() && text[end] & 0xc0 == 0x80 {
            end -= 1; // not within a character
        }
        text.truncate(end);
        let text_len = text.len() as u32;
        Answer { outcome, codec: 0, text_len, body: AnswerBody::Bytes(text), ..self }
    }
}
