//! molt: its client library, and a worker's poller that answers on its own thread, as it does for short built-in entries.

use std::sync::Arc;
use std::time::Duration;

use molt_ipc_shm::client::{Body, Called, Client, Payload as Sent, Request};
use molt_ipc_shm::frame::ResponseHead;
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::segment::{Blueprint, OwnedSegment};
use molt_ipc_shm::worker::{Answer, AnswerBody, Inflight, Payload, Placed, Poller, Service, Stop};
use molt_ipc_shm::{Codec, Outcome, stats};

use crate::peer::{Attached, Caller, Peer, Place, Tried, ready, until_input_closes};

/// molt.
pub struct Molt;

const PATIENCE: Duration = Duration::from_secs(30);

fn shm(place: &Place) -> String {
    format!("/{}-molt", place.name)
}

/// Attaches to the worker that serves at that place.
pub fn attach(place: &Place) -> Tried<Client> {
    Ok(Client::attach(&shm(place), None, PATIENCE)?)
}

impl Peer for Molt {
    fn name(&self) -> &'static str {
        "molt"
    }

    fn serve(&self, place: &Place) -> Tried<()> {
        // Requests and answers of all clients, and as much again for what is let go of but not yet collected.
        let arena = (128 << 20).max(place.size as u64 * 4 * place.clients as u64);
        let plan = Blueprint {
            geometry: Geometry::for_arena(arena),
            socket: place.folder.join("molt"),
            max_body: arena,
            session_quota: arena,
        };
        let owned = OwnedSegment::create(&shm(place), &plan)?;
        stats::name_entry(&owned.segment.map, &owned.segment.geometry, 0, "echo", 0, true);
        let mut poller = Poller::new(owned)?;
        poller.open(false)?;
        let stop = Arc::new(Stop::default());
        let (stopped, waker) = (stop.clone(), poller.waker());
        std::thread::spawn(move || {
            until_input_closes();
            stop.want();
            let _ = waker.write(1);
        });
        ready();
        Ok(poller.run(&Echo, &stopped, Duration::from_secs(1))?)
    }

    fn attach(&self, place: &Place) -> Tried<Box<dyn Attached>> {
        Ok(Box::new(Session(Arc::new(attach(place)?))))
    }
}

/// Answers what it is asked.
struct Echo;

impl Service for Echo {
    fn serve(&self, request: Inflight) {
        if !request.begin() {
            return request.answer(Answer::failure(Outcome::Cancelled, "taken back before it started"));
        }
        let body = match request.payload() {
            Ok(Payload::Inline(bytes)) => Ok(AnswerBody::Bytes(bytes.to_vec())),
            Ok(Payload::Arena(handle)) => request
                .copy_to_block(&handle)
                .map(|block| AnswerBody::Placed(Placed::Block(block)))
                .map_err(|full| full.to_string()),
            Ok(Payload::Tables(_)) => Err("tables are not echoed".to_owned()),
            Err(bad) => Err(bad.to_string()),
        };
        request.answer(match body {
            Ok(body) => Answer::ok(Codec::Raw, body),
            Err(text) => Answer::failure(Outcome::Internal, text),
        });
    }

    fn cancelled(&self, _channel: u32) {}
}

/// One process's session: its threads share it, as Django's do.
struct Session(Arc<Client>);

impl Attached for Session {
    fn caller(&self) -> Tried<Box<dyn Caller>> {
        Ok(Box::new(One(self.0.clone())))
    }
}

struct One(Arc<Client>);

impl Caller for One {
    fn call(&mut self, payload: &[u8], read: &mut dyn FnMut(&[u8])) -> Tried<()> {
        let request = Request {
            entry: b"echo",
            params: &[],
            payload: Sent::Bytes(payload),
            codec: Codec::Raw as u8,
            accept: 0,
            idempotent: None,
            resend: false,
            timeout: None,
            fallback_timeout: PATIENCE,
            trace: None,
        };
        let mut called = self.0.call(&request)?;
        loop {
            match called {
                Called::Interrupted(pending) => called = self.0.resume(pending)?,
                Called::Reply(reply, _) if reply.outcome != Outcome::Ok => return Err(reply.into_failure().into()),
                Called::Reply(reply, _) => {
                    match &reply.body {
                        Body::Inline(frame) => read(&frame[ResponseHead::BYTES..]),
                        Body::Leased(lease) => {
                            let (address, len) = (lease.address(), lease.len());
                            // SAFETY: mapped for as long as the lease lives, and nobody writes a leased block: the
                            // serving process is this program.
                            read(unsafe { std::slice::from_raw_parts(address, len) });
                        }
                    }
                    return Ok(());
                }
            }
        }
    }
}
