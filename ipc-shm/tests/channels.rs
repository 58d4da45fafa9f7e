//! Channels between many processes: whoever has none gets one, whoever waits for one can be interrupted, and where one
//! cannot be had nobody loses its session.

mod common;

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::child::{self, Child};
use common::worker::{attach, report};
use common::{Names, call, request};
use molt_ipc_shm::Outcome;
use molt_ipc_shm::client::Request;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

#[test]
fn child_role() {
    child::play(&[("worker", common::worker::role)]);
}

/// The kernel lets the worker send no descriptor (its user has too many on their way): the request for a channel is
/// refused, and the client, which has done nothing, is not cut.
#[test]
fn a_worker_that_cannot_send_a_doorbell_refuses_and_cuts_nobody() {
    let names = Names::new();
    // root may send as many as it likes.
    let limited = "ulimit -n 40; [ \"$(id -u)\" = 0 ] || exec \"$0\" \"$@\"; \
                   exec setpriv --bounding-set=-sys_resource,-sys_admin \"$0\" \"$@\"";
    let mut worker = Child::start_under(limited, &["worker", &names.shm, names.socket.to_str().expect("a plain path")]);
    assert_eq!(worker.line(), "serving");
    let client = attach(&names);
    let (on_their_way, held) = UnixStream::pair().expect("a pair");
    let fds = [held.as_raw_fd(); 100];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(on_their_way.as_raw_fd(), &[IoSlice::new(&[1])], &rights, MsgFlags::empty(), None).expect("room");
    let brief = Request { timeout: Some(Duration::from_millis(300)), ..request("echo", b"?") };
    let refused = call(&client, &brief).expect_err("no doorbell can be sent");
    assert!(refused.outcome == Outcome::Busy && refused.message.contains("doorbell"), "{refused}");
    assert_eq!(report(&names).totals["cut"], 0);
    drop((on_their_way, held));
    assert_eq!(call(&client, &request("echo", b"on")).expect("a channel").to_vec(), b"on");
    assert!(worker.finish());
}
