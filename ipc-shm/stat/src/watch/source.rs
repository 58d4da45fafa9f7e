//! Where the segment comes from: found by its name or socket, looked at for as long as its worker lives, and looked for
//! again when it does not. The looking-for may take a second (a worker that hangs answers nobody on its socket), so a
//! thread does it: the screen never waits.

use std::sync::mpsc::{Receiver, Sender, channel};

use molt_ipc_shm::client::{Failure, LOOK_WITHIN};
use molt_ipc_shm::doctor::{Ill, Look};
use molt_ipc_shm::layout::STATE_SERVING;
use molt_ipc_shm::{Address, Segment};

use super::snapshot::Snapshot;

type Found = Result<Segment, Failure>;

/// A segment, and how to find the next one.
#[derive(Debug)]
pub struct Source {
    by_name: bool,
    current: Option<(Segment, Option<Look>)>,
    asked: bool,
    wanted: Sender<()>,
    found: Receiver<Found>,
    /// Why there is nothing new, in words.
    pub trouble: Option<String>,
}

impl Source {
    /// Starts looking.
    pub fn new(address: Address) -> Self {
        let (wanted, orders) = channel();
        let (results, found) = channel();
        let by_name = matches!(address, Address::Name { .. });
        std::thread::spawn(move || {
            while orders.recv().is_ok() {
                let unavailable = |error: molt_ipc_shm::SegmentError| {
                    Failure::new(molt_ipc_shm::Outcome::Unavailable, error.to_string())
                };
                let looked = address.look(LOOK_WITHIN);
                // It is mapped for reading alone: looking at a segment can change nothing in it.
                if results.send(looked.and_then(|segment| segment.read_only().map_err(unavailable))).is_err() {
                    return;
                }
            }
        });
        let mut source = Self { by_name, current: None, asked: false, wanted, found, trouble: None };
        source.ask();
        source
    }

    fn ask(&mut self) {
        self.asked = self.asked || self.wanted.send(()).is_ok();
    }

    /// Takes what has been found. `true`: it is another segment than before.
    pub fn refresh(&mut self) -> bool {
        let Ok(found) = self.found.try_recv() else { return false };
        self.asked = false;
        match found {
            Ok(next) => {
                self.trouble = None;
                let another = self.current.as_ref().is_none_or(|(now, _)| now.header.instance != next.header.instance);
                if another {
                    self.current = Some((next, None));
                }
                another
            }
            Err(failure) => {
                self.trouble = Some(failure.message);
                false
            }
        }
    }

    /// Looks at the segment, if there is one, and asks for its successor where there may be one.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        let Some((segment, before)) = &mut self.current else {
            self.ask();
            return None;
        };
        let (snapshot, look) = Snapshot::of(segment, before.as_ref());
        *before = Some(look);
        // A name costs nothing to ask: a successor that took it over is seen at once. A socket has to be answered, by a
        // worker that has better things to do: only when this one does not serve, or does not answer.
        let stuck = snapshot.findings.iter().any(|finding| finding.ill == Ill::StuckWorker);
        if self.by_name || !snapshot.worker.alive || segment.state() != STATE_SERVING || stuck {
            self.ask();
        }
        Some(snapshot)
    }
}
