//! What this program plays as a child of itself: a worker, a client, a client that breaks the rules.

pub mod blocks;
pub mod client;
pub mod event_loop;
pub mod forks;
pub mod rude;
pub mod worker;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use molt_ipc_shm::Address;
use nix::sys::signal::Signal;

/// A violation planted on purpose, to show that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Break {
    /// The worker forgets a block.
    Leak,
    /// The worker runs a request twice.
    Double,
    /// The client forgets an outcome.
    Lose,
    /// A bit of an answer is another.
    Garble,
    /// The worker forgets a descriptor.
    Descriptor,
    /// The worker leaves a name in /dev/shm.
    Name,
}

/// Where the roles of one stage write.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The segment.
    #[arg(long)]
    pub shm: String,
    /// The worker's socket.
    #[arg(long)]
    pub socket: PathBuf,
    /// The segment has no name: the socket says where the worker is.
    #[arg(long)]
    pub memfd: bool,
    /// The stage's folder.
    #[arg(long)]
    pub folder: PathBuf,
    /// This process's number in the stage.
    #[arg(long)]
    pub number: u32,
    /// What is broken on purpose.
    #[arg(long = "break")]
    pub broken: Option<Break>,
}

impl Place {
    /// Where clients find the worker.
    pub fn address(&self) -> Address {
        match self.memfd {
            true => Address::Socket(self.socket.clone()),
            false => Address::Name { shm: self.shm.clone(), socket: None },
        }
    }

    /// This process's journal.
    pub fn journal(&self) -> PathBuf {
        journal(&self.folder, self.number)
    }

    /// Whether that violation is due now: each 20th time.
    pub fn breaks(&self, what: Break) -> bool {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        self.broken == Some(what) && COUNT.fetch_add(1, Ordering::Relaxed) % 20 == 19
    }

    /// Writes down what no process may ever see.
    pub fn accuse(&self, what: &str) {
        self.append(VIOLATIONS, &format!("process {} ({}): {what}\n", self.number, std::process::id()));
    }

    /// Writes down why a request failed, for whoever asks later.
    pub fn explain(&self, seq: u32, why: &str) {
        self.append(FAILURES, &format!("client {} request {seq} : {why}\n", self.number));
    }

    fn append(&self, name: &str, line: &str) {
        let path = self.folder.join(name);
        let file = File::options().create(true).append(true).open(path).expect("a file for violations");
        (&file).write_all(line.as_bytes()).expect("room for a violation");
    }
}

/// The file in a stage's folder that says why requests failed.
pub const FAILURES: &str = "failures";
/// The file in a stage's folder that must stay empty.
pub const VIOLATIONS: &str = "violations";

/// The journal of a process.
pub fn journal(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.journal"))
}

/// A child never outlives whoever started it; it ends in good order when its input is closed.
pub fn until_input_ends(then: impl FnOnce() + Send + 'static) -> Arc<AtomicBool> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("a signal at the parent's death");
    let over = Arc::new(AtomicBool::new(false));
    let set = over.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        set.store(true, Ordering::Release);
        then();
    });
    over
}
