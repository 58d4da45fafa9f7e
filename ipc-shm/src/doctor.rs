//! What is wrong with a segment, and what to do about it. Reads the segment and /proc; asks the worker nothing.
//!
//! What moves is judged by two looks, [`WINDOW`] apart: a request that waits for a moment is no finding, one that nothing
//! happens to is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::arena::{Arena, ExtentWord, OWNER_NONE, OWNER_WORKER};
use crate::catalogue::Catalogue;
use crate::layout::{STATE_SERVING, STATE_STARTING, SlotState, channel, session, totals};
use crate::os::now_ns;
use crate::pulse::{self, SILENT_AFTER};
use crate::segment::{Segment, SegmentError};
use crate::stats::{EntryStats, Overdue};
use crate::{Outcome, client::Failure, socket_path};

/// Between the two looks.
pub const WINDOW: Duration = Duration::from_millis(300);
/// Loading tables takes long; longer than this, a start hangs.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub ill: Ill,
    /// In words, with the numbers and what to do.
    pub text: String,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ill {
    /// The worker is dead.
    DeadWorker,
    /// It is stopped, or its poller looks at nothing any more.
    StuckWorker,
    /// Entries run on though their time was up long ago.
    Overdue,
    /// It leaves, or has left; or it has been starting for long.
    NotServing,
    /// Nobody listens on its socket: no process can attach.
    NoSocket,
    /// A client's process is stopped, or does not read its answers.
    StuckPeer,
    /// A session broke a rule, or lost its sockets, and its process lives on.
    CutPeer,
    /// Extents that belong to nobody who lives.
    LeakedExtents,
    /// Requests that the worker could not answer, by its own count.
    Unanswered,
    /// Tables that went with a worker that died.
    LostTables,
    /// What a start that was killed has left.
    Unfinished,
    /// Made by another version or build.
    OtherVersion,
    /// Its header does not add up.
    Damaged,
    /// Another user's, no plain object, or out of reach.
    Unreadable,
}

fn finding(ill: Ill, text: String) -> Finding {
    Finding { ill, text }
}

/// Why a segment cannot be looked at.
pub fn of_error(error: &SegmentError) -> Finding {
    let ill = match error {
        SegmentError::Version { .. } | SegmentError::Build { .. } => Ill::OtherVersion,
        SegmentError::Damaged { .. } | SegmentError::NotSealed { .. } => Ill::Damaged,
        _ => Ill::Unreadable,
    };
    finding(ill, error.to_string())
}

/// An object that a killed start has left, with the bytes that it holds.
pub fn of_unfinished(bytes: u64) -> Finding {
    let text = format!(
        "a start that was killed before it was finished left {bytes} bytes here; hint: remove them with `molt-shm-stat clean`; \
         the next start under this name does so too"
    );
    finding(Ill::Unfinished, text)
}

/// Why a socket leads to no segment.
pub fn of_failure(failure: &Failure) -> Finding {
    let ill = if failure.outcome == Outcome::Unavailable { Ill::DeadWorker } else { Ill::Unreadable };
    finding(ill, failure.message.clone())
}

/// Looks twice at a segment.
pub fn examine(segment: &Segment) -> Vec<Finding> {
    let first = Look::at(segment);
    if of_worker(segment).is_some() {
        return compare(segment, None, &first);
    }
    std::thread::sleep(WINDOW);
    let mut found = Vec::from_iter(of_socket(segment));
    found.extend(compare(segment, Some(&first), &Look::at(segment)));
    found
}

/// What two looks at a segment tell, for who looks again and again and waits in between by himself. The socket is not
/// asked about: it is no part of the segment.
pub fn compare(segment: &Segment, before: Option<&Look>, now: &Look) -> Vec<Finding> {
    if let Some(dead) = of_worker(segment) {
        // What a dead worker left in its segment nobody repairs: the next one makes a new segment.
        let more = dead.ill != Ill::DeadWorker;
        let mut found = vec![dead];
        if more {
            found.extend(of_peers(segment, now, None));
        }
        return found;
    }
    let mut found = of_peers(segment, now, before);
    found.extend(before.and_then(|before| of_extents(segment, before, now)));
    found.extend(of_overdue(segment));
    found.extend(of_tables(segment));
    let stuck = segment.map.u64(segment.geometry.total(totals::STUCK)).load(Ordering::Relaxed);
    if stuck > 0 {
        let text = format!(
            "{stuck} requests were not answered since something still read their tables after 60 s: a defect of the \
             worker; hint: report it with the worker's log"
        );
        found.push(finding(Ill::Unanswered, text));
    }
    found
}

fn of_worker(segment: &Segment) -> Option<Finding> {
    let (pid, now) = (segment.header.worker_pid, now_ns());
    if !segment.is_alive() && segment.is_supervised() {
        let text = format!("its worker (pid {pid}) is dead and is started again: {}", segment.supervision());
        return Some(finding(Ill::DeadWorker, text));
    }
    if !segment.is_alive() {
        let hint = match segment.is_nameless() {
            true => "start it again; its memory goes when the last process that looks at it lets go",
            false => "start it again, or remove it with `molt-shm-stat clean`",
        };
        return Some(finding(Ill::DeadWorker, format!("its worker (pid {pid}) is dead; hint: {hint}")));
    }
    if is_stopped(pid) {
        let text = format!(
            "its worker (pid {pid}) is stopped by a signal; hint: `kill -CONT {pid}`, or take over with --replace"
        );
        return Some(finding(Ill::StuckWorker, text));
    }
    let age = |since: u64| Duration::from_nanos(now.saturating_sub(since));
    match segment.state() {
        STATE_SERVING => {
            let silent = pulse::silence(segment);
            (silent > SILENT_AFTER).then(|| {
                let text = format!(
                    "its worker (pid {pid}) has not looked at its channels for {:.1} s, which it does ten times a second; \
                     hint: is the machine overloaded? else take over with `molt_worker --replace` and kill {pid}",
                    silent.as_secs_f64()
                );
                finding(Ill::StuckWorker, text)
            })
        }
        STATE_STARTING => {
            let since = age(segment.header.started_ns);
            (since > STARTS_WITHIN).then(|| {
                let text = format!(
                    "its worker (pid {pid}) has been starting for {:.0} s; hint: see its log",
                    since.as_secs_f64()
                );
                finding(Ill::NotServing, text)
            })
        }
        _ => {
            let state = segment.state_name();
            let text = format!(
                "its worker (pid {pid}) is {state}: it finishes what runs and refuses the rest; hint: start the next one, \
                 clients find it by themselves"
            );
            Some(finding(Ill::NotServing, text))
        }
    }
}

/// Threads that serve nobody any more. A supervisor is at work on it, so it is told in any case: it says why.
fn of_overdue(segment: &Segment) -> Option<Finding> {
    let overdue = Overdue::read(&segment.map);
    if overdue.count == 0 {
        return None;
    }
    let entry = (overdue.entry < segment.geometry.entries)
        .then(|| EntryStats::read(&segment.map, &segment.geometry, overdue.entry))
        .flatten()
        .map_or_else(|| "an entry".to_owned(), |entry| format!("entry \"{}\"", entry.name));
    let for_s = Duration::from_nanos(now_ns().saturating_sub(overdue.since_ns)).as_secs_f64();
    let hint = match segment.is_supervised() {
        true => "its supervisor replaces the worker; let the entry ask whether its time is up",
        false => {
            "take over with `molt_worker --replace`, or run it with --supervise; let the entry ask whether its time is up"
        }
    };
    let text = format!(
        "{entry} runs on though its time was up {for_s:.1} s ago; {} of the worker's threads serve nobody so; hint: {hint}",
        overdue.count
    );
    Some(finding(Ill::Overdue, text))
}

/// Tables that a former worker had. Each is told of until it is there again, or dropped.
fn of_tables(segment: &Segment) -> Option<Finding> {
    let tables = Catalogue::read(&segment.map, &segment.geometry)?.tables;
    let lost: Vec<_> = tables.iter().filter_map(|table| Some((&table.name, table.lost.as_ref()?))).collect();
    let (name, why) = lost.first()?;
    let others = match lost.len() {
        1 => String::new(),
        several => format!(" (and {} more tables)", several - 1),
    };
    let text = format!(
        "table \"{name}\" is lost{others}: {why}; hint: put or load it again; a table that the manifest names with a path is \
         there after every start. `drop` takes it off this list"
    );
    Some(finding(Ill::LostTables, text))
}

fn of_socket(segment: &Segment) -> Option<Finding> {
    let socket = segment.socket();
    // Seen from another container the path leads elsewhere, or nowhere: then this says nothing.
    let elsewhere = !socket.parent().is_some_and(std::path::Path::exists);
    (segment.state() == STATE_SERVING && !elsewhere && socket_path::listener_of(&socket).is_none()).then(|| {
        let text = format!(
            "nobody listens on its socket {}: who is attached is served, nobody else can attach; hint: take over with \
             `molt_worker --replace`",
            socket.display()
        );
        finding(Ill::NoSocket, text)
    })
}

/// What moves: copied in one go.
#[derive(Debug)]
pub struct Look {
    /// Per session slot: generation and state.
    slots: Vec<u64>,
    channels: Vec<ChannelLook>,
    extents: Vec<ExtentWord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChannelLook {
    word: u64,
    session: u32,
    requests: (u64, u64),
    responses: (u64, u64),
}

impl Look {
    /// Looks once.
    pub fn at(segment: &Segment) -> Self {
        let (map, geometry) = (&segment.map, &segment.geometry);
        let word = |at: usize| map.u64(at).load(Ordering::Acquire);
        // Extents before slots: a session that begins in between then has none of those seen.
        let extents = Arena::new(map.clone(), *geometry, OWNER_NONE).words();
        let slots = (0..geometry.sessions).map(|slot| word(geometry.session(slot) + session::WORD)).collect();
        let channels = (0..geometry.channels).map(|index| {
            let at = geometry.channel(index);
            ChannelLook {
                word: word(at + channel::WORD),
                session: map.u32(at + channel::SESSION).load(Ordering::Relaxed),
                requests: (word(at + channel::REQUEST_HEAD), word(at + channel::REQUEST_TAIL)),
                responses: (word(at + channel::RESPONSE_HEAD), word(at + channel::RESPONSE_TAIL)),
            }
        });
        Self { slots, channels: channels.collect(), extents }
    }
}

fn of_peers(segment: &Segment, now: &Look, before: Option<&Look>) -> Vec<Finding> {
    let (map, geometry) = (&segment.map, &segment.geometry);
    let mut found = Vec::new();
    for (slot, word) in now.slots.iter().enumerate() {
        let at = geometry.session(slot as u32);
        let pid = map.u32(at + session::PID).load(Ordering::Relaxed);
        match SlotState::of(*word) {
            SlotState::Quarantined => {
                let text = format!(
                    "session {slot} (pid {pid}) broke a rule and was cut, or has closed its sockets and lives on; its slot \
                     and memory come back when the process ends; hint: end it"
                );
                found.push(finding(Ill::CutPeer, text));
            }
            SlotState::Active if is_stopped(pid) => {
                let text = format!(
                    "session {slot}: its process (pid {pid}) is stopped by a signal; hint: `kill -CONT {pid}`, or end it"
                );
                found.push(finding(Ill::StuckPeer, text));
            }
            SlotState::Active => {
                let stuck = |index: &usize| {
                    let look = now.channels[*index];
                    let same = before.is_some_and(|before| before.channels[*index] == look);
                    let (waits, unread) = (look.requests.0 != look.requests.1, look.responses.0 != look.responses.1);
                    same && look.session == slot as u32
                        && SlotState::of(look.word) == SlotState::Active
                        && waits
                        && unread
                };
                let channels: Vec<usize> = (0..now.channels.len()).filter(stuck).collect();
                if let Some(first) = channels.first() {
                    let look = now.channels[*first];
                    let text = format!(
                        "session {slot} (pid {pid}) does not read its answers: {} bytes of them are unread on channel {first}, \
                         {} bytes of its requests wait for room; {} of its channels stand still; hint: look at that process, \
                         or end it; nobody else is delayed",
                        look.responses.1.wrapping_sub(look.responses.0),
                        look.requests.1.wrapping_sub(look.requests.0),
                        channels.len()
                    );
                    found.push(finding(Ill::StuckPeer, text));
                }
            }
            _ => {}
        }
    }
    found
}

fn of_extents(segment: &Segment, first: &Look, second: &Look) -> Option<Finding> {
    let nobodys = |look: &Look, owner: u16| {
        let slot = (owner as usize).wrapping_sub(1);
        owner != OWNER_NONE
            && owner != OWNER_WORKER
            && look.slots.get(slot).is_none_or(|word| SlotState::of(*word) == SlotState::Free)
    };
    let leaked: Vec<u16> = (first.extents.iter().zip(&second.extents))
        .filter(|(before, now)| before == now && now.taken)
        .filter(|(before, now)| nobodys(first, before.owner) && nobodys(second, now.owner))
        .map(|(_, now)| now.owner)
        .collect();
    let owner = *leaked.first()?;
    let bytes = leaked.len() as u64 * segment.geometry.extent_bytes as u64;
    let text = format!(
        "{} extents ({bytes} bytes) belong to nobody who lives, the first of them to owner {owner} (session slot {}): a leak; \
         hint: take over with `molt_worker --replace`, which begins with a new arena, and report it",
        leaked.len(),
        owner.wrapping_sub(1)
    );
    Some(finding(Ill::LeakedExtents, text))
}

/// Whether a process stands still by a signal, as far as it can be seen from here.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    pid != 0 && stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}
