//! `--supervise`: a parent that starts the worker again when it dies, and a new one beside it when it is told to.
//!
//! The supervisor keeps the listening socket, so that clients which come while no worker serves wait in its queue. It holds
//! a lock on the worker's segment, so that the name of a worker that died is not given away, and says there what it does.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::worker::Listener;
use molt_ipc_shm::{LastEnd, Supervised, Supervision, segment};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid, pipe2};
use tracing::{error, info, warn};

use crate::arguments::{Arguments, Handed};
use crate::watchdog::Says;
use crate::worker::NAME_TAKEN;

/// The first pause before a restart; it doubles while workers die young.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker dies young when it lived for less than so many of the last pauses: starting again and again then never takes
/// more than a small part of the time, and one that is killed now and then is back at once.
const YOUNG: u32 = 10;
/// Clients wait through a pause that is not longer than this; in a longer one they are told.
const BEARABLE_PAUSE: Duration = Duration::from_secs(2);
/// A worker that could not start has said why: starting it again would say it again.
const COULD_NOT_START: i32 = 1;
/// A former worker that has not left by then hangs: it gives itself 60 s.
const LEAVING_MOST: Duration = Duration::from_secs(75);
/// A worker whose entries do not end is not replaced sooner than that after the last one was: a start costs more than a
/// thread that is missing.
const REPLACE_EVERY: Duration = Duration::from_secs(5);
/// How often children are looked at even if no signal came.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs the worker as a child until it ends in good order or the supervisor is told to stop.
pub fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let listener = Listener::bind(arguments.socket()).map_err(|error| error.to_string())?;
    let supervision = Supervision { pid: std::process::id(), ..Supervision::default() };
    let mut supervisor = Supervisor {
        arguments,
        program,
        signals: Signals::block()?,
        listener,
        supervision,
        pause: FIRST_PAUSE,
        served: None,
        has_served: false,
        leaving: Vec::new(),
    };
    let ended = supervisor.run();
    supervisor.clean_up();
    ended
}

struct Supervisor<'a> {
    arguments: &'a Arguments,
    /// Found once: later its name may stand for a new program, which is what an upgrade starts.
    program: PathBuf,
    signals: Signals,
    /// The socket of the worker that serves, or of the one that died last.
    listener: Listener,
    supervision: Supervision,
    pause: Duration,
    /// The segment of the worker that serves, or of the one that died last.
    served: Option<Supervised>,
    has_served: bool,
    /// Workers whose successor serves; they finish what they run.
    leaving: Vec<(Worker, Instant)>,
}

/// A child.
struct Worker {
    child: Child,
    /// Where it says how it is.
    says: Option<File>,
    /// Entries of it do not end: it is to be replaced.
    overdue: Option<Says>,
    started: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    First,
    Again,
    /// Beside one that serves.
    Upgrade,
}

/// Why a worker is not attended to any more.
enum Ended {
    /// For good: the supervisor ends too.
    ForGood(ExitCode),
    /// It died after that time.
    Died(Duration),
}

impl Supervisor<'_> {
    fn run(&mut self) -> Result<ExitCode, String> {
        let mut start = Start::First;
        loop {
            if !self.listener.is_placed() && start == Start::Again {
                // Somebody has removed the socket's path: nobody would find the next worker.
                self.listener = Listener::bind(self.arguments.socket()).map_err(|error| error.to_string())?;
            }
            let worker = self.start(start, &self.listener)?;
            let lived = match self.attend(worker)? {
                Ended::ForGood(code) => return Ok(code),
                Ended::Died(lived) => lived,
            };
            let young = lived < self.pause * YOUNG;
            let first = self.supervision.in_a_row == 0 || !young;
            self.pause = if first { FIRST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
            self.supervision.in_a_row = if young { self.supervision.in_a_row + 1 } else { 1 };
            self.supervision.restarts += 1;
            self.supervision.next_start_ns = Some(now_ns() + self.pause.as_nanos() as u64);
            self.make_way();
            self.say();
            let what = self.supervision.to_string();
            warn!(pause_ms = self.pause.as_millis() as u64, "the worker died; it is started again: {what}");
            if self.rest()? {
                return Ok(ExitCode::SUCCESS);
            }
            start = if self.has_served { Start::Again } else { Start::First };
        }
    }

    /// The program with the same arguments, as a worker that dies with its supervisor.
    fn start(&self, start: Start, listener: &Listener) -> Result<Worker, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("cannot start the worker: {error}");
        let (ready, its_end) = pipe2(OFlag::O_CLOEXEC).map_err(|error| cannot(&error))?;
        let handed = Handed {
            listener: listener.as_fd().as_raw_fd(),
            inode: listener.inode(),
            ready: its_end.as_raw_fd(),
            first: start == Start::First,
        };
        let own = |argument: &std::ffi::OsString| {
            argument == "--supervise" || (argument == "--replace" && start != Start::First)
        };
        let mut command = Command::new(&self.program);
        command.args(std::env::args_os().skip(1).filter(|argument| !own(argument)));
        command.args((start == Start::Upgrade).then_some("--replace"));
        command.args(["--supervised", &handed.to_string()]);
        // A group of its own: Ctrl-C reaches the supervisor alone, which hands it on once.
        command.process_group(0);
        let supervisor = Pid::this();
        let prepare = move || {
            // The child begins with the signals of a program that nobody supervises, and never outlives its supervisor:
            // not even one that died before the kernel was told to say so.
            SigSet::all().thread_unblock()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            if getppid() != supervisor {
                return Err(ErrorKind::NotConnected.into());
            }
            for number in [handed.listener, handed.ready] {
                // SAFETY: both are open: the parent holds them until the child has begun.
                fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made, all of them async-signal-safe.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().map_err(|error| cannot(&error))?;
        drop(its_end);
        info!(pid = child.id(), "the worker is started");
        Ok(Worker { child, says: Some(ready.into()), overdue: None, started: Instant::now() })
    }

    /// Waits for the worker's end; on the way it may be succeeded by another one.
    fn attend(&mut self, mut current: Worker) -> Result<Ended, String> {
        let mut upcoming: Option<(Worker, Listener)> = None;
        // What belongs to a worker that died while its successor was starting: clients may wait there.
        let mut _kept: Option<Listener> = None;
        let (mut told, mut upgrade) = (false, false);
        // A successor died after it had taken the name: nobody new finds `current`. When the next one is started.
        let mut lost: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        let (mut replaced, mut in_vain) = (None::<Instant>, false);
        loop {
            if current.serves_now() {
                _kept = None;
                self.serves(&current);
            }
            if let Some((next, listener)) = upcoming.take_if(|(next, _)| next.serves_now()) {
                if lost.take().is_some() {
                    // It took the place of the one that died, so it found nobody to tell.
                    current.tell();
                }
                self.listener = listener;
                self.serves(&next);
                in_vain = false;
                let former = std::mem::replace(&mut current, next);
                info!(
                    pid = current.child.id(),
                    former = former.child.id(),
                    "the new worker serves; the former one leaves"
                );
                self.leaving.push((former, Instant::now()));
            }
            if let Some((next, _)) = &mut upcoming
                && let Some(status) = next.ended()?
            {
                (upcoming, in_vain) = (None, true);
                if self.has_name() {
                    error!(%status, "the new worker could not start, the old one goes on; see its message above");
                } else {
                    error!(%status, "the new worker died with the name; another one is started, the old one goes on meanwhile");
                    lost = Some(Instant::now() + pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if let Some(status) = current.ended()? {
                self.note_end(status);
                if told {
                    if let Some((next, listener)) = upcoming.take() {
                        self.end_start(next, &listener);
                    }
                    self.wait_for_leaving()?;
                    return Ok(Ended::ForGood(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }));
                }
                if let Some((next, listener)) = upcoming.take() {
                    warn!(%status, "the worker died while its successor was starting");
                    _kept = Some(std::mem::replace(&mut self.listener, listener));
                    current = next;
                    continue;
                }
                match status.code() {
                    Some(0) => return Ok(Ended::ForGood(ExitCode::SUCCESS)),
                    Some(code) if code == i32::from(NAME_TAKEN) => {
                        error!("the name is another worker's now; see the message above");
                        return Ok(Ended::ForGood(ExitCode::FAILURE));
                    }
                    Some(COULD_NOT_START) if !self.has_served => {
                        error!("the worker could not start; see its message above");
                        return Ok(Ended::ForGood(ExitCode::FAILURE));
                    }
                    _ => return Ok(Ended::Died(current.started.elapsed())),
                }
            }
            upgrade |= lost.is_some_and(|at| at <= Instant::now());
            // It says so again and again: what cannot be done now is done then.
            if let Some(overdue) = current.overdue.take_if(|_| !told && upcoming.is_none()) {
                let pid = current.child.id();
                if in_vain && overdue == Says::Blocked {
                    error!(pid, "no thread of the worker is free, and no other could be started: it is killed");
                    let _ = current.child.kill();
                } else if replaced.is_none_or(|last| last.elapsed() >= REPLACE_EVERY) {
                    warn!(pid, "an entry of the worker does not end: the worker is replaced");
                    (replaced, upgrade) = (Some(Instant::now()), true);
                }
            }
            if std::mem::take(&mut upgrade) && !told && upcoming.is_none() {
                match self.upgrade() {
                    Ok(next) => upcoming = Some(next),
                    Err(error) => error!("no upgrade, the worker goes on: {error}"),
                }
            }
            self.reap_leaving()?;
            let pipes = [Some(&current), upcoming.as_ref().map(|(next, _)| next)];
            let pipes = pipes.into_iter().flatten().filter_map(|worker| worker.says.as_ref()).map(File::as_fd);
            match self.signals.wait(pipes, LOOK_EVERY)? {
                Said::Nothing => {}
                Said::Upgrade => upgrade = true,
                Said::Stop => {
                    told = true;
                    // The one that is starting too: it may serve, and be the current one, before the present one has ended.
                    let upcoming = upcoming.iter().map(|(next, _)| next);
                    let leaving = self.leaving.iter().map(|(worker, _)| worker);
                    [&current].into_iter().chain(upcoming).chain(leaving).for_each(Worker::tell);
                }
            }
        }
    }

    /// Whether clients that look for a worker find the one that serves.
    fn has_name(&self) -> bool {
        self.listener.is_placed() && self.served.as_ref().is_none_or(Supervised::has_name)
    }

    fn upgrade(&self) -> Result<(Worker, Listener), String> {
        // A socket of its own: the old worker's newcomers and the new one's never meet.
        let listener = Listener::bind(self.arguments.socket()).map_err(|error| error.to_string())?;
        let worker = self.start(Start::Upgrade, &listener)?;
        Ok((worker, listener))
    }

    /// Kills a worker that is starting, and removes the name and the path if it had come so far.
    fn end_start(&self, mut starting: Worker, listener: &Listener) {
        let _ = starting.child.kill().and_then(|()| starting.child.wait());
        match Supervised::of_child(&self.arguments.address(), starting.child.id()) {
            Ok(segment) => segment.retire(listener),
            Err(_) => listener.unlink(), // without a name of its own the path is all there is
        }
    }

    /// A child serves: its segment carries what is said of it from now on.
    fn serves(&mut self, worker: &Worker) {
        self.has_served = true;
        self.supervision.next_start_ns = None;
        match Supervised::of_child(&self.arguments.address(), worker.child.id()) {
            Ok(segment) => self.served = Some(segment),
            Err(error) => warn!(%error, "nothing can be said in the worker's segment"),
        }
        self.say();
    }

    /// A worker is dead: what it had is not to be in its successor's way.
    fn make_way(&mut self) {
        if let Some(segment) = &mut self.served
            && let Err(error) = segment.make_way()
        {
            warn!(%error, "the dead worker's segment keeps some of its pages for now");
        }
    }

    fn say(&self) {
        if let Some(segment) = &self.served {
            segment.say(&self.supervision);
        }
    }

    fn note_end(&mut self, status: ExitStatus) {
        let code = status.code().map(|code| LastEnd::Exit(code as u8));
        let signal = status.signal().map(|signal| LastEnd::Signal(signal as u8));
        self.supervision.last_end = signal.or(code).map(|end| (end, now_ns()));
    }

    /// The pause before a restart. `true`: the supervisor was told to stop.
    fn rest(&mut self) -> Result<bool, String> {
        let end = Instant::now() + self.pause;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let patient = self.pause <= BEARABLE_PAUSE;
            let newcomers = (!patient).then(|| self.listener.as_fd());
            match self.signals.wait(newcomers, left)? {
                Said::Stop => return Ok(true),
                Said::Upgrade => return Ok(false), // whoever says so has mended something
                Said::Nothing => {}
            }
            if !patient {
                let (which, what) = (self.arguments.address(), &self.supervision);
                let why = format!("the worker of {which} dies again and again: {what}; hint: its log says why");
                self.listener.turn_away(&why);
            }
            self.reap_leaving()?;
        }
    }

    fn reap_leaving(&mut self) -> Result<(), String> {
        for (worker, since) in &mut self.leaving {
            if since.elapsed() > LEAVING_MOST && worker.ended()?.is_none() {
                warn!(pid = worker.child.id(), "the former worker hangs; it is killed");
                let _ = worker.child.kill();
            }
        }
        let mut failed = None;
        self.leaving.retain_mut(|(worker, _)| match worker.ended() {
            Ok(status) => status.is_none(),
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        failed.map_or(Ok(()), Err)
    }

    fn wait_for_leaving(&mut self) -> Result<(), String> {
        while !self.leaving.is_empty() {
            if self.signals.wait(None, LOOK_EVERY)? == Said::Stop {
                self.leaving.iter().for_each(|(worker, _)| worker.tell());
            }
            self.reap_leaving()?;
        }
        Ok(())
    }

    /// A worker that ended in good order has taken its names along; one that died left them, and so did one that died before
    /// it had the name: no start that would sweep follows.
    fn clean_up(self) {
        if let Some(segment) = self.served {
            segment.retire(&self.listener);
        }
        if !self.arguments.memfd {
            segment::sweep(&self.arguments.shm);
        }
    }
}

impl Worker {
    /// Whether it serves since just now. What else it says is kept.
    fn serves_now(&mut self) -> bool {
        let mut serves = false;
        while let Some(pipe) = &mut self.says {
            let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::ZERO) != Ok(1) {
                break;
            }
            match Says::hear(pipe) {
                Some(Says::Serves) => serves = true,
                Some(overdue) => self.overdue = Some(overdue),
                None => self.says = None, // it is dead: that is told otherwise
            }
        }
        serves
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        self.child.try_wait().map_err(|error| format!("cannot wait for the worker: {error}"))
    }

    /// Told to stop. It has not been waited for, so the pid is its own.
    fn tell(&self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
    }
}

/// Signals, as a descriptor.
struct Signals(SignalFd);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Upgrade,
    Stop,
}

impl Signals {
    fn block() -> Result<Self, String> {
        let mut signals = SigSet::empty();
        let all = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];
        all.into_iter().for_each(|signal| signals.add(signal));
        signals.thread_block().map_err(|errno| format!("cannot block signals: {errno}"))?;
        let events = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        events.map(Self).map_err(|errno| format!("cannot wait for signals: {errno}"))
    }

    /// Waits for a signal or one of the descriptors, at most that long.
    fn wait<'f>(&self, others: impl IntoIterator<Item = BorrowedFd<'f>>, longest: Duration) -> Result<Said, String> {
        let mut polled = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        polled.extend(others.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(longest.as_nanos().div_ceil(1_000_000) as i32).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("cannot wait for signals: {errno}")),
        }
        let mut said = Said::Nothing;
        while let Ok(Some(event)) = self.0.read_signal() {
            match Signal::try_from(event.ssi_signo as i32) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => said = Said::Stop,
                // From a terminal that went away it means what it always meant.
                Ok(Signal::SIGHUP) if event.ssi_code == nix::libc::SI_KERNEL => said = Said::Stop,
                Ok(Signal::SIGHUP) if said == Said::Nothing => said = Said::Upgrade,
                _ => {}
            }
        }
        Ok(said)
    }
}
