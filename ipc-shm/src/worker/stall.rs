//! Channels whose clients do not read their answers: how often the poller looks whether there is room again.

use std::time::{Duration, Instant};

use crate::bell::LONGEST_SLEEP;

const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Lines on which a request waits for room in the response ring. Nobody rings for that room: it would cost a client a fence
/// for every answer that it reads. So the poller looks by itself, soon at first and then ever more seldom: a client that is
/// stopped costs a worker without work no wake-up beyond its full looks. (One that goes on says so with its next request.)
#[derive(Debug)]
pub(super) struct Stall {
    lines: usize,
    pause: Duration,
    look_at: Instant,
}

impl Stall {
    pub fn none() -> Self {
        Self { lines: 0, pause: FIRST_PAUSE, look_at: Instant::now() }
    }

    /// A line has no room; `new`: it had some until now.
    pub fn begins(&mut self, new: bool) {
        self.lines += 1;
        if new {
            self.pause = FIRST_PAUSE;
            self.look_at = Instant::now() + FIRST_PAUSE;
        }
    }

    /// A stalled line has room, is looked at, or is gone.
    pub fn ends(&mut self) {
        self.lines -= 1;
    }

    /// Whether it is time to look at the stalled lines; the next time comes after twice the pause.
    pub fn is_due(&mut self) -> bool {
        if self.lines == 0 {
            return false;
        }
        let now = Instant::now();
        let due = now >= self.look_at;
        if due {
            self.pause = (self.pause * 2).min(LONGEST_SLEEP);
            self.look_at = now + self.pause;
        }
        due
    }

    /// How long the poller may sleep, milliseconds.
    pub fn longest_sleep(&self) -> u16 {
        let longest = match self.lines {
            0 => LONGEST_SLEEP,
            _ => self.look_at.saturating_duration_since(Instant::now()).clamp(FIRST_PAUSE, LONGEST_SLEEP),
        };
        longest.as_nanos().div_ceil(1_000_000) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it sleeps between the looks of two seconds, in milliseconds.
    fn looks(stall: &mut Stall) -> Vec<u16> {
        let mut slept = Vec::new();
        while slept.iter().map(|slept| u32::from(*slept)).sum::<u32>() < 2000 {
            slept.push(stall.longest_sleep());
            stall.look_at = Instant::now(); // that time has passed
            assert!(stall.is_due() && !stall.is_due(), "once a pause");
        }
        slept
    }

    #[test]
    fn a_line_that_stays_stalled_is_looked_at_ever_more_seldom() {
        let mut stall = Stall::none();
        assert!(!stall.is_due() && stall.longest_sleep() == 100);
        stall.begins(true);
        let slept = looks(&mut stall);
        assert!(slept[0] == 1 && slept.is_sorted() && slept.len() < 30, "{slept:?}");
        assert_eq!(slept.last(), Some(&100));
        stall.ends();
        stall.begins(false); // looked at, and still without room
        assert!(looks(&mut stall)[0] > 50);
        stall.begins(true);
        assert_eq!(stall.longest_sleep(), 1, "another one is looked at soon");
    }
}
