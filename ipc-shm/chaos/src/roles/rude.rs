//! A client that breaks the rules: it must be cut, and cost nobody else anything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use molt_ipc_shm::attention;
use molt_ipc_shm::client::Client;
use molt_ipc_shm::layout::{SlotState, channel, session};

use super::{Place, until_input_ends};
use crate::process::patience;

/// Says nonsense on the socket, then moves a ring's position where no position can be, and waits to be cut. A worker that
/// is killed meanwhile takes the attempt with it: the next worker gets another.
pub fn play(place: &Place) -> Result<(), String> {
    let over = until_input_ends(|| {});
    let end = Instant::now() + patience();
    let mut attempt = talk_nonsense(place).and_then(|()| break_a_ring(place));
    while attempt.is_err() && !over.load(Ordering::Acquire) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1)); // nobody serves now
        attempt = talk_nonsense(place).and_then(|()| break_a_ring(place));
    }
    let _held = attempt?;
    while !over.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn talk_nonsense(place: &Place) -> Result<(), String> {
    let mut stream = UnixStream::connect(&place.socket).map_err(|error| format!("connect: {error}"))?;
    stream.write_all(&[0xff; 64]).map_err(|error| format!("write nonsense: {error}"))?;
    let _ = stream.read(&mut [0; 1]);
    Ok(())
}

/// The client whose ring is broken and that ring's channel, to be kept until they are cut.
fn break_a_ring(place: &Place) -> Result<(Client, impl Sized), String> {
    let client = Client::attach_to(place.address(), Duration::from_secs(10)).map_err(|error| error.to_string())?;
    let attached = client.session().map_err(|error| error.to_string())?;
    let deadline = molt_ipc_shm::os::now_ns() + 5_000_000_000;
    let held = attached.checkout(deadline).map_err(|error| error.to_string())?;
    let (map, geometry) = (&attached.segment.map, &attached.segment.geometry);
    let mut slots = 0..geometry.sessions;
    let is_own =
        |slot: &u32| map.u32(geometry.session(*slot) + session::PID).load(Ordering::Relaxed) == std::process::id();
    let slot = slots.find(is_own).ok_or("no session is its own")?;
    let own = |index: &u32| {
        let at = geometry.channel(*index);
        SlotState::of(map.u64(at + channel::WORD).load(Ordering::Acquire)) == SlotState::Active
            && map.u32(at + channel::SESSION).load(Ordering::Relaxed) == slot
    };
    let index = (0..geometry.channels).find(own).ok_or("no channel is its own")?;
    map.u64(geometry.channel(index) + channel::REQUEST_TAIL).store(u64::MAX, Ordering::Release);
    attention::set_channel(map, geometry, index);
    Ok((client, held))
}
