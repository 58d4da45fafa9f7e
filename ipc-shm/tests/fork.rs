//! Forks: a child neither disturbs its parent nor is left without a session of its own.

mod common;

use common::child::{self, Child};
use common::worker::{attach, report, spawn};
use common::{Names, PATIENCE, call, pattern, request, until};
use molt_ipc_shm::client::{LoopChannel, Submitted};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role), ("parent", parent), ("orphan", orphan)]);
}

/// Runs `inside` in a forked child; whether it succeeded.
fn in_fork(inside: impl FnOnce() -> bool) -> bool {
    // SAFETY: this role's process has one thread beside the harness's idle one, and the C library makes the allocator
    // usable after a fork; it is what Python's os.fork does.
    match unsafe { fork() }.expect("a fork") {
        ForkResult::Child => {
            let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(inside)).unwrap_or(false);
            // SAFETY: ends this process at once, as a forked child should that shares its parent's memory image.
            unsafe { nix::libc::_exit(i32::from(!fine)) }
        }
        ForkResult::Parent { child } => matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))),
    }
}

/// `parent NAME`: forks while it holds results, blocks, a loop and a request in flight.
fn parent(words: &[String]) {
    let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
    let session = client.session().expect("a session");
    let held = call(&client, &request("big", &700_000_u64.to_le_bytes())).expect("an answer");
    let block = session.block(300_000).expect("room");
    block.block().write(0, &pattern(1, 300_000));
    let mut channel = LoopChannel::open(&session).expect("a channel");
    let Submitted::Id(open) = channel.submit(&request("hold", &[4; 20_000])) else { panic!("no room") };

    let (inherited, name) = (held.to_vec(), words[0].clone());
    let mut kept = Some((channel, block, held));
    let fine = in_fork(|| {
        client.forked();
        let own = common::worker::find(&name, PATIENCE).expect("a session of its own");
        let (channel, block, held) = kept.take().expect("inherited");
        assert!(held.to_vec() == inherited, "what was inherited can still be read");
        // Finalizers run in the child too, and touch nothing that is the parent's or the child's own.
        drop((channel, block, held));
        let payload = pattern(2, 50_000);
        assert!((0..20).all(|_| call(&own, &request("echo", &payload)).expect("an answer").to_vec() == payload));
        drop(own);
        let again = call(&client, &request("echo", b"the old client, anew")).expect("an answer");
        again.to_vec() == b"the old client, anew"
    });
    assert!(fine, "the child");

    let (mut channel, block, held) = kept.take().expect("still the parent's");
    assert!(held.to_vec() == inherited && block.to_vec() == pattern(1, 300_000), "untouched by the child's end");
    call(&client, &request("release", b"")).expect("an answer");
    let mut answers = Vec::new();
    until("the parent's own request is answered", || {
        answers.extend(channel.poll(8));
        !answers.is_empty()
    });
    assert_eq!((answers[0].0, answers.remove(0).1.expect("an answer").to_vec()), (open, vec![4; 20_000]));
    assert_eq!(call(&client, &request("echo", b"parent")).expect("an answer").to_vec(), b"parent");
    child::say("fine");
    while child::hear().is_some() {}
}

/// `orphan NAME`: forks a child that keeps the inherited sockets open, says who it is, and is killed.
fn orphan(words: &[String]) {
    let client = common::worker::find(&words[0], PATIENCE).expect("a worker");
    let _held = call(&client, &request("big", &700_000_u64.to_le_bytes())).expect("an answer");
    // SAFETY: as in `in_fork`.
    match unsafe { fork() }.expect("a fork") {
        ForkResult::Child => {
            // Its input is the parent's too: it ends with the test.
            while child::hear().is_some() {}
            // SAFETY: as in `in_fork`.
            unsafe { nix::libc::_exit(0) }
        }
        ForkResult::Parent { .. } => {
            child::say("forked");
            loop {
                std::thread::park();
            }
        }
    }
}

/// Fault 29.
#[test]
fn a_forked_child_gets_a_session_of_its_own_and_leaves_its_parent_alone() {
    let names = Names::new();
    let _worker = spawn(&names);
    let mut parent = Child::start(&["parent", &names.shm]);
    assert_eq!(parent.line(), "fine");
    until("only the parent's session is left", || report(&names).sessions.len() == 1);
    assert_eq!(report(&names).sessions[0].pid, parent.pid());
    assert!(parent.finish());
    until("all is given back", || report(&names).sessions.is_empty() && report(&names).arena.used_bytes == 0);
}

/// Fault 29: the death of a parent is noticed at once, although its child keeps the sockets open.
#[test]
fn the_parents_death_is_noticed_while_its_child_lives() {
    let names = Names::new();
    let _worker = spawn(&names);
    let witness = attach(&names);
    let mut parent = Child::start(&["orphan", &names.shm]);
    assert_eq!(parent.line(), "forked");
    until("it is seen", || report(&names).sessions.iter().any(|session| session.pid == parent.pid()));
    parent.kill();
    until("its session ends", || report(&names).sessions.len() == 1 && report(&names).arena.used_bytes == 0);
    assert_eq!(call(&witness, &request("echo", b"on")).expect("an answer").to_vec(), b"on");
}
