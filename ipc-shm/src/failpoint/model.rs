//! Failpoints as models have them: a thread that stands for a process, and ends where it is told to.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Moment;

loom::thread_local! {
    /// Places that this thread may still pass.
    static LEFT: Cell<Option<u32>> = Cell::new(None);
}

/// What a killed thread unwinds with.
struct Killed;

/// The thread comes by a place.
pub fn pass(_: Moment) {
    LEFT.with(|left| match left.get() {
        Some(0) => resume_unwind(Box::new(Killed)),
        Some(places) => left.set(Some(places - 1)),
        None => {}
    });
}

/// Where a copy of many bytes is interrupted.
pub fn half(len: usize) -> usize {
    len / 2
}

/// Runs `steps` up to the place number `place`, counted from 0; `None`: killed there. Nothing that the thread owns may
/// do its part when it is dropped: the killed do not clean up.
pub fn killed_at<T>(place: u32, steps: impl FnOnce() -> T) -> Option<T> {
    LEFT.with(|left| left.set(Some(place)));
    let ended = catch_unwind(AssertUnwindSafe(steps));
    LEFT.with(|left| left.set(None));
    match ended {
        Ok(done) => Some(done),
        Err(why) if why.is::<Killed>() => None,
        Err(why) => resume_unwind(why),
    }
}
