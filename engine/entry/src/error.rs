//! How an entry says that a request did not end well.

use serde::Serialize;

use crate::abi;

/// The ways in which an entry can end a request other than by answering it. Their HTTP status is what Django answers
/// unless the error names one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// The request is wrong: 400.
    InvalidInput = abi::OUTCOME_INVALID_INPUT,
    /// Nobody waits any more: 499.
    Cancelled = abi::OUTCOME_CANCELLED,
    /// No room now, later perhaps: 503 with Retry-After.
    Busy = abi::OUTCOME_BUSY,
    /// The time is up: 504.
    Timeout = abi::OUTCOME_TIMEOUT,
    /// The entry is wrong: 500.
    Internal = abi::OUTCOME_INTERNAL,
}

/// An entry's error. All of it reaches the caller, so write it for the caller.
///
/// ```
/// use molt_entry::{EntryError, Outcome, json};
/// let error = EntryError::invalid("order 7 is shipped already").status(409).details(json!({"order": 7}));
/// assert_eq!((error.outcome(), error.message()), (Outcome::InvalidInput, "order 7 is shipped already"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryError {
    outcome: Outcome,
    status: u16,
    message: String,
    details: Vec<u8>,
}

impl EntryError {
    /// An error with the outcome's usual HTTP status and no details.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, status: 0, message: message.into(), details: Vec::new() }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Outcome::InvalidInput, message)
    }

    /// The entry is wrong, or what it depends on.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Outcome::Internal, message)
    }

    /// Names the HTTP status: 404, 409, 422 or another from 400 to 599. Any other leaves the outcome's usual one.
    pub fn status(mut self, status: u16) -> Self {
        self.status = if (400..600).contains(&status) { status } else { 0 };
        self
    }

    /// Adds details for programs: anything that serde can serialise, for example `json!({"index": 3, "field": "qty"})`
    /// ([`json!`](crate::json) is exported again by this crate). What it cannot serialise is left out.
    pub fn details(mut self, details: impl Serialize) -> Self {
        self.details = rmp_serde::to_vec_named(&details).unwrap_or_default();
        self
    }

    /// How the request ends.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What the caller reads.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The failure in the ABI's form; it borrows from this error.
    pub(crate) fn as_failure(&self) -> abi::Failure {
        abi::Failure {
            size: size_of::<abi::Failure>() as u32,
            outcome: self.outcome as u32,
            status: self.status.into(),
            reserved: 0,
            message: abi::Span::of(self.message.as_bytes()),
            details: abi::Span::of(&self.details),
        }
    }
}

impl std::fmt::Display for EntryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EntryError {}
