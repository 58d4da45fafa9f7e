//! Calls to a worker, blocking and through an event loop's channel, with whatever came back as one value.

use std::path::Path;
use std::time::{Duration, Instant};

use molt_ipc_shm::client::{Called, Client, Failure, LoopChannel, Payload, Reply, Request, Submitted};
use molt_ipc_shm::frame::ResponseHead;
use molt_ipc_shm::{Codec, Outcome, TraceContext};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{SOON, until};

/// A request under construction.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    entry: &'a str,
    params: Vec<u8>,
    payload: Payload<'a>,
    codec: u8,
    accept: u8,
    timeout: Duration,
    idempotent: Option<bool>,
    trace: Option<TraceContext>,
}

/// A MsgPack value.
pub fn msgpack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

impl<'a> Ask<'a> {
    /// A request without a body, answered as JSON.
    pub fn of(entry: &'a str) -> Self {
        let codec = Codec::Json as u8;
        let payload = Payload::Bytes(&[]);
        Self { entry, params: Vec::new(), payload, codec, accept: 0, timeout: SOON, idempotent: None, trace: None }
    }

    /// The body.
    pub fn body(self, codec: Codec, body: &'a [u8]) -> Self {
        self.payload(codec as u8, Payload::Bytes(body))
    }

    /// The body in any form, and its codec's number.
    pub fn payload(mut self, codec: u8, payload: Payload<'a>) -> Self {
        (self.codec, self.payload) = (codec, payload);
        self
    }

    /// The codec of the answer.
    pub fn accept(mut self, codec: Codec) -> Self {
        self.accept = codec as u8;
        self
    }

    /// Params.
    pub fn params(mut self, params: Value) -> Self {
        self.params = msgpack(&params);
        self
    }

    /// Params as bytes.
    pub fn raw_params(mut self, params: Vec<u8>) -> Self {
        self.params = params;
        self
    }

    /// The time it has.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether running it twice does no harm; else its entry says.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// The trace that it belongs to.
    pub fn trace(mut self, traceparent: &str) -> Self {
        self.trace = TraceContext::parse(traceparent);
        self
    }

    fn request(&self, resend: bool) -> Request<'_> {
        Request {
            entry: self.entry.as_bytes(),
            params: &self.params,
            payload: self.payload,
            codec: self.codec,
            accept: self.accept,
            idempotent: self.idempotent,
            resend,
            timeout: Some(self.timeout),
            fallback_timeout: SOON,
            trace: self.trace,
        }
    }

    /// Calls and waits.
    pub fn call(&self, client: &Client) -> Answer {
        let mut called = client.call(&self.request(true));
        loop {
            match called {
                Ok(Called::Interrupted(pending)) => called = client.resume(pending),
                Ok(Called::Reply(reply, resent)) => return Answer { resent, ..Answer::of(Ok(reply)) },
                Err(failure) => return Answer::of(Err(failure)),
            }
        }
    }

    /// Calls, and expects a body in JSON or MsgPack.
    pub fn value<T: DeserializeOwned>(&self, client: &Client) -> T {
        self.call(client).value()
    }
}

/// What came back, whichever way.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, when not well.
    pub message: String,
    /// What an entry adds to a failure.
    pub details: Option<Value>,
    /// Of a worker's answer: status, codec, metrics.
    pub head: ResponseHead,
    /// The worker's answer itself, which keeps the bytes of a lease.
    pub reply: Option<Reply>,
    /// It was sent a second time.
    pub resent: bool,
}

impl Answer {
    fn of(result: Result<Reply, Failure>) -> Self {
        let reply = match result {
            Ok(reply) => reply,
            Err(Failure { outcome, message, .. }) => {
                let head = ResponseHead::default();
                return Self { outcome, message, details: None, head, reply: None, resent: false };
            }
        };
        let (outcome, head) = (reply.outcome, reply.head);
        if outcome == Outcome::Ok {
            return Self { outcome, message: String::new(), details: None, head, reply: Some(reply), resent: false };
        }
        let bytes = reply.to_vec();
        let (text, details) = bytes.split_at(head.text_len());
        let details = (!details.is_empty()).then(|| rmp_serde::from_slice(details).unwrap());
        let message = String::from_utf8(text.to_vec()).unwrap();
        Self { outcome, message, details, head, reply: Some(reply), resent: false }
    }

    /// Expects success.
    pub fn ok(self) -> Self {
        assert_eq!(self.outcome, Outcome::Ok, "{}", self.message);
        self
    }

    /// Expects this failure with all of these words in its text.
    #[track_caller]
    pub fn fails(self, outcome: Outcome, words: &[&str]) -> Self {
        assert_eq!(self.outcome, outcome, "{}", self.message);
        for word in words {
            assert!(self.message.contains(word), "{word:?} is not in {:?}", self.message);
        }
        self
    }

    /// The bytes of a success.
    pub fn bytes(&self) -> Vec<u8> {
        assert_eq!(self.outcome, Outcome::Ok, "{}", self.message);
        self.reply.as_ref().unwrap().to_vec()
    }

    /// The decoded body of a success.
    pub fn value<T: DeserializeOwned>(&self) -> T {
        let bytes = self.bytes();
        match Codec::from_code(self.head.codec) {
            Some(Codec::Json) => serde_json::from_slice(&bytes).unwrap(),
            Some(Codec::MsgPack) => rmp_serde::from_slice(&bytes).unwrap(),
            other => panic!("an answer in {other:?}"),
        }
    }
}

/// A channel with many requests in flight: nothing is sent twice, and each comes back by its id.
#[derive(Debug)]
pub struct Line {
    channel: LoopChannel,
    ready: Vec<(u64, Answer)>,
}

impl Line {
    /// A channel of this client.
    pub fn open(client: &Client) -> Self {
        Self { channel: LoopChannel::open(&client.session().unwrap()).unwrap(), ready: Vec::new() }
    }

    /// Sends it.
    pub fn send(&mut self, ask: &Ask<'_>) -> u64 {
        match self.channel.submit(&ask.request(false)) {
            Submitted::Id(id) => id,
            other => panic!("not sent: {other:?}"),
        }
    }

    /// Takes it back.
    pub fn cancel(&mut self, id: u64) {
        self.channel.cancel(id);
    }

    /// What is there now.
    pub fn look(&mut self, id: u64) -> Option<Answer> {
        let ready = self.channel.poll(64);
        self.ready.extend(ready.into_iter().map(|(id, result)| (id, Answer::of(result))));
        let place = self.ready.iter().position(|(ready, _)| *ready == id)?;
        Some(self.ready.swap_remove(place).1)
    }

    /// Waits for its answer.
    pub fn answer(&mut self, id: u64) -> Answer {
        until("an answer", || self.look(id))
    }
}

/// The body of a trial entry that holds its thread: `mark` tells that it runs, `gate` lets it go.
pub fn hold_body(mark: &Path, gate: &Path) -> Vec<u8> {
    json!({"mark": mark, "gate": gate}).to_string().into_bytes()
}

/// Waits until the entry has left its mark.
pub fn marked(mark: &Path, text: &str) {
    until(&format!("the mark {text:?}"), || std::fs::read_to_string(mark).ok().filter(|found| found == text));
}

/// What `health` says.
pub fn health(client: &Client) -> Value {
    Ask::of("health").value(client)
}

/// Waits until that many requests wait for a thread.
pub fn queued(client: &Client, count: u64) {
    until(&format!("{count} requests in the queue"), || (health(client)["queued"] == count).then_some(()));
}

/// The time that it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}
