//! Failpoints: places at which a test stops or kills this process, one before and one after every store to shared memory.
//!
//! They do something only with the feature `failpoints`, for tests alone; without it they are not there. A failpoint is
//! named by the line that stores and by the moment: `ring.rs:190:9/after`. Two environment variables, read once, say
//! what happens:
//!
//! | variable | what |
//! | --- | --- |
//! | `MOLT_FAILPOINT` | `NAME#N=kill` or `NAME#N=stop`: SIGKILL or SIGSTOP when the place is passed the Nth time |
//! | `MOLT_FAILPOINTS_SEEN` | a file that gets the name of every place, once, as it is first passed |

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

#[cfg(not(feature = "failpoints"))]
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
#[cfg(not(feature = "failpoints"))]
pub use disarmed::{half, pass};

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(feature = "failpoints")]
pub use armed::{half, pass};
