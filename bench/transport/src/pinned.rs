//! Two sides that only spin never give their core away: on one core each would spin through its whole time slice while the
//! other has the answer. So each gets a core of its own, whichever peer it is.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::peer::{Place, Tried, Waits};

/// Which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The calling thread.
    Client,
    /// The serving process.
    Server,
}

/// Pins the calling thread (and what it starts) to its side's core, if both sides spin and there are two cores.
pub fn pin(place: &Place, side: Side) -> Tried<()> {
    if place.waits != Waits::Spin || place.clients > 1 {
        return Ok(());
    }
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own)?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
    let (Some(first), Some(last)) = (cores.next(), cores.last()) else { return Ok(()) };
    let mut chosen = CpuSet::new();
    chosen.set(if side == Side::Client { first } else { last })?;
    Ok(sched_setaffinity(own, &chosen)?)
}
