//! A single-producer, single-consumer byte ring of frames.
//!
//! ```text
//!          head                 tail            positions are u64, modulo 2^64; place = position & (capacity - 1)
//!   ........|frame|frame|frame  |.........      free room = capacity - (tail - head)
//! ```
//! A frame is contiguous and begins at a multiple of 64. Where it would cross the ring's end, a padding frame fills the
//! rest and the frame begins at place 0. One Release store of the tail commits it; the consumer's Acquire load of the
//! tail pairs with it, so whoever sees the position sees the bytes. The other way round, the consumer's Release store of
//! the head after copying pairs with the producer's Acquire load before it overwrites. Each of the four is needed: see
//! `spec/proofs.md`.
//!
//! Each side keeps its own position in private memory (what a peer writes into the shared word cannot move it) and a
//! cached copy of the other's, refreshed only when the cached one says "full" or "empty". The idea of cached positions is
//! from rigtorp/SPSCQueue and rtrb.

use std::sync::atomic::Ordering;

use crate::frame::kind;
use crate::layout::{ALIGN, Geometry, channel};
use crate::mapping::SharedMapping;

/// The peer wrote something into the ring that no correct peer writes. The session is cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// The other side's position went backwards or beyond the capacity.
    #[error("ring position {theirs} of the peer does not fit own position {own} and capacity {capacity}")]
    Position {
        /// This side's position.
        own: u64,
        /// What the peer's word held.
        theirs: u64,
        /// Bytes of the ring.
        capacity: u64,
    },
    /// A frame's length reaches beyond what was committed, or beyond the ring's end, or is shorter than its head.
    #[error("frame of {len} bytes at position {at} does not fit the {committed} committed bytes")]
    Length {
        /// What the frame says.
        len: u64,
        /// Where it begins.
        at: u64,
        /// Bytes between it and the committed end.
        committed: u64,
    },
    /// A frame of a kind that does not belong here.
    #[error("frame of unknown kind {0}")]
    Kind(u32),
}

/// Where a ring's parts lie in the segment.
#[derive(Debug, Clone, Copy)]
pub struct RingPlace {
    /// Offset of the bytes.
    pub data: usize,
    /// Bytes, a power of two.
    pub capacity: usize,
    /// Offset of the head word.
    pub head: usize,
    /// Offset of the tail word.
    pub tail: usize,
}

impl RingPlace {
    /// A channel's request ring: the client produces, the worker consumes.
    pub fn of_requests(geometry: &Geometry, index: u32) -> Self {
        let slot = geometry.channel(index);
        Self {
            data: geometry.request_ring(index),
            capacity: geometry.ring_bytes as usize,
            head: slot + channel::REQUEST_HEAD,
            tail: slot + channel::REQUEST_TAIL,
        }
    }

    /// A channel's response ring: the worker produces, the client consumes.
    pub fn of_responses(geometry: &Geometry, index: u32) -> Self {
        let slot = geometry.channel(index);
        Self {
            data: geometry.response_ring(index),
            capacity: geometry.ring_bytes as usize,
            head: slot + channel::RESPONSE_HEAD,
            tail: slot + channel::RESPONSE_TAIL,
        }
    }
}

fn padded(len: usize) -> u64 {
    len.next_multiple_of(ALIGN) as u64
}

/// The side that writes frames.
#[derive(Debug)]
pub struct Producer {
    map: SharedMapping,
    place: RingPlace,
    tail: u64,
    cached_head: u64,
}

/// Room for one frame, not yet visible to the consumer. Dropping it without `commit` leaves no trace.
#[derive(Debug)]
#[must_use = "an uncommitted frame is never seen"]
pub struct Room<'ring> {
    ring: &'ring mut Producer,
    at: usize,
    len: usize,
    next_tail: u64,
}

impl Producer {
    /// Takes the producing side of a new ring. Positions begin at zero: what the shared words hold is not asked.
    pub fn new(map: SharedMapping, place: RingPlace) -> Self {
        Self::starting_at(map, place, 0)
    }

    /// The same for a ring whose positions begin elsewhere: a multiple of 64.
    pub fn starting_at(map: SharedMapping, place: RingPlace, position: u64) -> Self {
        Self { map, place, tail: position, cached_head: position }
    }

    fn capacity(&self) -> u64 {
        self.place.capacity as u64
    }

    /// Bytes the next frame may take, padding at the wrap included, as of the last look at the head.
    fn free(&self) -> u64 {
        self.capacity() - self.tail.wrapping_sub(self.cached_head)
    }

    fn refresh(&mut self) -> Result<(), RingFault> {
        let head = self.map.u64(self.place.head).load(Ordering::Acquire);
        if head.wrapping_sub(self.cached_head) > self.tail.wrapping_sub(self.cached_head) {
            return Err(RingFault::Position { own: self.tail, theirs: head, capacity: self.capacity() });
        }
        self.cached_head = head;
        Ok(())
    }

    /// Bytes that a frame of `len` takes from here: itself, and the padding if it would cross the end.
    fn cost(&self, len: usize) -> (u64, u64) {
        let frame = padded(len);
        let to_end = self.capacity() - (self.tail & (self.capacity() - 1));
        (if frame > to_end { to_end } else { 0 }, frame)
    }

    /// Whether a frame of `len` bytes fits while `keep` bytes stay free behind it.
    pub fn fits(&mut self, len: usize, keep: usize) -> Result<bool, RingFault> {
        let (pad, frame) = self.cost(len);
        let need = pad + frame + keep as u64;
        if need > self.free() {
            self.refresh()?;
        }
        Ok(need <= self.free())
    }

    /// Room for a frame of `len` bytes, or `None` while the ring is too full (`keep` bytes must stay free behind it).
    pub fn reserve(&mut self, len: usize, keep: usize) -> Result<Option<Room<'_>>, RingFault> {
        if !self.fits(len, keep)? {
            return Ok(None);
        }
        let (pad, frame) = self.cost(len);
        let mask = self.capacity() - 1;
        if pad > 0 {
            let place = self.place.data + (self.tail & mask) as usize;
            self.map.write(place, &(pad | (kind::PAD as u64) << 32).to_le_bytes());
        }
        let start = self.tail.wrapping_add(pad);
        let at = self.place.data + (start & mask) as usize;
        Ok(Some(Room { at, len, next_tail: start.wrapping_add(frame), ring: self }))
    }

    /// Whether everything written has been consumed.
    pub fn is_drained(&mut self) -> Result<bool, RingFault> {
        self.refresh()?;
        Ok(self.cached_head == self.tail)
    }
}

impl Room<'_> {
    /// Writes the frame's parts one after the other and commits it: the Release store is the moment it exists.
    pub fn commit(self, parts: &[&[u8]]) {
        let mut at = self.at;
        for part in parts {
            self.ring.map.write(at, part);
            at += part.len();
        }
        assert_eq!(at - self.at, self.len, "a frame's parts add up to what was reserved");
        self.ring.tail = self.next_tail;
        self.ring.map.u64(self.ring.place.tail).store(self.next_tail, Ordering::Release);
    }
}

/// The side that reads frames.
#[derive(Debug)]
pub struct Consumer {
    map: SharedMapping,
    place: RingPlace,
    head: u64,
    cached_tail: u64,
}

impl Consumer {
    /// Takes the consuming side of a new ring, at position zero.
    pub fn new(map: SharedMapping, place: RingPlace) -> Self {
        Self::starting_at(map, place, 0)
    }

    /// The same for a ring whose positions begin elsewhere: a multiple of 64.
    pub fn starting_at(map: SharedMapping, place: RingPlace, position: u64) -> Self {
        Self { map, place, head: position, cached_tail: position }
    }

    fn refresh(&mut self) -> Result<(), RingFault> {
        let tail = self.map.u64(self.place.tail).load(Ordering::Acquire);
        let capacity = self.place.capacity as u64;
        // Asked only when all that was seen is consumed; so a tail that went back lies behind the own head, modulo 2^64 far
        // beyond the capacity.
        if tail.wrapping_sub(self.head) > capacity || !tail.is_multiple_of(ALIGN as u64) {
            return Err(RingFault::Position { own: self.head, theirs: tail, capacity });
        }
        self.cached_tail = tail;
        Ok(())
    }

    /// Whether a frame is waiting.
    #[inline]
    pub fn has_frame(&mut self) -> Result<bool, RingFault> {
        if self.head == self.cached_tail {
            self.refresh()?;
        }
        Ok(self.head != self.cached_tail)
    }

    /// Copies the next frame of `kind` into `frame` (replacing what it held) and gives its room back.
    /// `false`: nothing waits.
    pub fn pop(&mut self, kind: u32, frame: &mut Vec<u8>) -> Result<bool, RingFault> {
        let capacity = self.place.capacity as u64;
        let mut padded = false;
        while self.has_frame()? {
            let place = (self.head & (capacity - 1)) as usize;
            let at = self.place.data + place;
            let word = self.map.load_once(at);
            let (len, found) = (word as u32 as u64, (word >> 32) as u32);
            let committed = self.cached_tail.wrapping_sub(self.head);
            let to_end = capacity - place as u64;
            if len < 8 || self::padded(len as usize) > committed.min(to_end) {
                return Err(RingFault::Length { len, at: self.head, committed: committed.min(to_end) });
            }
            if found == kind::PAD {
                // A correct producer pads up to the end and goes on at place 0: one pad in a row, never a shorter one.
                if padded || self::padded(len as usize) != to_end {
                    return Err(RingFault::Kind(found));
                }
                padded = true;
                self.advance(self::padded(len as usize));
                continue;
            }
            if found != kind {
                return Err(RingFault::Kind(found));
            }
            frame.clear();
            self.map.read_to_vec(at, len as usize, frame);
            // The copy of the length must agree with the one that was checked.
            frame[..8].copy_from_slice(&word.to_le_bytes());
            self.advance(self::padded(len as usize));
            return Ok(true);
        }
        Ok(false)
    }

    fn advance(&mut self, by: u64) {
        self.head = self.head.wrapping_add(by);
        self.map.u64(self.place.head).store(self.head, Ordering::Release);
    }
}
