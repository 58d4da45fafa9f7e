//! The ways in which a request ends: exactly one of these, exactly once.

/// How a request ended. The number travels in response frames and through the C ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Answered.
    Ok = 0,
    /// The request itself is wrong.
    InvalidInput = 1,
    /// No entry has that name.
    UnknownEntry = 2,
    /// The request is larger than the worker takes.
    TooLarge = 3,
    /// The caller took it back.
    Cancelled = 4,
    /// No room now: queue, arena, slots or leases.
    Busy = 5,
    /// Its deadline passed.
    Timeout = 6,
    /// It never reached a worker: safe to send again.
    Unavailable = 7,
    /// The worker died or left while it ran: only an idempotent request is sent again.
    WorkerLost = 8,
    /// The worker failed.
    Internal = 9,
}

impl Outcome {
    /// Every outcome, in the order of its number.
    pub const ALL: [Outcome; 10] = [
        Outcome::Ok,
        Outcome::InvalidInput,
        Outcome::UnknownEntry,
        Outcome::TooLarge,
        Outcome::Cancelled,
        Outcome::Busy,
        Outcome::Timeout,
        Outcome::Unavailable,
        Outcome::WorkerLost,
        Outcome::Internal,
    ];

    /// The outcome of that number; `None` for a number no outcome has.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(code as usize).copied()
    }

    /// The name used in counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::InvalidInput => "invalid_input",
            Outcome::UnknownEntry => "unknown_entry",
            Outcome::TooLarge => "too_large",
            Outcome::Cancelled => "cancelled",
            Outcome::Busy => "busy",
            Outcome::Timeout => "timeout",
            Outcome::Unavailable => "unavailable",
            Outcome::WorkerLost => "lost",
            Outcome::Internal => "internal",
        }
    }
}
