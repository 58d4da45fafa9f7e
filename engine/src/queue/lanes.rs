//! Fair queueing: one FIFO lane a session, served in turns (round robin); when all places are taken, whoever waits with most
//! makes room (longest queue drop). Both are max-min fair: a session gets what it asks for, or as much as anybody gets.

use std::collections::VecDeque;

/// Requests that wait, by session.
#[derive(Debug)]
pub struct Lanes<T> {
    /// By the session's slot; empty where nothing of it waits.
    lanes: Vec<VecDeque<Waiting<T>>>,
    /// Sessions of which something waits, whose turn comes next first.
    turns: VecDeque<u32>,
    len: usize,
    most: usize,
    /// No deadline of what waits is earlier: most looks for expired ones end here.
    earliest_ns: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    deadline_ns: u64,
    item: T,
}

/// What became of an item that was brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    /// It waits.
    Waits,
    /// It waits, and the newest item of the session with most of them does not any more.
    Displaced(T),
    /// All places are taken, and its session has its fair share of them.
    Refused(T),
}

impl<T> Lanes<T> {
    /// Lanes with so many places in all.
    pub fn new(most: usize) -> Self {
        Self { lanes: Vec::new(), turns: VecDeque::new(), len: 0, most, earliest_ns: u64::MAX }
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Items of a session that wait.
    pub fn len_of(&self, session: u32) -> usize {
        self.lanes.get(session as usize).map_or(0, VecDeque::len)
    }

    /// Sessions that wait.
    pub fn sessions(&self) -> usize {
        self.turns.len()
    }

    /// Brings an item, to be taken before `deadline_ns`.
    pub fn push(&mut self, session: u32, deadline_ns: u64, item: T) -> Pushed<T> {
        let own = self.len_of(session);
        let mut displaced = None;
        if self.len >= self.most {
            // As much as the others have or nearly so: one item less there would only be one more here.
            let longest = self.turns.iter().copied().max_by_key(|other| self.len_of(*other));
            let Some(longest) = longest.filter(|longest| self.len_of(*longest) > own + 1) else {
                return Pushed::Refused(item);
            };
            // The newest: it has waited least.
            displaced = self.lanes[longest as usize].pop_back().map(|waiting| waiting.item);
            self.len -= 1;
        }
        if self.lanes.len() <= session as usize {
            self.lanes.resize_with(session as usize + 1, VecDeque::new);
        }
        if own == 0 {
            self.turns.push_back(session);
        }
        self.lanes[session as usize].push_back(Waiting { deadline_ns, item });
        self.len += 1;
        self.earliest_ns = self.earliest_ns.min(deadline_ns);
        displaced.map_or(Pushed::Waits, Pushed::Displaced)
    }

    /// Takes the oldest item of the session whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let session = self.turns.pop_front()?;
        let lane = &mut self.lanes[session as usize];
        let waiting = lane.pop_front()?;
        if !lane.is_empty() {
            self.turns.push_back(session);
        }
        self.len -= 1;
        Some(waiting.item)
    }

    /// Takes what should have been taken before `now_ns`.
    pub fn take_expired(&mut self, now_ns: u64) -> Vec<T> {
        if now_ns < self.earliest_ns {
            return Vec::new();
        }
        self.take_where(|waiting| waiting.deadline_ns <= now_ns)
    }

    /// Takes what is as described, whoever it belongs to.
    pub fn take_if(&mut self, is: impl Fn(&T) -> bool) -> Vec<T> {
        self.take_where(|waiting| is(&waiting.item))
    }

    fn take_where(&mut self, is: impl Fn(&Waiting<T>) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        let lanes = &mut self.lanes;
        self.earliest_ns = u64::MAX;
        self.turns.retain(|session| {
            let lane = &mut lanes[*session as usize];
            if lane.iter().any(&is) {
                let (gone, left): (VecDeque<_>, VecDeque<_>) = std::mem::take(lane).into_iter().partition(&is);
                taken.extend(gone.into_iter().map(|waiting| waiting.item));
                *lane = left;
            }
            let earliest = lane.iter().map(|waiting| waiting.deadline_ns).min();
            self.earliest_ns = self.earliest_ns.min(earliest.unwrap_or(u64::MAX));
            !lane.is_empty()
        });
        self.len -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests;
