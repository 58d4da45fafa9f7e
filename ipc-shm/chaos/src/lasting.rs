//! A client that lives through the whole of a soak, on a stage of its own: what leaks in a client leaks here, since all others
//! are gone after seconds.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::oracle::{Life, Runs, Tally, judge};
use crate::process::{End, patience, within};
use crate::roles::client::Manner;
use crate::stage::{Actor, Arm, Stage, Worker, finish};

/// Unhurried: hours of it are to fit into a journal.
const PAUSE_US: u64 = 20_000;

/// The client and its worker, which dies now and then: coming back is where a client could forget something.
pub struct Lasting {
    stage: Stage,
    worker: Worker,
    client: Actor,
    runs: Runs,
}

impl Lasting {
    /// Starts both.
    pub fn begin(stage: Stage, seed: u64) -> Result<Self, String> {
        let worker = stage.serving_worker()?;
        let echo_only = !stage.keeps_journal();
        let manner = Manner { threads: 2, event_loop: false, pause_us: PAUSE_US, seed, echo_only };
        let client = stage.client(&manner, &Arm::default())?;
        Ok(Self { stage, worker, client, runs: Runs::default() })
    }

    /// The client's process.
    pub fn pid(&self) -> u32 {
        self.client.process.pid()
    }

    /// Kills its worker, and waits until the next one serves.
    pub fn kill_worker(&mut self) -> Result<(), String> {
        if !self.stage.keeps_journal() {
            let pid = self.stage.serving()?.header.worker_pid;
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            let another = || self.stage.serving().is_ok_and(|segment| segment.header.worker_pid != pid);
            return within(patience(), another)
                .then_some(())
                .ok_or_else(|| format!("the supervisor does not replace worker {pid} in time"));
        }
        self.worker.process.kill();
        let mut dead = std::mem::replace(&mut self.worker, self.stage.serving_worker()?);
        dead.read(&mut self.runs);
        Ok(())
    }

    /// Ends both in good order: what was counted, and what was owed and not kept.
    pub fn end(mut self) -> Result<(Tally, Vec<String>), String> {
        let mut violations = finish(std::slice::from_mut(&mut self.client));
        if !self.stage.keeps_journal() {
            let _ = kill(Pid::from_raw(self.worker.process.pid() as i32), Signal::SIGTERM);
        }
        match self.worker.process.finish()? {
            End::Good => {}
            end => violations.push(format!("the lasting client's worker ended as {end:?}")),
        }
        self.worker.read(&mut self.runs);
        self.client.read();
        let Actor { number, records, .. } = &self.client;
        let life = Life { client: *number, records, killed: false, disturbed: true };
        let (tally, broken) = judge(&[life], self.stage.keeps_journal().then_some(&self.runs));
        violations.extend(self.stage.explained(broken));
        violations.extend(self.stage.accusations());
        violations.extend(self.stage.is_empty().err());
        Ok((tally, violations))
    }
}
