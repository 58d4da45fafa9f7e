//! Channels as the worker keeps them: how they are given out, given back by their clients, and taken back from them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::bell;
use crate::checkout;
use crate::doorbell::Woken;
use crate::handshake::{self, Opened, message};
use crate::layout::{SlotState, channel};
use crate::outcome::Outcome;
use crate::ring::{Consumer, Producer, RingPlace};
use crate::slot;

use super::peer::{Peer, ReplyPath, ReplyRing};
use super::poller::{Poller, Token};
use super::sessions::Session;

/// A channel that is in use.
pub(super) struct Line {
    pub requests: Consumer,
    pub path: Arc<ReplyPath>,
    pub generation: u64,
    pub session: u64,
    /// A request waits in the ring for which no answer can be reserved now.
    pub stalled: bool,
    /// The client's end of the doorbell is closed: once the client has given the channel back too, and its requests are
    /// answered, the channel is free.
    pub hung_up: bool,
    /// How often it rang since its bytes were taken.
    rings: u32,
}

/// Bytes are taken after so many rings: each ring is told of by itself (edge-triggered), so they may wait in the socket,
/// which holds about ten times as many, and most wake-ups cost one system call less.
const TAKE_BYTES_AFTER: u32 = 32;
/// What the worker wants to be told of a doorbell.
const BELL_EVENTS: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);
/// A session has at most this part of all channels.
const MOST_OF_ONE: u32 = 4;
/// This part of all channels is for sessions that have none: those of the others may be in use for long.
const FOR_NEWCOMERS: u32 = 8;

impl Line {
    /// The doorbell was rung, or its other end closed: `true`, nothing more will come from it.
    pub fn rung(&mut self, events: EpollFlags) -> bool {
        self.rings += 1;
        if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLERR) {
            self.hung_up = true;
        } else if self.rings >= TAKE_BYTES_AFTER {
            self.take_bytes();
        }
        self.hung_up
    }

    fn take_bytes(&mut self) {
        self.rings = 0;
        self.hung_up |= matches!(bell::empty(self.path.bell.as_fd()), Ok(Woken::HungUp));
    }

    /// Nobody answers on it, and nobody who has answered may still ring: a late ring would clear the ticket of the
    /// channel's next user, whose tickets begin at one again. (An answer is counted before its bell is rung.)
    fn is_at_rest(&mut self) -> bool {
        let nobody_rings = Arc::get_mut(&mut self.path).is_some();
        nobody_rings && self.path.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).taken == 0
    }
}

impl Poller {
    /// Gives a session one more channel, or says why not.
    pub(super) fn open_channel(&mut self, id: u64) -> Result<(), String> {
        let Some(peer) = self.sessions.get(&id).and_then(|session| session.peer.clone()) else {
            return Err("a channel was asked for before hello".into());
        };
        let index = match self.free_channel(id) {
            Ok(index) => index,
            Err(text) => return self.refuse(id, Outcome::Busy, &text),
        };
        match self.give_channel(id, &peer, index) {
            Ok(()) => Ok(()),
            // Not this client's doing: it may ask again.
            Err(error) if is_shortage(&error) => {
                self.free_line(index);
                self.refuse(id, Outcome::Busy, &format!("the worker has no doorbell for another channel: {error}"))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// A channel that nobody has, for a session that wants one more.
    fn free_channel(&mut self, id: u64) -> Result<u32, String> {
        self.free_closed_lines();
        let all = self.host.segment.geometry.channels;
        let own = self.channels_of(id).len();
        let most = (all / MOST_OF_ONE).max(1) as usize;
        if own >= most {
            return Err(format!("this process has {most} channels, as many as one may have of the {all}"));
        }
        let spare = if own == 0 { 0 } else { all / FOR_NEWCOMERS } as usize;
        let free = self.lines.iter().enumerate().filter(|(_, line)| line.is_none());
        if let Some((index, _)) = free.clone().nth(spare) {
            return Ok(index as u32);
        }
        let used = all as usize - free.count();
        self.take_back(id, own).ok_or_else(|| match own {
            0 => format!("all {all} channels are in use"),
            _ => format!(
                "{used} of {all} channels are in use, and the rest are for processes that have none: this one has {own}"
            ),
        })
    }

    fn channels_of(&self, id: u64) -> &[u32] {
        self.sessions.get(&id).map_or(&[], |session| &session.channels)
    }

    /// Takes back an idle channel of the session that has most of them, for one that has only `own`. Where all are in use,
    /// one of them is asked for: its client closes it when it has done with it.
    fn take_back(&mut self, id: u64, own: usize) -> Option<u32> {
        // Who has none takes the last one of whoever does not use it; else two sessions would take one to and fro.
        let least = if own == 0 { 1 } else { own + 2 };
        // One that was cut keeps what it has while its process lives.
        let lives = |session: &Session| session.peer.as_ref().is_some_and(|peer| !peer.gone.load(Ordering::Acquire));
        let others = self.sessions.iter().filter(|(other, session)| **other != id && lives(session));
        let mut others: Vec<(usize, u64)> = others.map(|(other, session)| (session.channels.len(), *other)).collect();
        others.retain(|(count, _)| *count >= least);
        others.sort_unstable_by_key(|(count, other)| (std::cmp::Reverse(*count), *other));
        for (_, other) in &others {
            for index in self.channels_of(*other).to_vec() {
                if self.take_back_line(index) {
                    return Some(index);
                }
            }
        }
        // One more with every question: an event loop never checks its channel in.
        others.iter().any(|(_, other)| self.channels_of(*other).iter().skip(1).any(|index| self.want_line(*index)));
        None
    }

    fn want_line(&self, index: u32) -> bool {
        let (map, geometry) = (&self.host.segment.map, &self.host.segment.geometry);
        let word = map.u64(geometry.channel(index) + channel::CHECKOUT);
        self.lines[index as usize].as_ref().is_some_and(|line| checkout::want(word, line.generation))
    }

    fn take_back_line(&mut self, index: u32) -> bool {
        let (map, geometry) = (&self.host.segment.map, &self.host.segment.geometry);
        let Some(line) = &mut self.lines[index as usize] else { return false };
        let taken = line.is_at_rest()
            && matches!(line.requests.has_frame(), Ok(false))
            && checkout::take_back(map.u64(geometry.channel(index) + channel::CHECKOUT), line.generation);
        if taken {
            self.free_line(index);
        }
        taken
    }

    /// Makes the channel ready and sends the client its end of the doorbell.
    fn give_channel(&mut self, id: u64, peer: &Arc<Peer>, index: u32) -> io::Result<()> {
        let host = self.host.clone();
        let (map, geometry) = (&host.segment.map, &host.segment.geometry);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (bell, theirs): (OwnedFd, OwnedFd) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        let generation = slot::open_channel(map, geometry, index, peer.slot);
        let ring =
            ReplyRing { producer: Producer::new(map.clone(), RingPlace::of_responses(geometry, index)), taken: 0 };
        let path = Arc::new(ReplyPath { index, peer: peer.clone(), bell, ring: ring.into() });
        let requests = Consumer::new(map.clone(), RingPlace::of_requests(geometry, index));
        let watched = self.watch_for(&path.bell, BELL_EVENTS, Token::Bell(index, generation));
        self.lines[index as usize] =
            Some(Line { requests, path, generation, session: id, stalled: false, hung_up: false, rings: 0 });
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.channels.push(index);
        watched?;
        peer.show(map, geometry, SlotState::Active, session.channels.len() as u32);
        let opened = Opened { channel: index, reserved: 0, generation };
        handshake::send(session.socket.as_fd(), message::CHANNEL, &opened.encode(), Some(theirs.as_fd()))
    }

    /// Nobody has the channel any more.
    pub(super) fn free_line(&mut self, index: u32) {
        let Some(line) = self.lines[index as usize].take() else { return };
        if line.stalled {
            self.stall.ends();
        }
        let _ = self.epoll.delete(&line.path.bell);
        slot::free_channel(&self.host.segment.map, &self.host.segment.geometry, index, line.generation);
        if let Some(session) = self.sessions.get_mut(&line.session) {
            session.channels.retain(|channel| *channel != index);
        }
    }

    /// Takes the bytes of all bells that rang. A full one takes no byte more and so tells of no ring more: whoever sends
    /// bytes that nobody asked for would wait for a full look with every request.
    pub(super) fn empty_bells(&mut self) {
        for line in self.lines.iter_mut().flatten().filter(|line| line.rings > 0 && !line.hung_up) {
            line.take_bytes();
            if line.hung_up {
                let _ = self.epoll.delete(&line.path.bell);
            }
        }
    }

    /// Frees channels that their clients have closed while the session goes on.
    pub(super) fn free_closed_lines(&mut self) {
        let host = self.host.clone();
        let (map, geometry) = (&host.segment.map, &host.segment.geometry);
        let closed = |line: &mut Line| {
            let word = map.u64(geometry.channel(line.path.index) + channel::CHECKOUT);
            let left = line.hung_up && checkout::is_given_back(word, line.generation) && line.is_at_rest();
            left.then_some(line.path.index)
        };
        let closed: Vec<u32> = self.lines.iter_mut().flatten().filter_map(closed).collect();
        closed.into_iter().for_each(|index| self.free_line(index));
    }
}

/// Whether the worker itself ran out of something: descriptors of its own or on their way, watches, memory.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOSPC, Errno::ENOMEM, Errno::ENOBUFS, Errno::ETOOMANYREFS];
    error.raw_os_error().is_some_and(|code| shortages.contains(&Errno::from_raw(code)))
}
