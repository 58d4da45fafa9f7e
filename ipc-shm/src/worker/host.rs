//! What the worker's threads share: the segment, the worker's own blocks, and how an answer is written.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arena::{Arena, OWNER_WORKER};
use crate::block::{Block, Blocks, NoBlock};
use crate::cell::{self, CellState};
use crate::doorbell;
use crate::frame::{RESERVED_RESPONSE, ResponseHead, kind, response_flag};
use crate::layout::{channel, totals};
use crate::outcome::Outcome;
use crate::ring::RingFault;
use crate::segment::Segment;
use crate::stats;

use super::inflight::{Answer, AnswerBody, Inflight};
use super::peer::{Peer, ReplyPath, ReplyRing};

/// Room that stays free in a response ring for the padding that one frame at its end may need.
const WRAP_SLACK: usize = RESERVED_RESPONSE;

/// The worker, as all of its threads see it.
#[derive(Debug)]
pub struct Host {
    /// The bytes.
    pub segment: Segment,
    /// The worker's own blocks: results.
    pub blocks: Arc<Blocks>,
    /// Requests that wait for a thread. The engine keeps it.
    pub queued: AtomicUsize,
}

impl Host {
    /// The host of a segment.
    pub fn new(segment: Segment) -> Arc<Self> {
        let arena = Arena::new(segment.map.clone(), segment.geometry, OWNER_WORKER);
        let blocks = Blocks::new(arena, u64::MAX);
        Arc::new(Self { segment, blocks, queued: AtomicUsize::new(0) })
    }

    /// A block for a result. If the arena is full, what `peer` has let go of is collected first.
    pub fn result_block(&self, peer: &Peer, len: usize) -> Result<Block, NoBlock> {
        self.blocks.allocate(len).or_else(|_| {
            peer.collect_released(&self.segment.map, &self.segment.geometry);
            self.blocks.allocate(len)
        })
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
        let finished = [CellState::Running, CellState::Queued]
            .into_iter()
            .any(|from| cell::advance(word, request.head.id, from, CellState::Done));
        let answer = if finished { answer } else { Answer::failure(Outcome::Cancelled, "the caller took it back") };
        let mut outcome = answer.outcome;
        if answer.metrics.copied_bytes > 0 {
            stats::count(map, geometry, totals::COPIED_BYTES, answer.metrics.copied_bytes);
        }
        if !path.peer.gone.load(Ordering::Acquire) {
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
                if let Ok(true) = doorbell::ring_if_asleep(sleep, path.bell.as_fd()) {
                    stats::count(map, geometry, totals::DOORBELLS, 1);
                }
            }
        }
        stats::count_outcome(map, geometry, outcome);
        path.peer.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Inline if it fits, else in the arena under a lease; if neither has room, the reserved frame says so. Returns the
    /// outcome that was told.
    fn write(&self, ring: &mut ReplyRing, request: &Inflight, answer: Answer) -> Result<Outcome, RingFault> {
        let mut head = ResponseHead {
            kind: kind::RESPONSE,
            id: request.head.id,
            cell: request.head.cell,
            outcome: answer.outcome as u8,
            codec: answer.codec,
            status: answer.status,
            queue_depth: answer.metrics.queue_depth.min(u16::MAX as u32) as u16,
            queue_us: answer.metrics.queue_us,
            exec_us: answer.metrics.exec_us,
            allocs: answer.metrics.allocs,
            alloc_bytes: answer.metrics.alloc_bytes,
            copied_bytes: answer.metrics.copied_bytes,
            text_len: answer.text_len,
            ..ResponseHead::default()
        };
        let keep = ring.taken as usize * RESERVED_RESPONSE + WRAP_SLACK;
        let most_inline = self.segment.geometry.ring_bytes as usize / 8;
        let block = match answer.body {
            AnswerBody::Bytes(bytes) => {
                let len = ResponseHead::BYTES + bytes.len();
                let small = len <= RESERVED_RESPONSE;
                if len <= most_inline
                    && let Some(room) = ring.producer.reserve(len, if small { 0 } else { keep })?
                {
                    head.len = len as u32;
                    room.commit(&[&head.encode(), &bytes]);
                    return Ok(answer.outcome);
                }
                self.result_block(&request.path.peer, bytes.len()).map(|block| {
                    block.write(0, &bytes);
                    block
                })
            }
            AnswerBody::Block(block) => Ok(block),
        };
        let leased = block.map_err(|full| full.to_string()).and_then(|block| {
            let handle = block.handle();
            let most = self.segment.geometry.leases_per_session;
            let lease = request
                .path
                .peer
                .lend(block)
                .map_err(|_| format!("this process holds all of its {most} results; hint: let go of tables"))?;
            Ok((handle, lease))
        });
        match leased {
            Ok((handle, lease)) => {
                head.flags |= response_flag::LEASED;
                head.lease = lease;
                head.len = (ResponseHead::BYTES + handle.encode().len()) as u32;
                self.commit_reserved(ring, &head, &handle.encode())?;
                Ok(answer.outcome)
            }
            Err(text) => {
                // An answer that has no room is Internal, not Busy: the entry has run. A failure keeps its own outcome.
                let outcome = if answer.outcome == Outcome::Ok { Outcome::Internal } else { answer.outcome };
                let text = &text.as_bytes()[..text.floor_char_boundary(RESERVED_RESPONSE - ResponseHead::BYTES)];
                head.outcome = outcome as u8;
                head.text_len = text.len() as u32;
                head.len = (ResponseHead::BYTES + text.len()) as u32;
                self.commit_reserved(ring, &head, text)?;
                Ok(outcome)
            }
        }
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
