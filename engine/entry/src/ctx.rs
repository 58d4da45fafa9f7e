//! What an entry knows about its call, besides the body.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::abi;
use crate::codec::{Codec, decode_msgpack};
use crate::error::{EntryError, Outcome};

/// The call that an entry runs in.
#[derive(Debug)]
pub struct Ctx {
    name: &'static str,
    codec: Codec,
    accept: Codec,
    deadline: Option<Instant>,
    request: *const abi::Request,
}

impl Ctx {
    /// # Safety
    /// `request` stays valid for as long as the context is used.
    pub(crate) unsafe fn new(name: &'static str, codec: Codec, accept: Codec, request: *const abi::Request) -> Self {
        // SAFETY: valid, by the caller's promise.
        let remaining = unsafe { (*request).remaining_ns };
        let deadline = (remaining > 0).then(|| Instant::now() + Duration::from_nanos(remaining));
        Self { name, codec, accept, deadline, request }
    }

    /// The entry's name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The codec of the request's body.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The codec of the answer.
    pub fn accept(&self) -> Codec {
        self.accept
    }

    /// The time that is left, 0 when it is up; `None` without a deadline. The caller is answered at the deadline
    /// whatever the entry does, so longer work is for nobody.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether nobody waits for the answer any more. An atomic load: ask as often as you like.
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: `request` is valid while `self` is used (see `new`), and the host takes this call from the entry's
        // thread; `Ctx` is neither Send nor Sync.
        unsafe { ((*self.request).cancelled)((*self.request).host) != 0 }
    }

    /// For long loops: an error when nobody waits any more or the time is up, so that `ctx.checkpoint()?` ends the
    /// call.
    ///
    /// # Errors
    /// `Cancelled` or `Timeout`.
    pub fn checkpoint(&self) -> Result<(), EntryError> {
        if self.is_cancelled() {
            return Err(EntryError::new(Outcome::Cancelled, format!("entry `{}`: cancelled", self.name)));
        }
        if self.remaining() == Some(Duration::ZERO) {
            return Err(EntryError::new(Outcome::Timeout, format!("entry `{}`: its time is up", self.name)));
        }
        Ok(())
    }

    /// What the Django view passed beside the body (`params=`): values that the server vouches for, such as a tenant's
    /// id. Without any, an empty map is read, so a type whose fields are all optional always works.
    ///
    /// # Errors
    /// `Internal` when they do not fit `T`: the view is wrong then, not the caller.
    pub fn params<'a, T: Deserialize<'a>>(&'a self) -> Result<T, EntryError> {
        const EMPTY_MAP: &[u8] = &[0x80];
        // SAFETY: the span lives as long as the request, which outlives the borrow of `self`.
        let bytes = unsafe { (*self.request).params.bytes() };
        decode_msgpack(if bytes.is_empty() { EMPTY_MAP } else { bytes })
            .map_err(|why| EntryError::internal(format!("entry `{}`: its params are {why}", self.name)))
    }
}
