//! A call from end to end: client library, rings, the worker's poller with an echo, and back. The poller is driven step by
//! step on the same thread, so nobody sleeps and nobody waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use molt_ipc_shm::client::{Client, LoopChannel, Payload as Sent, Request, Submitted};
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::segment::{Blueprint, OwnedSegment};
use molt_ipc_shm::worker::{Answer, AnswerBody, Inflight, Payload, Placed, Poller, Service};
use molt_ipc_shm::{Codec, Outcome, stats};
use tempfile::TempDir;

use crate::Arguments;

const PATIENCE: Duration = Duration::from_secs(60);
const ARENA: u64 = 64 << 20;

/// Answers what it is asked.
struct Echo;

impl Service for Echo {
    fn serve(&self, request: Inflight) {
        assert!(request.begin(), "nobody takes it back");
        let body = match request.payload().expect("an honest client") {
            Payload::Inline(bytes) => AnswerBody::Bytes(bytes.to_vec()),
            Payload::Arena(handle) => AnswerBody::Placed(Placed::Block(request.copy_to_block(&handle).expect("room"))),
            Payload::Tables(_) => unreachable!("no tables are sent"),
        };
        request.answer(Answer::ok(Codec::Raw, body));
    }

    fn cancelled(&self, _: u32) {}
}

/// A worker and its only client, on one thread.
pub struct Pair {
    poller: Poller,
    /// The client.
    pub client: Client,
    _folder: TempDir,
}

impl Pair {
    /// Starts and attaches. Only that takes a second thread: a hello waits for its answer.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let shm = format!("/molt-gate-{}", std::process::id());
        let plan = Blueprint {
            geometry: Geometry::for_arena(ARENA),
            socket: folder.path().join("worker.sock"),
            max_body: ARENA / 2,
            session_quota: ARENA,
        };
        let owned = OwnedSegment::create(&shm, &plan).expect("a segment");
        stats::name_entry(&owned.segment.map, &owned.segment.geometry, 0, "echo", 0, true);
        let mut poller = Poller::new(owned).expect("a poller");
        poller.open(false).expect("a free name");
        let client = beside(&mut poller, || Client::attach(&shm, None, PATIENCE).expect("a client"));
        Self { poller, client, _folder: folder }
    }

    /// A channel, given by the worker.
    fn channel(&mut self) -> LoopChannel {
        let session = self.client.session().expect("a session");
        beside(&mut self.poller, || LoopChannel::open(&session).expect("a channel"))
    }
}

/// Drives the poller until somebody else has what he waits for.
fn beside<T: Send>(poller: &mut Poller, wait: impl FnOnce() -> T + Send) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let got = wait();
            done.store(true, Ordering::Release);
            got
        });
        while !done.load(Ordering::Acquire) && !waiting.is_finished() {
            poller.look(&Echo).expect("the poller");
            std::thread::yield_now();
        }
        waiting.join().expect("what was waited for")
    })
}

/// Calls with so many bytes.
pub fn walk(arguments: &Arguments, bytes: usize) {
    let mut pair = Pair::start();
    let mut channel = pair.channel();
    let payload: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
    let request = Request {
        entry: b"echo",
        params: &[],
        payload: Sent::Bytes(&payload),
        codec: Codec::Raw as u8,
        accept: 0,
        idempotent: None,
        resend: false,
        timeout: Some(PATIENCE),
        fallback_timeout: PATIENCE,
        trace: None,
    };
    crate::walk(arguments, || {
        let Submitted::Id(sent) = channel.submit(&request) else { panic!("an empty ring has room") };
        assert!(pair.poller.look(&Echo).expect("the poller"), "a request was there");
        let mut answers = channel.poll(1);
        let (id, reply) = answers.pop().expect("an answer");
        let reply = reply.expect("a reply");
        assert_eq!((id, reply.outcome, reply.bytes().1), (sent, Outcome::Ok, bytes));
    });
}
