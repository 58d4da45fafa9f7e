//! A request's variable parts: what travels in the frame, and what is put into the arena first.

use std::sync::Arc;

use crate::Outcome;
use crate::frame::{NAME_MAX, RequestHead, request_flag};
use crate::trace::TraceContext;

use super::holdings::ClientBlock;
use super::request::{Failure, Payload, Request};
use super::session::Session;

/// Params longer than this travel in the arena.
pub(super) const INLINE_PARAMS: usize = 2048;

/// A request's variable parts, placed.
pub(super) struct Parts<'a> {
    pub flags: u16,
    pub params: &'a [u8],
    pub names: String,
    pub handles: Vec<u8>,
    pub payload: &'a [u8],
    pub blocks: Vec<Arc<ClientBlock>>,
    pub trace: Option<[u8; TraceContext::BYTES]>,
}

impl<'a> Parts<'a> {
    /// Puts into the arena what is too long for the ring.
    pub fn place(session: &Arc<Session>, request: &Request<'a>) -> Result<Self, Failure> {
        let mut parts = Parts {
            flags: if session.is_idempotent(request) { request_flag::IDEMPOTENT } else { 0 },
            params: request.params,
            names: String::new(),
            handles: Vec::new(),
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
            parts.add(copied(session, request.params)?);
        }
        let most_inline = session.segment.geometry.ring_bytes as usize / 8;
        match request.payload {
            Payload::Bytes(bytes) => {
                parts.payload = bytes;
                if parts.len(request) > most_inline {
                    parts.payload = &[];
                    parts.flags |= request_flag::HANDLES;
                    parts.add(copied(session, bytes)?);
                }
            }
            Payload::Block(block) => {
                parts.flags |= request_flag::HANDLES;
                parts.add(in_session(session, block)?);
            }
            Payload::Tables(tables) => {
                parts.flags |= request_flag::NAMED;
                for (name, block) in tables {
                    if !parts.names.is_empty() {
                        parts.names.push('\0');
                    }
                    parts.names.push_str(name);
                    parts.add(in_session(session, block)?);
                }
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

    fn add(&mut self, block: Arc<ClientBlock>) {
        self.handles.extend_from_slice(&block.block().handle().encode());
        self.blocks.push(block);
    }

    /// The bytes of its trace context, or none.
    pub fn trace(&self) -> &[u8] {
        self.trace.as_ref().map_or(&[], |trace| trace)
    }

    /// Bytes of the frame.
    pub fn len(&self, request: &Request<'_>) -> usize {
        RequestHead::BYTES
            + request.entry.len()
            + self.params.len()
            + self.names.len()
            + self.handles.len()
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
