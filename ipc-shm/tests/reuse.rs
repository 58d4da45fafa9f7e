//! When a channel's slot may have its next user.

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use common::Names;
use common::raw::Raw;
use common::small;
use common::worker::{blueprint, listening};
use molt_ipc_shm::layout::{SlotState, channel};
use molt_ipc_shm::worker::{Answer, Inflight, Poller, Probe, Service};
use molt_ipc_shm::{Codec, worker::AnswerBody};

/// Answers at once and keeps hold of the way back, as a thread does that has committed an answer and not rung yet.
#[derive(Default)]
struct StillThere(Mutex<Vec<Probe>>);

impl Service for StillThere {
    fn serve(&self, request: Inflight) {
        self.0.lock().expect("the probes").push(request.probe());
        request.answer(Answer::ok(Codec::Raw, AnswerBody::Bytes(Vec::new())));
    }

    fn cancelled(&self, _: u32) {}
}

/// A thread that has answered but not rung yet would ring, and clear the ticket of, whoever has the channel by then; a client
/// that has lost the doorbell and not given the channel back would write into it.
#[test]
fn a_channel_has_no_next_user_while_somebody_may_still_ring_the_last_or_write_there() {
    let names = Names::new();
    let mut poller = listening(&names.shm, &blueprint(names.socket.clone(), small()), false).expect("a worker");
    let service = StillThere::default();
    let attached = AtomicBool::new(false);
    let mut client = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let client = Raw::attach(&names);
            attached.store(true, Ordering::Release);
            client
        });
        while !attached.load(Ordering::Acquire) && !client.is_finished() {
            poller.look(&service).expect("the poller");
        }
        client.join().expect("a client")
    });
    let state = |raw: &Raw| {
        let at = raw.segment.geometry.channel(raw.channel) + channel::WORD;
        SlotState::of(raw.segment.map.u64(at).load(Ordering::Acquire))
    };
    let mut frame = client.head(1).encode().to_vec();
    frame.extend_from_slice(b"echo");
    client.commit(&frame);
    poller.look(&service).expect("the poller");
    assert_eq!(service.0.lock().expect("the probes").len(), 1, "taken and answered");

    let look = |poller: &mut Poller| (0..3).for_each(|_| _ = poller.look(&service).expect("the poller"));
    client.give_back();
    client.bell = None;
    look(&mut poller);
    assert_eq!(state(&client), SlotState::Active, "somebody may still ring");
    service.0.lock().expect("the probes").clear();
    look(&mut poller);
    assert_eq!(state(&client), SlotState::Free);

    // The next one loses the doorbell alone.
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| assert!(client.open()));
        while !opening.is_finished() {
            poller.look(&service).expect("the poller");
        }
    });
    client.bell = None;
    look(&mut poller);
    assert_eq!(state(&client), SlotState::Active, "its client may still write there");
    client.give_back();
    look(&mut poller);
    assert_eq!(state(&client), SlotState::Free);
}
