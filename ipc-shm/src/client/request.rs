//! What a client asks and what it gets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow_buffer::alloc::Allocation;

use crate::Outcome;
use crate::frame::{Codec, ResponseHead, response_flag};
use crate::table::{self, Table};
use crate::trace::TraceContext;

use super::holdings::{ClientBlock, Lease};
use super::parts::INLINE_PARAMS;

/// What a request carries.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Bytes of the caller's: they travel inline when small, else they are copied into the arena once.
    Bytes(&'a [u8]),
    /// A body that was written into the arena.
    Block(&'a Arc<ClientBlock>),
    /// Tables in the arena, each with its name.
    Tables(&'a [(&'a str, Arc<ClientBlock>)]),
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The entry's name.
    pub entry: &'a [u8],
    /// A MsgPack map, or empty.
    pub params: &'a [u8],
    /// The payload.
    pub payload: Payload<'a>,
    /// [`crate::Codec`] of the payload.
    pub codec: u8,
    /// [`crate::Codec`] wanted, or 0 for the payload's.
    pub accept: u8,
    /// Whether running it twice does no harm; `None`: as the entry says.
    pub idempotent: Option<bool>,
    /// Whether it may be sent a second time at all.
    pub resend: bool,
    /// The longest to wait; `None`: the entry's limit, else `fallback_timeout`.
    pub timeout: Option<Duration>,
    /// For an entry without a limit of its own.
    pub fallback_timeout: Duration,
    /// The trace that it belongs to: for the worker's log.
    pub trace: Option<TraceContext>,
}

/// A request that outlives the call it came with, to be sent again: what lies in the arena is shared, the rest copied.
#[derive(Debug)]
pub struct OwnedRequest {
    entry: Vec<u8>,
    params: Vec<u8>,
    inline: Vec<u8>,
    blocks: Vec<Arc<ClientBlock>>,
    names: Option<Vec<String>>,
    codec: u8,
    accept: u8,
    idempotent: Option<bool>,
    resend: bool,
    timeout: Option<Duration>,
    fallback_timeout: Duration,
    trace: Option<TraceContext>,
}

impl OwnedRequest {
    /// Keeps a request whose long parts were placed in `blocks`, as they were sent.
    pub(super) fn of(request: &Request<'_>, blocks: &[Arc<ClientBlock>]) -> Self {
        let (inline, blocks, names) = match request.payload {
            Payload::Tables(tables) => {
                let (names, blocks) = tables.iter().map(|(name, block)| ((*name).to_owned(), block.clone())).unzip();
                (Vec::new(), blocks, Some(names))
            }
            Payload::Block(block) => (Vec::new(), vec![block.clone()], None),
            // A payload that was too long for the ring is the last block; params that were lie before it.
            Payload::Bytes(bytes) => match blocks.get(usize::from(request.params.len() > INLINE_PARAMS)) {
                Some(block) => (Vec::new(), vec![block.clone()], None),
                None => (bytes.to_vec(), Vec::new(), None),
            },
        };
        Self {
            entry: request.entry.to_vec(),
            params: request.params.to_vec(),
            inline,
            blocks,
            names,
            codec: request.codec,
            accept: request.accept,
            idempotent: request.idempotent,
            resend: request.resend,
            timeout: request.timeout,
            fallback_timeout: request.fallback_timeout,
            trace: request.trace,
        }
    }

    /// Calls `run` with the request.
    pub fn with<T>(&self, run: impl FnOnce(&Request<'_>) -> T) -> T {
        let names = self.names.iter().flatten().map(String::as_str);
        let tables: Vec<(&str, Arc<ClientBlock>)> = names.zip(self.blocks.iter().cloned()).collect();
        let payload = match (&self.names, self.blocks.first()) {
            (Some(_), _) => Payload::Tables(&tables),
            (None, Some(block)) => Payload::Block(block),
            (None, None) => Payload::Bytes(&self.inline),
        };
        run(&Request {
            entry: &self.entry,
            params: &self.params,
            payload,
            codec: self.codec,
            accept: self.accept,
            idempotent: self.idempotent,
            resend: self.resend,
            timeout: self.timeout,
            fallback_timeout: self.fallback_timeout,
            trace: self.trace,
        })
    }
}

/// The bytes of a reply.
pub enum Body {
    /// A private copy of the frame; the body begins after the head.
    Inline(Vec<u8>),
    /// In the arena, until the lease is dropped.
    Leased(Lease),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(frame) => write!(f, "Inline({} bytes)", frame.len().saturating_sub(ResponseHead::BYTES)),
            Self::Leased(lease) => lease.fmt(f),
        }
    }
}

/// A worker's answer.
#[derive(Debug)]
pub struct Reply {
    /// How it ended.
    pub outcome: Outcome,
    /// Codec, status, metrics.
    pub head: ResponseHead,
    /// The bytes.
    pub body: Body,
}

impl Reply {
    /// Where the body lies in this process: address and bytes.
    pub fn bytes(&self) -> (*const u8, usize) {
        match &self.body {
            Body::Inline(frame) => {
                let body = &frame[ResponseHead::BYTES..];
                (body.as_ptr(), body.len())
            }
            Body::Leased(lease) => (lease.address(), lease.len()),
        }
    }

    /// A private copy of the body.
    pub fn to_vec(&self) -> Vec<u8> {
        match &self.body {
            Body::Inline(frame) => frame[ResponseHead::BYTES..].to_vec(),
            Body::Leased(lease) => lease.to_vec(),
        }
    }

    /// The table that it holds, read where it lies: its buffers keep the lease.
    pub fn into_table(self) -> Result<Table, Failure> {
        let internal = |what: String| Failure::new(Outcome::Internal, what);
        let Body::Leased(lease) = self.body else {
            return Err(internal("the answer does not lie in the arena".into()));
        };
        if Codec::from_code(self.head.codec) != Some(Codec::Arrow) {
            let name = Codec::from_code(self.head.codec).map_or("unknown", Codec::name);
            return Err(internal(format!("the answer is {name}, not arrow")));
        }
        let (map, offset, len) = (lease.mapping().clone(), lease.offset(), lease.len());
        let owner: Arc<dyn Allocation> = Arc::<Lease>::new(lease);
        let valid = self.head.flags & response_flag::VALID != 0;
        let read = if valid { table::read_valid } else { table::read };
        read(&map, offset, len, &owner).map_err(|fault| internal(fault.to_string()))
    }

    /// The same as a failure, for a reply that is one.
    pub fn into_failure(self) -> Failure {
        let mut text = self.to_vec();
        text.truncate(self.head.text_len());
        let message = String::from_utf8_lossy(&text).into_owned();
        Failure { outcome: self.outcome, message, submitted: true, idempotent: false }
    }
}

/// A request that got no answer from a worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How it ended.
    pub outcome: Outcome,
    /// Names the object, its state and the numbers; ends in `hint:` where one helps.
    pub message: String,
    /// Whether it had been handed to a worker that then went: a successor may be there by now.
    pub submitted: bool,
    /// Whether the request is known to be idempotent.
    pub idempotent: bool,
}

impl Failure {
    /// A failure before anything was handed over.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), submitted: false, idempotent: false }
    }
}
