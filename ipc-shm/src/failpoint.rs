//! Failpoints: places at which a test stops or kills this process, one before and one after every store to shared memory
//! and every system call that changes what other processes see.
//!
//! They do something only with the feature `failpoints`, for tests alone; without it they are not there. A failpoint is
//! named by the place that stores and by the moment: `ring.rs:190:44/after`. `molt-chaos list` numbers them all. Two
//! environment variables, read once, say what happens:
//!
//! | variable | what |
//! | --- | --- |
//! | `MOLT_FAILPOINT` | `NAME#N=kill` or `NAME#N=stop`: SIGKILL or SIGSTOP when the place is passed the Nth time |
//! | `MOLT_FAILPOINTS_SEEN` | a file that gets `NAME#N` when a place is passed for the first, 2nd, 4th, 8th, ... time |
//!
//! In a model a thread stands for a process: `killed_at` ends it at the nth place.

/// On which side of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Nothing is stored yet.
    Before,
    /// A copy of many bytes is half done.
    Halfway,
    /// All is stored.
    After,
}

#[cfg(not(any(loom, feature = "failpoints")))]
mod disarmed {
    /// Nothing.
    #[inline(always)]
    pub fn pass(_: super::Moment) {}

    /// Copies are not halved.
    #[inline(always)]
    pub fn half(_: usize) -> usize {
        0
    }
}
#[cfg(not(any(loom, feature = "failpoints")))]
pub use disarmed::{half, pass};

#[cfg(all(not(loom), feature = "failpoints"))]
mod armed;
#[cfg(all(not(loom), feature = "failpoints"))]
pub use armed::{half, pass};

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub use model::{half, killed_at, pass};

/// Does what others see (a system call that makes, moves or removes something), with a failpoint on either side.
#[inline(always)]
#[track_caller]
pub fn around<T>(act: impl FnOnce() -> T) -> T {
    pass(Moment::Before);
    let result = act();
    pass(Moment::After);
    result
}
