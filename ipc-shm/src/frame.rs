//! What travels in the rings: a request's head and a response's head, then their variable parts.
//!
//! ```text
//! request   | RequestHead 64 | entry name | params | names | handles 32 each | payload | trace 25 |
//! response  | ResponseHead 64 | body, or text and details                              |
//! ```
//! A frame is contiguous, begins at a multiple of 64 and is copied out of the ring before a byte of it is believed.

use crate::outcome::Outcome;
use crate::record::record;

/// What a frame is, in its first word beside its length.
pub mod kind {
    /// The rest of the ring up to its end: skip.
    pub const PAD: u32 = 0;
    /// A request.
    pub const REQUEST: u32 = 1;
    /// A response.
    pub const RESPONSE: u32 = 2;
}

/// Request flags.
pub mod request_flag {
    /// Running it twice does no harm: it may be sent again after the worker was lost.
    pub const IDEMPOTENT: u16 = 1;
    /// The payload lies in the arena: `handles` say where.
    pub const HANDLES: u16 = 2;
    /// The handles are tables, each with a name in `names`.
    pub const NAMED: u16 = 4;
    /// The first handle is not payload but params, which were too long to travel inline.
    pub const PARAMS_HANDLE: u16 = 8;
    /// The frame ends in a [`TraceContext`](crate::TraceContext).
    pub const TRACED: u16 = 16;
}

/// Every request flag that there is.
pub const REQUEST_FLAGS: u16 = {
    use request_flag::{HANDLES, IDEMPOTENT, NAMED, PARAMS_HANDLE, TRACED};
    IDEMPOTENT | HANDLES | NAMED | PARAMS_HANDLE | TRACED
};

/// Response flags.
pub mod response_flag {
    /// The body lies in the arena under a lease; the frame carries one [`super::Handle`].
    pub const LEASED: u8 = 1;
    /// The body is a table that the worker has validated in full or written itself: it need not be validated again.
    pub const VALID: u8 = 2;
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// MsgPack.
    MsgPack = 1,
    /// JSON, UTF-8.
    Json = 2,
    /// Bytes as they are.
    Raw = 3,
    /// An Arrow IPC stream, uncompressed.
    Arrow = 4,
}

impl Codec {
    /// The codec of that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::MsgPack,
            2 => Self::Json,
            3 => Self::Raw,
            4 => Self::Arrow,
            _ => return None,
        })
    }

    /// Its name in messages and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::MsgPack => "msgpack",
            Self::Json => "json",
            Self::Raw => "raw",
            Self::Arrow => "arrow",
        }
    }
}

record! {
    /// The fixed part of a request frame.
    RequestHead: 64 {
        /// Bytes of the frame, this head included, padding not.
        len: u32,
        /// [`kind::REQUEST`].
        kind: u32,
        /// Unique within the session; 56 bits.
        id: u64,
        /// CLOCK_MONOTONIC nanoseconds after which nobody waits; 0: the entry's own limit.
        deadline_ns: u64,
        /// CLOCK_MONOTONIC nanoseconds when it was committed: the worker's `queue_us` counts from here.
        sent_ns: u64,
        /// The request's cell on this channel.
        cell: u32,
        /// [`request_flag`]s.
        flags: u16,
        /// [`Codec`] of the payload.
        codec: u8,
        /// [`Codec`] wanted for the answer; 0: the payload's.
        accept: u8,
        /// Bytes of the entry's name.
        name_len: u16,
        /// Handles that follow.
        handles: u16,
        /// Bytes of params (a MsgPack map, or none).
        params_len: u32,
        /// Bytes of table names joined by NUL.
        names_len: u32,
        /// Bytes of inline payload.
        payload_len: u32,
        /// Zero.
        reserved: u64,
    }
}

record! {
    /// The fixed part of a response frame.
    ResponseHead: 64 {
        /// Bytes of the frame, this head included, padding not.
        len: u32,
        /// [`kind::RESPONSE`].
        kind: u32,
        /// The request's id.
        id: u64,
        /// The request's cell.
        cell: u32,
        /// [`response_flag`]s.
        flags: u8,
        /// Plans that SQL made for it: 0 where a kept one served.
        plans: u8,
        /// [`crate::Outcome`].
        outcome: u8,
        /// [`Codec`] of the body.
        codec: u8,
        /// HTTP status that the entry chose, or 0.
        status: u16,
        /// Requests that waited when this one was taken.
        queue_depth: u16,
        /// Microseconds between commit and start.
        queue_us: u32,
        /// Microseconds of running.
        exec_us: u32,
        /// Heap allocations while running.
        allocs: u32,
        /// Bytes of them.
        alloc_bytes: u64,
        /// Bytes of tables that could not be read in place.
        copied_bytes: u64,
        /// Not ok: bytes of text; what follows in the frame or block are details, MsgPack. Ok: see
        /// [`table_age_ms`](ResponseHead::table_age_ms), and 1 more; 0 where there is none.
        text_or_age: u32,
        /// The lease's number (when leased).
        lease: u32,
    }
}

impl ResponseHead {
    /// Bytes of text at the body's start: none of an ok answer.
    pub fn text_len(&self) -> usize {
        if self.outcome == Outcome::Ok as u8 { 0 } else { self.text_or_age as usize }
    }

    /// Milliseconds since the rows were published of the oldest of the worker's own tables that the answer was read from;
    /// none where it was read from none. At most 49 days.
    pub fn table_age_ms(&self) -> Option<u32> {
        if self.outcome == Outcome::Ok as u8 { self.text_or_age.checked_sub(1) } else { None }
    }
}

record! {
    /// Where bytes lie in the arena, and of which generation: enough to notice a stale one.
    Handle: 32 {
        /// Offset in the segment.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The first extent's generation when it was claimed.
        generation: u64,
        /// Counts the owner's blocks: tells two blocks in one extent apart in messages.
        sequence: u64,
    }
}

/// The smallest frame in which every answer can be told: a head and a short text. The worker keeps this much room in the
/// response ring for every request that it has taken.
pub const RESERVED_RESPONSE: usize = 256;
/// The longest entry name, bytes.
pub const NAME_MAX: usize = 200;
