//! `--supervise`: a parent that starts the worker again when it dies.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use tracing::{error, info, warn};

/// The first pause before a restart; it doubles while the worker keeps dying early.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker that lived this long did not crash in a loop.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// A worker that could not start has said why: starting it again would say it again.
const COULD_NOT_START: i32 = 1;

/// Runs the worker as a child until it ends in good order or the supervisor is told to stop.
pub fn run() -> Result<ExitCode, String> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().map_err(|errno| format!("cannot block signals: {errno}"))?;
    let events = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| format!("cannot wait for signals: {errno}"))?;
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let mut child = spawn()?;
        info!(pid = child.id(), "the worker is started");
        let (status, told) = wait(&mut child, &events)?;
        if told || status.success() {
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        if status.code() == Some(COULD_NOT_START) {
            error!("the worker could not start; see its message above");
            return Ok(ExitCode::FAILURE);
        }
        pause = if started.elapsed() > HEALTHY_AFTER { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        warn!(%status, pause_ms = pause.as_millis() as u64, "the worker died; it is started again");
        if told_within(&events, pause)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// The same program with the same arguments, as a worker that dies with its supervisor.
fn spawn() -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--supervise");
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C reaches the supervisor alone, which hands it on once.
    command.args(arguments).process_group(0);
    let prepare = || {
        // The child begins with the signals of a program that nobody supervises, and never outlives its supervisor.
        SigSet::all().thread_unblock()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        Ok(())
    };
    // SAFETY: between fork and exec only two system calls are made, both async-signal-safe.
    unsafe { command.pre_exec(prepare) };
    command.spawn().map_err(|error| format!("cannot start the worker: {error}"))
}

/// Waits for the child's end, handing signals on. `true`: the supervisor was told to stop.
fn wait(child: &mut Child, events: &SignalFd) -> Result<(std::process::ExitStatus, bool), String> {
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| format!("cannot wait for the worker: {error}"))? {
            return Ok((status, told));
        }
        if told_within(events, Duration::from_millis(500))? {
            told = true;
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
    }
}

/// Waits for a signal, at most that long; whether it said stop.
fn told_within(events: &SignalFd, longest: Duration) -> Result<bool, String> {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(longest.as_millis() as i32).unwrap_or(PollTimeout::ZERO);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => return Err(format!("cannot wait for signals: {errno}")),
    }
    let mut told = false;
    while let Ok(Some(event)) = events.read_signal() {
        told |= event.ssi_signo != Signal::SIGCHLD as u32;
    }
    Ok(told)
}
