//! The peers, one a file.

#[cfg(not(feature = "iceoryx2"))]
mod absent;
mod cache_line;
#[cfg(feature = "iceoryx2")]
mod iceoryx;
pub mod molt;
mod rings;
mod unix_socket;

use crate::peer::{Peer, Tried};

#[cfg(feature = "iceoryx2")]
const ICEORYX: &dyn Peer = &iceoryx::Iceoryx;
#[cfg(not(feature = "iceoryx2"))]
const ICEORYX: &dyn Peer = &absent::Absent("iceoryx2");

/// All of them: molt first, its floor last.
pub const ALL: [&dyn Peer; 5] = [&molt::Molt, &rings::Rings, ICEORYX, &unix_socket::UnixSocket, &cache_line::CacheLine];

/// The peer of that name.
pub fn find(name: &str) -> Tried<&'static dyn Peer> {
    let names = || ALL.map(|peer| peer.name()).join(", ");
    let found = ALL.into_iter().find(|peer| peer.name() == name);
    found.ok_or_else(|| format!("no peer is called {name}; there are {}", names()).into())
}
