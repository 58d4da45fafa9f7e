//! Requests in flight. That one is open, and how far it came, its cell says. Since when, and for which entry, only its
//! frame says: it still lies in the request ring, consumed or not, until the ring has come around once.

use std::sync::atomic::Ordering;

use molt_ipc_shm::Segment;
use molt_ipc_shm::cell::CellState;
use molt_ipc_shm::frame::{NAME_MAX, RequestHead, kind};
use molt_ipc_shm::layout::{ALIGN, session};
use molt_ipc_shm::ring::RingPlace;

use crate::units::plain;

/// More are counted, not listed.
const LISTED: usize = 10_000;
/// A ring larger than this is not searched: looking must stay cheap.
const SEARCHED_BYTES: usize = 4 << 20;

/// A request that is not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its channel.
    pub channel: u32,
    /// Its id in the session.
    pub id: u64,
    /// Who asks.
    pub pid: u32,
    /// Whether it was started.
    pub running: bool,
    /// What it asks for, if its frame is still there.
    pub entry: Option<String>,
    /// Nanoseconds since it was sent.
    pub age: Age,
    /// Nanoseconds until nobody waits for it any more; negative: since then.
    pub left_ns: Option<i64>,
}

/// How old a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// At least this: its frame is gone, so its age counts from when it was seen first.
    AtLeast(u64),
    /// By its own word.
    Exactly(u64),
}

impl Age {
    /// Nanoseconds.
    pub fn ns(self) -> u64 {
        match self {
            Self::AtLeast(ns) | Self::Exactly(ns) => ns,
        }
    }
}

/// What is open on a channel.
#[derive(Debug, Default)]
pub struct Found {
    /// Not started.
    pub queued: u32,
    /// Started.
    pub running: u32,
    /// The first of them.
    pub listed: Vec<Open>,
}

/// A frame's say about its request.
struct Frame {
    id: u64,
    cell: u32,
    entry: String,
    sent_ns: u64,
    deadline_ns: u64,
}

/// Finds what is open on a channel; `listed`: how many are listed already.
pub fn of_channel(segment: &Segment, index: u32, pid: u32, now_ns: u64, listed: usize) -> Found {
    let (map, geometry) = (&segment.map, &segment.geometry);
    let mut found = Found::default();
    let mut open = Vec::new();
    for cell in 0..geometry.cells_per_channel {
        let word = map.u64(geometry.cell(index, cell)).load(Ordering::Acquire);
        let state = word & 0xff;
        if state == CellState::Queued as u64 {
            found.queued += 1;
        } else if state == CellState::Running as u64 {
            found.running += 1;
        } else {
            continue;
        }
        open.push((cell, word >> 8, state == CellState::Running as u64));
    }
    open.truncate(LISTED.saturating_sub(listed));
    if open.is_empty() {
        return found;
    }
    let frames = frames(segment, index, now_ns);
    found.listed = open
        .into_iter()
        .map(|(cell, id, running)| {
            // Ids begin again with each session: of two frames that fit, the newest.
            let fits = frames.iter().filter(|frame| frame.id == id && frame.cell == cell);
            let frame = fits.max_by_key(|frame| frame.sent_ns);
            Open {
                channel: index,
                id,
                pid,
                running,
                entry: frame.map(|frame| plain(&frame.entry)),
                age: frame.map_or(Age::AtLeast(0), |frame| Age::Exactly(now_ns.saturating_sub(frame.sent_ns))),
                left_ns: frame.filter(|frame| frame.deadline_ns > 0).map(|frame| {
                    let left = i128::from(frame.deadline_ns) - i128::from(now_ns);
                    left.clamp(i64::MIN as i128, i64::MAX as i128) as i64
                }),
            }
        })
        .collect();
    found
}

/// Whatever looks like a request in a channel's ring, of this session.
fn frames(segment: &Segment, index: u32, now_ns: u64) -> Vec<Frame> {
    let (map, geometry) = (&segment.map, &segment.geometry);
    let place = RingPlace::of_requests(geometry, index);
    // What stands in for a dead worker's segment while its supervisor lives has no rings.
    if place.capacity > SEARCHED_BYTES || (!segment.is_alive() && segment.is_supervised()) {
        return Vec::new();
    }
    let slot = map.u32(geometry.channel(index) + molt_ipc_shm::layout::channel::SESSION).load(Ordering::Relaxed);
    let since = match slot < geometry.sessions {
        true => map.u64(geometry.session(slot) + session::STARTED).load(Ordering::Relaxed),
        false => 0,
    };
    let mut ring = Vec::new();
    map.read_to_vec(place.data, place.capacity, &mut ring);
    let heads = (0..ring.len()).step_by(ALIGN).filter_map(|at| {
        let head = RequestHead::decode(ring.get(at..at + RequestHead::BYTES)?.try_into().ok()?);
        let name_len = usize::from(head.name_len);
        let named =
            head.kind == kind::REQUEST && name_len <= NAME_MAX && head.len as usize >= RequestHead::BYTES + name_len;
        let in_time = (since..=now_ns).contains(&head.sent_ns);
        let name = ring.get(at + RequestHead::BYTES..at + RequestHead::BYTES + name_len)?;
        (named && in_time).then(|| Frame {
            id: head.id,
            cell: head.cell,
            entry: String::from_utf8_lossy(name).into_owned(),
            sent_ns: head.sent_ns,
            deadline_ns: head.deadline_ns,
        })
    });
    heads.collect()
}

#[cfg(test)]
mod tests {
    use molt_ipc_shm::client::{LoopChannel, Submitted};
    use molt_ipc_shm::os::now_ns;

    use super::{Age, Found, Open, of_channel};
    use crate::watch::common::worker::ThreadWorker;
    use crate::watch::common::{PATIENCE, request, until};

    /// What is open on the only channel in use.
    fn open(worker: &ThreadWorker) -> Found {
        of_channel(&worker.host.segment, 0, 7, now_ns(), 0)
    }

    fn only(worker: &ThreadWorker) -> Option<Open> {
        <[Open; 1]>::try_from(open(worker).listed).ok().map(|[open]| open)
    }

    #[test]
    fn a_request_is_found_with_its_age_and_without_once_its_frame_is_gone() {
        let worker = ThreadWorker::start();
        let client = worker.client();
        let mut channel = LoopChannel::open(&client.session().expect("a session")).expect("a channel");
        let began = now_ns();
        assert!(matches!(channel.submit(&request("keep", b"")), Submitted::Id(_)));
        until("it runs", || only(&worker).is_some_and(|open| open.running));
        let found = only(&worker).expect("one request");
        assert_eq!((found.channel, found.pid, found.entry.as_deref()), (0, 7, Some("keep")));
        assert!(matches!(found.age, Age::Exactly(ns) if ns <= now_ns() - began), "{found:?}");
        assert!(found.left_ns.is_some_and(|left| left > 0 && left < PATIENCE.as_nanos() as i64), "{found:?}");
        until("it grows older", || only(&worker).is_some_and(|later| later.age.ns() > found.age.ns()));

        // A request that is not started, beside it.
        assert!(matches!(channel.submit(&request("queue", b"")), Submitted::Id(_)));
        until("it is queued", || {
            let found = open(&worker);
            (found.queued, found.running) == (1, 1) && found.listed[1].entry.as_deref() == Some("queue")
        });

        // The ring comes around: what is open is known from its cell alone.
        until("both frames are overwritten", || {
            while !matches!(channel.submit(&request("echo", &[0xff; 3000])), Submitted::Id(_)) {
                channel.poll(32);
            }
            channel.poll(32);
            let listed = open(&worker).listed;
            listed.iter().filter(|open| open.age == Age::AtLeast(0) && open.entry.is_none()).count() >= 2
        });
    }
}
