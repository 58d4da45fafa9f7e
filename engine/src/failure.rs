//! What a request ends in when it does not end well.

use molt_ipc_shm::Outcome;
use serde_json::Value;

/// One request's failure: its outcome, what to tell the caller, and (where an entry names them) HTTP status and details.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Never `Outcome::Ok`.
    pub outcome: Outcome,
    /// An HTTP status of the entry's own choice (404, 409, 422); `None` means the outcome's usual one.
    pub status: Option<u16>,
    /// Names the object, its state and the numbers; ends in `hint:` where one helps.
    pub message: String,
    /// Details for programs, for example `{"index": 3, "field": "qty"}`.
    pub details: Option<Value>,
}

impl Failure {
    /// A failure with the outcome's usual HTTP status and no details.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, status: None, message: message.into(), details: None }
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Outcome::InvalidInput, message)
    }

    /// The worker is wrong.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Outcome::Internal, message)
    }
}
