//! A request's variable parts: what travels in the frame, and what is put into the arena first.

use std::sync::Arc;

use crate::Outcome;
use crate::frame::{Handle, NAME_MAX, RequestHead, request_flag};
use crate::trace::TraceContext;

use super::holdings::ClientBlock;
use super::request::{Failure, Payload, Request};
use super::session::Session;

/// Params longer than this travel in the arena.
pub(super) const INLINE_PARAMS: usize = 2048;

/// A request's variable parts: planned, so that it is known how long the frame will be, then placed.
pub(super) struct Parts<'a> {
    pub flags: u16,
    pub params: &'a [u8],
    pub names: String,
    /// Of what lies in the arena; empty until it is placed.
    pub handles: Vec<u8>,
    /// How many there will be.
    planned: usize,
    pub payload: &'a [u8],
    pub blocks: Vec<Arc<ClientBlock>>,
    pub trace: Option<[u8; TraceContext::BYTES]>,
}

impl<'a> Parts<'a> {
    /// Decides what travels in the frame and what is too long for it.
    pub fn plan(session: &Arc<Session>, request: &Request<'a>) -> Result<Self, Failure> {
        let mut parts = Parts {
            flags: if session.is_idempotent(request) { request_flag::IDEMPOTENT } else { 0 },
            params: request.params,
            names: String::new(),
            handles: Vec::new(),
            planned: 0,
            payload: &[],
            blocks: Vec::new(),
            trace: request.trace.map(|trace| trace.encode()),
        };
        parts.flags |= if parts.trace.is_some() { request_flag::TRACED } else { 0 };
        if request.entry.len() > NAME_MAX {
            let len = request.entry.len();
            return Err(Failure::new(
                Outcome::UnknownEntry,
                format!("an entry's name has at most {NAME_MAX} bytes, not {len}"),
            ));
        }
        if request.params.len() > INLINE_PARAMS {
            parts.flags |= request_flag::PARAMS_HANDLE;
            parts.params = &[];
            parts.planned += 1;
        }
        let most_inline = session.segment.geometry.ring_bytes as usize / 8;
        match request.payload {
            Payload::Bytes(bytes) => {
                parts.payload = bytes;
                if parts.len(request) > most_inline {
                    parts.payload = &[];
                    parts.flags |= request_flag::HANDLES;
                    parts.planned += 1;
                }
            }
            Payload::Block(_) => {
                parts.flags |= request_flag::HANDLES;
                parts.planned += 1;
            }
            Payload::Tables(tables) => {
                parts.flags |= request_flag::NAMED;
                parts.names = tables.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("\0");
                parts.planned += tables.len();
                let most = session.segment.geometry.ring_bytes as usize / 2;
                if parts.len(request) > most {
                    let count = tables.len();
                    let text = format!("{count} tables with their names do not fit a frame of {most} bytes");
                    return Err(Failure::new(Outcome::InvalidInput, text));
                }
            }
        }
        Ok(parts)
    }

    /// Puts into the arena what is too long for the ring.
    pub fn place(&mut self, session: &Arc<Session>, request: &Request<'_>) -> Result<(), Failure> {
        if self.planned == 0 {
            return Ok(());
        }
        if self.flags & request_flag::PARAMS_HANDLE != 0 {
            self.add(copied(session, request.params)?);
        }
        match request.payload {
            Payload::Bytes(bytes) if self.flags & request_flag::HANDLES != 0 => self.add(copied(session, bytes)?),
            Payload::Bytes(_) => {}
            Payload::Block(block) => self.add(in_session(session, block)?),
            Payload::Tables(tables) => {
                for (_, block) in tables {
                    self.add(in_session(session, block)?);
                }
            }
        }
        debug_assert_eq!(self.handles.len(), self.planned * Handle::BYTES);
        Ok(())
    }

    fn add(&mut self, block: Arc<ClientBlock>) {
        self.handles.extend_from_slice(&block.block().handle().encode());
        self.blocks.push(block);
    }

    /// The bytes of its trace context, or none.
    pub fn trace(&self) -> &[u8] {
        self.trace.as_ref().map_or(&[], |trace| trace)
    }

    /// Bytes of the frame, placed or not.
    pub fn len(&self, request: &Request<'_>) -> usize {
        RequestHead::BYTES
            + request.entry.len()
            + self.params.len()
            + self.names.len()
            + self.planned * Handle::BYTES
            + self.payload.len()
            + self.trace().len()
    }
}

fn copied(session: &Arc<Session>, bytes: &[u8]) -> Result<Arc<ClientBlock>, Failure> {
    let block = session.block(bytes.len())?;
    block.block().write(0, bytes);
    Ok(block)
}

/// The block itself, or, if it lies in a former worker's segment, a copy in this one. In extents of its own, as it may have
/// been there: a worker that takes a table over where it lies takes its whole extents.
fn in_session(session: &Arc<Session>, block: &Arc<ClientBlock>) -> Result<Arc<ClientBlock>, Failure> {
    if Arc::ptr_eq(block.session(), session) {
        return Ok(block.clone());
    }
    let bytes = block.to_vec();
    let copy = session.block_of_own_extents(bytes.len())?;
    copy.block().write(0, &bytes);
    Ok(copy)
}
