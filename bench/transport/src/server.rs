//! A peer's serving process: started from this program, stopped between its turns, gone with its caller.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::peer::{Peer, Place, Tried};
use crate::pinned::{self, Side};

/// A process that serves. Dropping it closes its input and waits for its end.
#[derive(Debug)]
pub struct Server(Child);

/// In the serving process: it ends with its caller, also while it is paused, and has a core of its own if it spins.
pub fn begin(place: &Place) -> Tried<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    pinned::pin(place, Side::Server)
}

const LEAVES_WITHIN: Duration = Duration::from_secs(10);

impl Server {
    /// Starts it, with `environment` beside its own, and waits until it serves.
    pub fn start(peer: &dyn Peer, place: &Place, environment: &[(&str, &str)]) -> Tried<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(peer.name()).args(place.words()).envs(environment.iter().copied());
        let mut server = Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        if let Some(output) = server.0.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        if line.trim() == "serving" {
            return Ok(server);
        }
        Err(format!("{} does not serve: {}", peer.name(), server.0.wait()?).into())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    /// It gets no time while another peer has its turn: a server that spins would take a core.
    pub fn pause(&self) -> Tried<()> {
        Ok(kill(self.pid(), Signal::SIGSTOP)?)
    }

    /// Its turn.
    pub fn go_on(&self) -> Tried<()> {
        Ok(kill(self.pid(), Signal::SIGCONT)?)
    }

    /// Processor time it has used, all threads.
    pub fn cpu(&self) -> Tried<Duration> {
        Ok(clock_gettime(clock_getcpuclockid(self.pid())?)?.into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.go_on();
        drop(self.0.stdin.take());
        let end = Instant::now() + LEAVES_WITHIN;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
