//! A child process: started, stopped, continued, killed, ended in good order.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything that works takes, on a machine that is busy with other things. `MOLT_CHAOS_PATIENCE_MS` shortens it
/// where something is broken on purpose, and would be waited for in vain.
pub fn patience() -> Duration {
    static PATIENCE: OnceLock<Duration> = OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let asked = std::env::var("MOLT_CHAOS_PATIENCE_MS").ok().and_then(|text| text.parse().ok());
        Duration::from_millis(asked.unwrap_or(20_000))
    })
}

/// Asks until the answer is yes or the time is over.
pub fn within(longest: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + longest;
    let mut pause = Duration::from_micros(200);
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(4));
    }
}

/// A process's state, as the kernel says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or sleeps.
    Alive,
    /// SIGSTOP.
    Stopped,
    /// Ended, waited for or not.
    Dead,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, in good order.
    Good,
    /// By SIGKILL.
    Killed,
    /// In any other way.
    Bad(std::process::ExitStatus),
}

/// A child; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    end: Option<End>,
}

impl Process {
    /// Starts it; its input stays open until it is told to end.
    pub fn start(command: &mut Command) -> std::io::Result<Self> {
        Ok(Self { child: command.stdin(Stdio::piped()).spawn()?, end: None })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        if self.end.is_none() {
            let _ = kill(Pid::from_raw(self.pid() as i32), signal);
        }
    }

    /// SIGSTOP.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// SIGKILL, and until it is gone.
    pub fn kill(&mut self) -> End {
        self.signal(Signal::SIGKILL);
        self.wait()
    }

    /// What it does now. Dead is who has been waited for: a process whose first thread has ended may still run others.
    pub fn state(&mut self) -> State {
        if self.ended().is_some() {
            return State::Dead;
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        match stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()) {
            Some('T' | 't') => State::Stopped,
            _ => State::Alive,
        }
    }

    /// Tells it to end in good order.
    pub fn tell_to_end(&mut self) {
        drop(self.child.stdin.take());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<End> {
        use std::os::unix::process::ExitStatusExt;
        if self.end.is_none() {
            let status = self.child.try_wait().ok().flatten()?;
            self.end = Some(match status.signal() {
                Some(signal) if signal == Signal::SIGKILL as i32 => End::Killed,
                None if status.success() => End::Good,
                _ => End::Bad(status),
            });
        }
        self.end
    }

    fn wait(&mut self) -> End {
        within(patience(), || self.ended().is_some());
        self.end.unwrap_or(End::Killed)
    }

    /// Ends it in good order, or says that it does not.
    pub fn finish(&mut self) -> Result<End, String> {
        self.go_on();
        self.tell_to_end();
        if within(patience(), || self.ended().is_some()) {
            return Ok(self.end.unwrap_or(End::Good));
        }
        let pid = self.pid();
        let stacks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|task| {
            let wchan = std::fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
            let syscall = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
            format!("{wchan} [{}]", syscall.split_whitespace().next().unwrap_or_default())
        });
        Err(format!("process {pid} does not end in time: {:?}", stacks.collect::<Vec<_>>()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
