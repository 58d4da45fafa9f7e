//! Whether the worker still looks at its requests: its poller leaves the time of every full scan in the segment.
//!
//! A worker that hangs, is stopped or gets no core would cost every caller its whole time-out, and a site its threads.
//! The callers that wait find out; from then on new requests fail at once, until the worker looks again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::layout::HEARTBEAT_AT;
use crate::os::now_ns;
use crate::segment::Segment;

/// A poller scans ten times a second. Twenty scans late is no busy machine.
pub const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Seen silent by somebody for so long: after a pause of the whole machine the worker had its chance to look first.
const SEEN_FOR: Duration = Duration::from_millis(200);

/// What the callers of a session know of their worker's scans.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// When it was first seen silent (CLOCK_MONOTONIC nanoseconds); 0: it was not, as far as anybody has looked.
    seen_ns: AtomicU64,
}

impl Pulse {
    /// A caller has waited for a while without an answer: it looks.
    pub(crate) fn look(&self, segment: &Segment) {
        if silence(segment) > SILENT_AFTER {
            let _ = self.seen_ns.compare_exchange(0, now_ns().max(1), Ordering::Relaxed, Ordering::Relaxed);
        } else {
            self.seen_ns.store(0, Ordering::Relaxed);
        }
    }

    /// For how long the worker has not looked, where that is known to be too long. One load where all is well.
    pub(crate) fn silent(&self, segment: &Segment) -> Option<Duration> {
        let seen = self.seen_ns.load(Ordering::Relaxed);
        if seen == 0 {
            return None;
        }
        let silence = silence(segment);
        if silence <= SILENT_AFTER {
            self.seen_ns.store(0, Ordering::Relaxed);
            return None;
        }
        (now_ns().saturating_sub(seen) > SEEN_FOR.as_nanos() as u64).then_some(silence)
    }
}

/// For how long its poller has not scanned.
pub fn silence(segment: &Segment) -> Duration {
    let scanned = segment.map.u64(HEARTBEAT_AT).load(Ordering::Relaxed).max(segment.header.started_ns);
    Duration::from_nanos(now_ns().saturating_sub(scanned))
}
