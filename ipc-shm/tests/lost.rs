//! A process that closes its descriptors and lives on (`os.closerange`, as daemons and subprocess helpers do it): what it
//! has mapped it may still read and write, so nobody else is given any of it.

mod common;

use std::os::fd::IntoRawFd;
use std::sync::atomic::Ordering;

use common::child::{self, Child};
use common::worker::ThreadWorker;
use common::{call, pattern, request, until};
use molt_ipc_shm::client::{Body, Client, LoopChannel, Reply, Submitted};
use molt_ipc_shm::doctor::{self, Ill};
use molt_ipc_shm::layout::{SlotState, channel};

/// Above an eighth of the ring: it lies in the arena, under a lease.
const BIG: usize = 600_000;

#[test]
fn child_role() {
    child::play(&[("careless", careless)]);
}

/// `careless NAME`: holds results, a block and a channel with a request in flight, closes every descriptor but the standard
/// ones, and says so. Then it does what it is told, as if nothing had happened.
fn careless(words: &[String]) {
    let client = common::worker::find(&words[0], common::PATIENCE).expect("a worker");
    let session = client.session().expect("a session");
    let mut held: Vec<Reply> = (0..3).map(|_| big(&client)).collect();
    let block = session.block(1 << 20).expect("room");
    let mut channel = LoopChannel::open(&session).expect("a channel");
    assert!(matches!(channel.submit(&request("hold", b"")), Submitted::Id(_)));
    child::say(&format!("loaded {}", child::hear().expect("a word")));
    let open = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let numbers: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let last = numbers.iter().copied().max().expect("descriptors");
    numbers.into_iter().filter(|number| *number > 2).for_each(|number| _ = nix::unistd::close(number));
    // The numbers are other files' soon, as in any process that goes on.
    while std::fs::File::open("/dev/null").expect("a file").into_raw_fd() < last {}
    child::say("closed");
    let mut kept = Some((session, block, channel));
    while let Some(told) = child::hear() {
        match told.as_str() {
            "release" => {
                held.truncate(1);
                let (_, _, channel) = kept.as_mut().expect("still there");
                (0..50).for_each(|_| _ = channel.submit(&request("echo", &[0xee; 1000])));
            }
            "leave" => {
                kept = None;
                held.clear();
                client.close();
            }
            other => unreachable!("{other}"),
        }
        child::say("done");
    }
}

fn big(client: &Client) -> Reply {
    let reply = call(client, &request("big", &(BIG as u64).to_le_bytes())).expect("an answer");
    assert!(matches!(reply.body, Body::Leased(_)));
    reply
}

/// A child that holds much and has no descriptor any more, and the channels that are its own.
fn lost(worker: &ThreadWorker) -> (Child, Vec<u32>) {
    let mut child = Child::start(&["careless", &worker.names.shm]);
    child.tell("go");
    assert_eq!(child.line(), "loaded go");
    let own: Vec<u32> = channels(worker);
    assert!(!own.is_empty());
    assert_eq!(child.line(), "closed");
    until("it is seen", || state_of(worker, child.pid()) == Some("quarantined"));
    (child, own)
}

/// The channels that are in use.
fn channels(worker: &ThreadWorker) -> Vec<u32> {
    let (map, geometry) = (&worker.host.segment.map, &worker.host.segment.geometry);
    let used = |index: &u32| {
        SlotState::of(map.u64(geometry.channel(*index) + channel::WORD).load(Ordering::Acquire)) != SlotState::Free
    };
    (0..geometry.channels).filter(used).collect()
}

fn state_of(worker: &ThreadWorker, pid: u32) -> Option<&'static str> {
    worker.report().sessions.iter().find(|session| session.pid == pid).map(|session| session.state)
}

/// Fault 52: slot, channels, extents and results of a process that has lost its descriptors stay its own until it is dead,
/// whatever it does to them; others keep what they hold.
#[test]
fn what_a_process_without_descriptors_writes_reaches_nobody_else() {
    let worker = ThreadWorker::start();
    let (mut child, own) = lost(&worker);
    let used = worker.report().arena.used_bytes;
    assert!(used >= 3 * BIG as u64 + (1 << 20), "all of its extents are still its own: {used}");
    let findings = doctor::examine(&worker.host.segment);
    let named =
        |pid: u32| findings.iter().any(|found| found.ill == Ill::CutPeer && found.text.contains(&pid.to_string()));
    assert!(named(child.pid()), "{findings:?}");

    // Everybody who comes now holds results, in whatever slots, lease numbers, channels and extents are given out.
    let others: Vec<(Client, Reply)> = (0..4)
        .map(|_| {
            let client = worker.client();
            let reply = big(&client);
            (client, reply)
        })
        .collect();
    assert!(own.iter().all(|index| channels(&worker).contains(index)), "its channels are nobody else's");
    child.tell("release");
    assert_eq!(child.line(), "done");
    // What had been freed by a bit in the wrong slot would be given out and written over now.
    let more: Vec<Reply> = others.iter().map(|(client, _)| big(client)).collect();
    for reply in others.iter().map(|(_, reply)| reply).chain(&more) {
        assert!(reply.to_vec() == pattern(BIG as u64, BIG), "somebody else's result is as it was");
    }
    let pid = std::process::id();
    until("each of the others holds two results", || {
        let sessions = worker.report().sessions;
        let leases: Vec<u32> =
            sessions.iter().filter(|session| session.pid == pid).map(|session| session.leases).collect();
        leases == [2; 4]
    });
    for (client, _) in &others {
        assert_eq!(call(client, &request("echo", b"mine")).expect("an answer").to_vec(), b"mine");
    }
    drop((others, more));
    child.kill();
    until("with its death everything comes back", || {
        let report = worker.report();
        report.sessions.is_empty() && report.arena.used_bytes == 0 && channels(&worker).is_empty()
    });
}

/// The word that lets go travels in the segment, not over the socket: it is heard without one.
#[test]
fn a_process_without_descriptors_can_still_leave() {
    let worker = ThreadWorker::start();
    let (mut child, _) = lost(&worker);
    child.tell("leave");
    assert_eq!(child.line(), "done");
    until("it has left, and lives", || {
        let report = worker.report();
        report.sessions.is_empty() && report.arena.used_bytes == 0 && channels(&worker).is_empty()
    });
    child.tell("leave");
    assert_eq!(child.line(), "done");
}
