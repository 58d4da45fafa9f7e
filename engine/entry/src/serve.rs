//! One call through the ABI: decode, run, encode. Nothing unwinds past here.

use std::io::{self, BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi;
use crate::alloc::Taken;
use crate::codec::{Codec, Input, Output, Payload, unwritable};
use crate::ctx::Ctx;
use crate::error::EntryError;

/// Answers are handed to the host in pieces of this size: small ones in one piece.
const PIECE: usize = 16 * 1024;

/// The codecs that a function's input type can be read from; for [`export!`](crate::export).
pub const fn codecs_of<'c, I: Input<'c>, O, F: Fn(I, &'c Ctx) -> Result<O, EntryError>>(_: &F) -> u32 {
    I::CODECS
}

/// A call that the host has begun; for [`export!`](crate::export).
#[derive(Debug)]
pub struct Call {
    ctx: Ctx,
    payload: Payload<'static>,
    reply: *mut abi::Reply,
    before: Taken,
}

impl Call {
    /// Reads the request. `Err` is the outcome of a call that ended here, its failure already told.
    ///
    /// # Safety
    /// The contract of [`abi::CallFn`] holds, and the call is over before that function returns.
    pub unsafe fn begin(name: &'static str, request: *const abi::Request, reply: *mut abi::Reply) -> Result<Self, u32> {
        let before = Taken::now();
        // SAFETY: valid until the call is over, by the caller's promise; so is the payload, which only `run` hands on,
        // for no longer than it borrows `self`.
        let (codec, accept, bytes) = unsafe { ((*request).codec, (*request).accept, (*request).payload.bytes()) };
        let accept = if accept == 0 { codec } else { accept };
        let (Some(codec), Some(accept)) = (Codec::from_number(codec), Codec::from_number(accept)) else {
            let error = EntryError::invalid(format!("entry `{name}`: codec {codec} to {accept} is not known to it"));
            // SAFETY: `reply` is valid and nobody else uses it, by the caller's promise.
            return Err(unsafe { end(reply, before, Err(error)) });
        };
        // SAFETY: as above.
        let ctx = unsafe { Ctx::new(name, codec, accept, request) };
        Ok(Self { ctx, payload: Payload { codec, bytes }, reply, before })
    }

    /// Runs `entry` and hands its answer or its error to the host. Returns the outcome's number.
    pub fn run<'c, I, O, F>(&'c self, entry: F) -> u32
    where
        I: Input<'c>,
        O: Output,
        F: FnOnce(I, &'c Ctx) -> Result<O, EntryError>,
    {
        // Whatever a panic leaves half-done is the entry's own business: this call's values are dropped with it.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let answer = entry(I::read(self.payload)?, &self.ctx)?;
            self.write(&answer)
        }));
        let result = ended.unwrap_or_else(|panic| {
            std::mem::forget(panic); // its own drop could panic again
            Err(EntryError::internal(format!("entry `{}` panicked", self.ctx.name())))
        });
        // SAFETY: `begin` was promised that `reply` is valid and unshared until the call is over.
        unsafe { end(self.reply, self.before, result) }
    }

    fn write(&self, answer: &impl Output) -> Result<(), EntryError> {
        if let Some(bytes) = answer.size_hint() {
            // SAFETY: `reply` is valid and unshared for the whole call (see `begin`).
            unsafe { ((*self.reply).reserve)((*self.reply).host, bytes) };
        }
        let mut out = BufWriter::with_capacity(PIECE, Sink { reply: self.reply, taken: 0, refused: false });
        let written = answer.write(self.ctx.accept(), &mut out).and_then(|()| out.flush().map_err(unwritable));
        let (sink, _) = out.into_parts(); // does not flush: after a failure nothing more is written
        if sink.refused {
            return Err(EntryError::internal(format!(
                "the answer of entry `{}` does not fit: the worker took {} bytes and no more",
                self.ctx.name(),
                sink.taken
            )));
        }
        written
    }
}

/// Tells the host how the call ended, and what it allocated.
///
/// # Safety
/// `reply` is valid and nobody else uses it.
unsafe fn end(reply: *mut abi::Reply, before: Taken, result: Result<(), EntryError>) -> u32 {
    let outcome = match &result {
        Ok(()) => abi::OUTCOME_OK,
        Err(error) => {
            let failure = error.as_failure();
            // SAFETY: the failure and what it borrows live until the host's function returns.
            unsafe { ((*reply).fail)((*reply).host, &failure) };
            error.outcome() as u32
        }
    };
    drop(result);
    let taken = Taken::since(before);
    // SAFETY: by the caller's promise.
    unsafe {
        (*reply).allocs = taken.allocs;
        (*reply).alloc_bytes = taken.bytes;
    }
    outcome
}

/// The host's side of an answer, as a writer.
struct Sink {
    reply: *mut abi::Reply,
    /// What it took so far.
    taken: usize,
    /// It took no more.
    refused: bool,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // SAFETY: `reply` is valid for the whole call (see `Call::begin`), and `data` while the host's function runs.
        let refused = unsafe { ((*self.reply).write)((*self.reply).host, data.as_ptr(), data.len()) };
        if refused != 0 {
            self.refused = true;
            return Err(io::Error::other("the host takes no more"));
        }
        self.taken += data.len();
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
