//! The worker's side of the protocol: who is connected, what they asked, how they are answered.
//!
//! The way of a request: [`Poller`] copies a frame out of a request ring and hands an [`Inflight`] to the [`Service`];
//! some thread runs it between `begin` and `answer`; `answer` writes the response frame and wakes the client if it sleeps.

mod former;
mod host;
mod inflight;
mod lines;
mod listener;
mod peer;
mod pins;
mod poller;
mod readers;
mod resident;
mod sessions;
mod stall;
mod stop;

pub use former::Former;
pub use host::{Host, NotResident};
pub use inflight::{Answer, AnswerBody, Inflight, Metrics, Payload, Placed, Probe, TableInput};
pub use listener::{Listener, StartError, default_socket};
pub use poller::{Poller, Service};
pub use resident::Resident;
pub use stop::Stop;
