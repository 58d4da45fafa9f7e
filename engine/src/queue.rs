//! Where requests wait for a thread: bounded, and fair between client processes, so that one that floods the worker keeps
//! nobody else waiting.

mod lanes;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use crossbeam::channel::{Receiver, Sender, bounded};

use lanes::Lanes;
pub use lanes::Pushed;

/// A bounded queue with one lane a session, and threads that sleep while all are empty.
#[derive(Debug)]
pub struct FairQueue<T> {
    lanes: Mutex<Lanes<T>>,
    /// What waits, for a look without the lock.
    len: AtomicUsize,
    /// A token for every item at least, to wake a thread with: the channel knows best how long to spin before one sleeps.
    /// What leaves without a thread leaves its token behind, for which a thread finds nothing.
    tokens: Sender<()>,
    taken: Receiver<()>,
    closed: AtomicBool,
}

impl<T> FairQueue<T> {
    /// A queue with so many places.
    pub fn new(most: usize) -> Self {
        let (tokens, taken) = bounded(most);
        let (len, closed) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { lanes: Mutex::new(Lanes::new(most)), len, tokens, taken, closed }
    }

    /// Items that wait; a moment later it may be others.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Brings an item of a session, to be taken before `deadline_ns`.
    pub fn push(&self, session: u32, deadline_ns: u64, item: T) -> Pushed<T> {
        let mut lanes = self.lock();
        let pushed = lanes.push(session, deadline_ns, item);
        self.len.store(lanes.len(), Ordering::Relaxed);
        drop(lanes);
        if !matches!(pushed, Pushed::Refused(_)) {
            self.wake_one();
        }
        pushed
    }

    /// How long a session's next item would wait where all places are taken, in items: all of its own, and as many of each
    /// other session.
    pub fn ahead_of(&self, session: u32) -> usize {
        let lanes = self.lock();
        let own = lanes.len_of(session) + 1;
        (own * lanes.sessions().max(1)).min(lanes.len().max(1))
    }

    /// Waits for an item; `None`: the queue is closed, and empty.
    pub fn pop(&self) -> Option<T> {
        loop {
            let _ = self.taken.recv();
            let mut lanes = self.lock();
            if let Some(item) = lanes.pop() {
                self.len.store(lanes.len(), Ordering::Relaxed);
                return Some(item);
            }
            if self.closed.load(Ordering::Acquire) {
                self.wake_one(); // the next one ends too
                return None;
            }
        }
    }

    /// Takes what should have been taken before `now_ns`.
    pub fn take_expired(&self, now_ns: u64) -> Vec<T> {
        self.take(|lanes| lanes.take_expired(now_ns))
    }

    /// Takes what is as described.
    pub fn take_if(&self, is: impl Fn(&T) -> bool) -> Vec<T> {
        self.take(|lanes| lanes.take_if(is))
    }

    fn take(&self, what: impl FnOnce(&mut Lanes<T>) -> Vec<T>) -> Vec<T> {
        if self.len() == 0 {
            return Vec::new(); // whoever brings items is who asks
        }
        let mut lanes = self.lock();
        let taken = what(&mut lanes);
        self.len.store(lanes.len(), Ordering::Relaxed);
        taken
    }

    /// Lets the threads go once nothing waits any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake_one();
    }

    fn wake_one(&self) {
        let _ = self.tokens.try_send(()); // full: there are as many tokens as there are places
    }

    fn lock(&self) -> MutexGuard<'_, Lanes<T>> {
        self.lanes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const NEVER: u64 = u64::MAX;

    #[test]
    fn threads_take_every_item_once_and_end_with_the_queue() {
        const ITEMS: u64 = 20_000;
        let queue = FairQueue::new(64);
        let (sum, taken) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(item) = queue.pop() {
                        sum.fetch_add(item, Ordering::Relaxed);
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for item in 0..ITEMS {
                // One that displaces another loses none here: the loser is brought again.
                let mut next = Some((item as u32 % 5, item));
                while let Some((session, item)) = next.take() {
                    match queue.push(session, NEVER, item) {
                        Pushed::Waits => {}
                        Pushed::Displaced(other) => next = Some((other as u32 % 5, other)),
                        Pushed::Refused(same) => {
                            std::thread::yield_now();
                            next = Some((session, same));
                        }
                    }
                }
                // Now and then the threads find nothing and go to sleep.
                if item % 1_000 == 0 {
                    while taken.load(Ordering::Relaxed) <= item {
                        std::thread::yield_now();
                    }
                }
            }
            queue.close();
        });
        assert_eq!((taken.into_inner(), sum.into_inner()), (ITEMS, ITEMS * (ITEMS - 1) / 2));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_waits_when_the_queue_is_closed_is_still_taken() {
        let queue = FairQueue::new(2);
        assert_eq!(queue.push(0, NEVER, 'a'), Pushed::Waits);
        queue.close();
        assert_eq!((queue.pop(), queue.pop()), (Some('a'), None));
    }

    #[test]
    fn the_places_before_a_sessions_next_item_are_its_own_and_as_many_of_the_others() {
        let queue = FairQueue::new(10);
        assert_eq!(queue.ahead_of(0), 1);
        (0..8).for_each(|item| assert_eq!(queue.push(0, NEVER, item), Pushed::Waits));
        (0..2).for_each(|item| assert_eq!(queue.push(1, NEVER, item), Pushed::Waits));
        assert_eq!((queue.ahead_of(0), queue.ahead_of(1), queue.ahead_of(2)), (10, 6, 2));
    }
}
