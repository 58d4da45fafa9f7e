//! The checked client's event loop: many requests in flight on one channel, answers in any order, some taken back.

use std::collections::HashMap;
use std::time::Duration;

use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::{LoopChannel, Submitted};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::client::{Ask, Caller};
use crate::journal::Plan;

const IN_FLIGHT: usize = 6;

/// Turns until the client is to end.
pub fn turn(caller: &Caller, thread: u8) {
    let mut random = StdRng::seed_from_u64(caller.manner.seed ^ 0x77 << 56);
    while !caller.is_over() {
        let Ok(session) = caller.client.session() else {
            std::thread::sleep(Duration::from_millis(1)); // nobody serves now
            continue;
        };
        let Ok(channel) = LoopChannel::open(&session) else { continue };
        let lost = serve(caller, thread, &mut random, channel);
        if lost {
            caller.client.forget(&session);
        }
    }
}

/// Uses one channel for a while; `true`: its worker is gone.
fn serve(caller: &Caller, thread: u8, random: &mut StdRng, mut channel: LoopChannel) -> bool {
    let mut open: HashMap<u64, Ask> = HashMap::new();
    // Begun, and not sent yet for want of room.
    let mut waiting: Option<Ask> = None;
    let mut left: u32 = random.random_range(50..500);
    loop {
        left = left.saturating_sub(1);
        let ending = waiting.is_none() && (caller.is_over() || left == 0 || channel.is_broken());
        while !ending && open.len() < IN_FLIGHT {
            let ask = waiting.take().unwrap_or_else(|| {
                let ask = caller.ask(random, true);
                caller.begun(thread, &ask);
                ask
            });
            match channel.submit(&ask.request()) {
                Submitted::Id(id) => {
                    open.insert(id, ask);
                }
                Submitted::Full => {
                    waiting = Some(ask);
                    break;
                }
                Submitted::Gone(failure) | Submitted::Refused(failure) => {
                    caller.place.explain(ask.key.seq, &failure.message);
                    caller.ended(thread, &ask, failure.outcome, false);
                    break;
                }
            }
        }
        for (id, result) in channel.poll(16) {
            let Some(ask) = open.remove(&id) else {
                caller.place.accuse(&format!("the event loop got an answer to {id}, for which nobody waits"));
                continue;
            };
            if let Ok(reply) = &result {
                caller.verify(&ask, reply);
            }
            if let Err(failure) = &result
                && failure.outcome != Outcome::Timeout
            {
                caller.place.explain(ask.key.seq, &failure.message);
            }
            let outcome = result.map_or_else(|failure| failure.outcome, |reply| reply.outcome);
            caller.ended(thread, &ask, outcome, false);
        }
        // What is to be taken back is, at some time; at the end whatever is held.
        let is_due =
            |ask: &Ask, random: &mut StdRng| ask.plan == Plan::TakenBack && (ending || random.random_bool(0.2));
        let due: Vec<u64> = open.iter().filter(|(_, ask)| is_due(ask, random)).map(|(id, _)| *id).collect();
        for id in due {
            channel.cancel(id);
            open.remove(&id).iter().for_each(|ask| caller.ended(thread, ask, Outcome::Cancelled, false));
        }
        if ending && open.is_empty() {
            let lost = channel.is_broken();
            channel.close();
            return lost;
        }
        let mut polled = [PollFd::new(channel.bell(), PollFlags::POLLIN)];
        let _ = poll(&mut polled, PollTimeout::from(2_u8));
    }
}
