//! What the C ABI hands out as opaque pointers, in safe Rust.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatchIterator;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use molt_ipc_shm::client::{
    Body, Client, ClientBlock, DEFAULT_TIMEOUT, Failure, LoopChannel, Payload, Reply, Request, Session, Submitted,
};
use molt_ipc_shm::table::{Encoded, Table};
use molt_ipc_shm::{Outcome, TraceContext};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::incoming::Incoming;

/// What keeps a reply's bytes alive.
#[derive(Debug)]
pub enum Hold {
    /// A worker's answer.
    Reply(Reply),
    /// A failure that this process found by itself.
    Failure(Failure),
}

impl Hold {
    /// The bytes: the body, or text and details.
    pub fn bytes(&self) -> (*const u8, usize) {
        match self {
            Hold::Reply(reply) => reply.bytes(),
            Hold::Failure(failure) => (failure.message.as_ptr(), failure.message.len()),
        }
    }

    /// Details that this process knows by itself, MsgPack: whether a lost request may be run again.
    pub fn own_details(&self) -> &'static [u8] {
        match self {
            Hold::Failure(failure) if failure.outcome == Outcome::WorkerLost && failure.idempotent => {
                b"\x81\xaaidempotent\xc3"
            }
            Hold::Failure(failure) if failure.outcome == Outcome::WorkerLost => b"\x81\xaaidempotent\xc2",
            _ => &[],
        }
    }

    /// Bytes of the text at the start, when it is a failure.
    pub fn text_len(&self) -> usize {
        match self {
            Hold::Reply(reply) => reply.head.text_len(),
            Hold::Failure(failure) => failure.message.len(),
        }
    }
}

/// The arguments of a request as they came through the C ABI, checked.
#[derive(Debug)]
pub struct Arguments<'a> {
    /// The entry's name.
    pub entry: &'a [u8],
    /// A MsgPack map, or empty.
    pub params: &'a [u8],
    /// The payload, when it is bytes.
    pub payload: &'a [u8],
    /// The payload, when it lies in the arena.
    pub blocks: Vec<Arc<ClientBlock>>,
    /// The blocks' names, or none for one unnamed body.
    pub names: Option<&'a str>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    /// Codecs of payload and answer.
    pub codec: u8,
    /// See `codec`.
    pub accept: u8,
    /// Bit 0: idempotent. Bit 1: never send it twice.
    pub flags: u32,
    /// > 0: this call's own. 0: the entry's, else five seconds. < 0: the entry's, else that much.
    pub timeout_ns: i64,
}

/// What `timeout_ns` says: the call's own limit, and the one where neither it nor its entry has one.
pub fn timeouts(timeout_ns: i64) -> (Option<Duration>, Duration) {
    match timeout_ns {
        1.. => (Some(Duration::from_nanos(timeout_ns as u64)), DEFAULT_TIMEOUT),
        0 => (None, DEFAULT_TIMEOUT),
        ..0 => (None, Duration::from_nanos(timeout_ns.unsigned_abs())),
    }
}

impl Arguments<'_> {
    /// Calls `run` with the request that these arguments make.
    pub fn with_request<T>(&self, run: impl FnOnce(&Request<'_>) -> T) -> T {
        let tables: Vec<(&str, Arc<ClientBlock>)> =
            self.names.map(|names| names.split('\0').zip(self.blocks.iter().cloned()).collect()).unwrap_or_default();
        let payload = match (self.names, self.blocks.first()) {
            (Some(_), _) => Payload::Tables(&tables),
            (None, Some(block)) => Payload::Block(block),
            (None, None) => Payload::Bytes(self.payload),
        };
        let (own, fallback) = timeouts(self.timeout_ns);
        run(&Request {
            entry: self.entry,
            params: self.params,
            payload,
            codec: self.codec,
            accept: self.accept,
            idempotent: (self.flags & 1 != 0).then_some(true),
            resend: self.flags & 2 == 0,
            timeout: own,
            fallback_timeout: fallback,
            trace: self.trace,
        })
    }
}

/// An event loop's channel that outlives restarts of the worker: its descriptor stays the same. It waits for nothing: where
/// there is no channel yet, a thread [seeks](seek) one.
#[derive(Debug)]
pub struct LoopHold {
    client: Arc<Client>,
    /// Holds the doorbells of all channels below: readable when one of them is.
    epoll: Epoll,
    /// To the worker that serves; none until there is one.
    channel: Option<LoopChannel>,
    /// Channels to former workers, until the last request on each has ended.
    former: Vec<LoopChannel>,
}

/// A look for a worker and a channel to it.
#[derive(Debug)]
pub enum Look {
    /// For that loop to [take over](LoopHold::adopt).
    Found(Box<LoopChannel>),
    /// Why there is none yet.
    NotYet(Failure),
    /// Nobody serves, and nobody is about to.
    Nobody(Failure),
}

/// Looks for a worker, then for a channel to it, each for `slice` at most. `absent`, `restart`: how long to look where nobody,
/// or somebody, is about to serve.
pub fn seek(client: &Client, absent: Duration, restart: Duration, slice: Duration) -> Look {
    match client.reattach_within(absent, restart, slice) {
        Ok(true) => {}
        Ok(false) => return Look::NotYet(client.why_not_yet()),
        Err(failure) => return Look::Nobody(failure),
    }
    match client.present().map(|session| LoopChannel::open_within(&session, slice)) {
        Some(Ok(channel)) => Look::Found(Box::new(channel)),
        Some(Err(failure)) => Look::NotYet(failure),
        None => Look::NotYet(client.why_not_yet()), // it has gone in its turn
    }
}

impl LoopHold {
    /// Without a channel.
    pub fn new(client: Arc<Client>) -> Result<Self, Failure> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(no_epoll)?;
        Ok(Self { client, epoll, channel: None, former: Vec::new() })
    }

    /// Readable when there is something to poll.
    pub fn fd(&self) -> i32 {
        self.epoll.0.as_raw_fd()
    }

    /// Sends a request; to the worker's successor if the worker is gone. [`Submitted::Gone`] where there is no channel to a
    /// worker that serves.
    pub fn submit(&mut self, request: &Request<'_>) -> Submitted {
        let submitted = self.send(request);
        if let Submitted::Id(_) = submitted {
            self.client.retries().count_sent();
        }
        submitted
    }

    fn send(&mut self, request: &Request<'_>) -> Submitted {
        if let Some(channel) = self.channel.as_mut().filter(|channel| !channel.session().is_dead()) {
            match channel.submit(request) {
                Submitted::Gone(_) => {}
                other => return other,
            }
        }
        let Some(session) = self.client.present() else { return Submitted::Gone(self.client.why_not_yet()) };
        let Some(idle) = LoopChannel::idle(&session) else {
            let text = "this event loop has no channel to the worker yet; the request was not sent";
            return Submitted::Gone(Failure::new(Outcome::Unavailable, text));
        };
        match self.adopt(idle) {
            Ok(channel) => channel.submit(request),
            Err(failure) => Submitted::Refused(failure),
        }
    }

    /// Sends by that channel from now on. What is in flight on the old one may still be answered: a worker that stops finishes
    /// what it runs.
    pub fn adopt(&mut self, channel: LoopChannel) -> Result<&mut LoopChannel, Failure> {
        if let Err(failure) = watch(&self.epoll, &channel) {
            channel.close(); // it is as good as new, for whoever calls next
            return Err(failure);
        }
        self.former.extend(self.channel.take());
        Ok(self.channel.insert(channel))
    }

    /// What is ready, at most `most`.
    pub fn poll(&mut self, most: usize) -> Vec<(u64, Result<Reply, Failure>)> {
        let mut ready = Vec::new();
        for channel in self.former.iter_mut().chain(&mut self.channel) {
            if ready.len() >= most {
                break;
            }
            let new = channel.poll(most - ready.len());
            if channel.is_broken() {
                // A doorbell whose other end is closed stays readable for ever.
                let _ = self.epoll.delete(channel.bell());
            }
            // A worker that is stopping: the next request looks its name up again.
            let stopping = |(_, reply): &(u64, Result<Reply, Failure>)| {
                reply.as_ref().is_ok_and(|reply| reply.outcome == Outcome::Unavailable)
            };
            if new.iter().any(stopping) {
                self.client.forget(channel.session());
            }
            ready.extend(new);
        }
        let epoll = &self.epoll;
        self.former.retain(|channel| {
            let needed = channel.awaits();
            if !needed {
                let _ = epoll.delete(channel.bell());
            }
            needed
        });
        ready
    }

    /// Takes a request back.
    pub fn cancel(&mut self, id: u64) {
        self.former.iter_mut().chain(&mut self.channel).for_each(|channel| channel.cancel(id));
    }

    /// Takes back what is in flight and gives the channel back.
    pub fn close(self) {
        self.former.into_iter().chain(self.channel).for_each(LoopChannel::close);
    }
}

fn no_epoll(errno: nix::errno::Errno) -> Failure {
    Failure::new(Outcome::Busy, format!("no epoll descriptor for the event loop: {errno}"))
}

fn watch(epoll: &Epoll, channel: &LoopChannel) -> Result<(), Failure> {
    epoll.add(channel.bell(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(no_epoll)
}

/// A table that Python looks at.
#[derive(Debug)]
pub struct TableHold {
    /// The decoded table; its buffers hold the lease.
    pub table: Table,
    /// Bytes of its IPC stream.
    pub nbytes: usize,
    /// The read-only mapping it lies in.
    pub mapped: std::ops::Range<usize>,
}

impl TableHold {
    /// Reads a reply's body where it lies.
    pub fn open(reply: Reply) -> Result<Self, Failure> {
        let Body::Leased(lease) = &reply.body else {
            return Err(Failure::new(Outcome::Internal, "the answer does not lie in the arena"));
        };
        let (nbytes, mapped) = (lease.len(), lease.mapping().readable_range());
        Ok(Self { table: reply.into_table()?, nbytes, mapped })
    }

    /// A stream over its batches; each keeps the lease.
    pub fn stream(&self) -> FFI_ArrowArrayStream {
        let batches = self.table.batches.clone().into_iter().map(Ok);
        FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new(batches, self.table.schema.clone())))
    }

    /// Where its first data buffer lies; 0 for a table without one.
    pub fn first_address(&self) -> usize {
        let columns = self.table.batches.iter().flat_map(|batch| batch.columns());
        let mut buffers = columns.flat_map(|column| column.to_data().buffers().to_vec());
        buffers.next().map_or(0, |buffer| buffer.as_ptr() as usize)
    }
}

/// The session that there is: who asks for shared memory has waited for a worker before.
pub fn present(client: &Client) -> Result<Arc<Session>, Failure> {
    client.present().ok_or_else(|| client.why_not_yet())
}

/// Places a stream of batches in the arena: one copy. `run`: in extents of its own, which a worker can take over.
pub fn place(client: &Client, stream: FFI_ArrowArrayStream, run: bool) -> Result<Arc<ClientBlock>, Failure> {
    let invalid =
        |what: String| Failure::new(Outcome::InvalidInput, format!("the Arrow stream cannot be read: {what}"));
    let incoming = Incoming::new(stream).map_err(invalid)?;
    let schema = incoming.schema();
    let encoded = Encoded::new(&schema, incoming).map_err(|error| invalid(error.to_string()))?;
    let session = present(client)?;
    let block = if run { session.block_of_own_extents(encoded.len())? } else { session.block(encoded.len())? };
    encoded.write_to(block.block());
    Ok(block)
}
