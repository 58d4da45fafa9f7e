//! The worker's side of the protocol: who is connected, what they asked, how they are answered.
//!
//! The way of a request: [`Poller`] copies a frame out of a request ring and hands an [`Inflight`] to the [`Service`];
//! some thread runs it between `begin` and `answer`; `answer` writes the response frame and wakes the client if it sleeps.

mod host;
mod inflight;
mod peer;
mod poller;
mod readers;

pub use host::Host;
pub use inflight::{Answer, AnswerBody, Inflight, Metrics, Payload, Probe, TableInput};
pub use poller::{Poller, Service, StartError, Stop, default_socket};
