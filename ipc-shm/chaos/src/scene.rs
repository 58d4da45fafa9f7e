//! One run around one failpoint: worker, victim, bystanders; what happens, and whether all that is owed was kept.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::segment::SHM_DIR;

use crate::baseline::{Usage, forgotten};
use crate::oracle::{Life, Tally, judge};
use crate::process::{End, State, patience, within};
use crate::roles::Break;
use crate::roles::client::Manner;
use crate::stage::{Actor, Arm, Stage, Worker, finish, runs_of};

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Victim {
    /// A client.
    Client,
    /// The worker.
    Worker,
}

impl fmt::Display for Victim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Victim::Client => "client",
            Victim::Worker => "worker",
        })
    }
}

/// How often (at least) a recorded load passed each place, by who passed it.
pub type Seen = HashMap<(Victim, String), u64>;

/// What a run showed.
#[derive(Debug, Default)]
pub struct Report {
    /// The victim came by the place.
    pub reached: bool,
    /// What was owed and not kept.
    pub violations: Vec<String>,
    /// What was counted.
    pub tally: Tally,
    /// How long until the victim's session was free.
    pub reclaimed: Option<Duration>,
}

/// A run's circumstances.
#[derive(Debug, Clone)]
pub struct Scene {
    /// What the clients do.
    pub seed: u64,
    /// What is broken on purpose.
    pub broken: Option<Break>,
    /// Stop and continue instead of kill.
    pub stop: bool,
    /// Segments without a name.
    pub memfd: bool,
    /// How long the load may take to come by the place.
    pub patience: Duration,
}

fn manner(seed: u64, pause_us: u64) -> Manner {
    Manner { threads: 2, event_loop: true, pause_us, seed, echo_only: false }
}

/// The bystander is answered that often after a time.
fn served(bystander: &mut Actor, after: u64, times: usize) -> Result<(), String> {
    let went_on = within(patience(), || bystander.answered_since(after) >= times);
    went_on.then_some(()).ok_or_else(|| {
        let state = bystander.process.state();
        let times_seen = bystander.answered_since(after);
        format!("the bystander (client {}, {state:?}) was answered {times_seen} times in time", bystander.number)
    })
}

fn is_alive(worker: &mut Worker) -> bool {
    worker.process.state() == State::Alive
}

/// A client comes and is answered a few times.
fn visit(stage: &Stage, worker: &mut Worker, seed: u64, visitors: &mut Vec<Actor>) -> Result<(), String> {
    let mut visitor = stage.client(&manner(seed, 0), &Arm::default())?;
    within(patience(), || !is_alive(worker) || visitor.answered_since(0) >= 20);
    visitors.push(visitor);
    Ok(())
}

/// What a start that was killed half-way leaves: an unpublished object with a header, and a socket on which nobody listens.
fn leave_behind(stage: &Stage) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("leftovers: {error}");
    if stage.memfd {
        return stage.leave_socket("s.deadbeef").map_err(failed);
    }
    let object = Path::new(SHM_DIR).join(&stage.shm[1..]);
    let head = std::fs::read(&object).map_err(failed)?;
    std::fs::write(format!("{}.00000000deadbeef.new", object.display()), &head[..4096]).map_err(failed)?;
    stage.leave_socket("s.deadbeef").map_err(failed)
}

/// Runs a load that passes what can be passed, and reads what was.
pub fn record(seed: u64, memfd: bool) -> Result<Seen, String> {
    let scene = Scene { seed, broken: None, stop: false, memfd, patience: Duration::from_millis(1500) };
    let mut seen = Seen::new();
    for victim in [Victim::Client, Victim::Worker] {
        let stage = Stage::new(None, None, memfd)?;
        let path = stage.file("seen");
        let arm = Arm { trap: None, seen: Some(path.clone()) };
        let mut report = Report::default();
        match victim {
            Victim::Client => scene.client(&stage, &arm, &mut report)?,
            Victim::Worker => scene.worker(&stage, &arm, &mut report)?,
        }
        if !report.violations.is_empty() {
            return Err(format!("a load without any kill is broken already: {}", report.violations.join("\n  ")));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| format!("what was passed: {error}"))?;
        for (name, count) in text.lines().filter_map(|line| line.rsplit_once('#')) {
            let count = count.parse().unwrap_or(1);
            let most = seen.entry((victim, name.to_owned())).or_insert(0);
            *most = count.max(*most);
        }
    }
    Ok(seen)
}

impl Scene {
    /// Lets the victim die (or stop) as it passes a place for the nth time.
    pub fn kill_at(&self, victim: Victim, failpoint: &str, nth: u64) -> Report {
        let mut report = Report::default();
        let arm = Arm::trap(failpoint, nth, self.stop);
        let result = Stage::new(self.broken, None, self.memfd).and_then(|stage| {
            let result = match victim {
                Victim::Client => self.client(&stage, &arm, &mut report),
                Victim::Worker => self.worker(&stage, &arm, &mut report),
            };
            report.violations.extend(stage.accusations());
            result
        });
        report.violations.extend(result.err());
        report
    }

    /// A client is the victim.
    fn client(&self, stage: &Stage, arm: &Arm, report: &mut Report) -> Result<(), String> {
        let mut worker = stage.serving_worker()?;
        let baseline = Usage::read(stage)?;
        let mut bystander = stage.client(&manner(self.seed, 400), &Arm::default())?;
        served(&mut bystander, 0, 5)?;
        let mut victim = stage.client(&manner(self.seed + 1, 0), arm)?;
        let pid = victim.process.pid();
        // Some places are passed only as it leaves.
        if !within(self.patience, || victim.process.state() != State::Alive) {
            victim.process.tell_to_end();
            within(patience(), || victim.process.state() != State::Alive);
        }
        let hit = now_ns();
        let stopped = victim.process.state() == State::Stopped;
        if stopped {
            report.reached = true;
            served(&mut bystander, hit, 20)?;
            victim.process.go_on();
            served(&mut bystander, now_ns(), 5)?;
            report.violations.extend(finish(std::slice::from_mut(&mut victim)));
        } else {
            match victim.process.ended() {
                Some(End::Killed) => report.reached = true,
                Some(End::Good) => {}
                other => report.violations.push(format!("the victim ended as {other:?}")),
            }
            report.reclaimed = Some(forgotten(stage, pid)?).filter(|_| report.reached);
            served(&mut bystander, hit, 10)?;
        }
        report.violations.extend(finish(std::slice::from_mut(&mut bystander)));
        baseline.returns(stage)?;
        let ended = worker.process.finish()?;
        if ended != End::Good {
            report.violations.push(format!("the worker ended as {ended:?}"));
        }
        let killed = report.reached && !stopped;
        self.close(stage, &mut [worker], &mut [(bystander, false, false), (victim, killed, false)], report)
    }

    /// The worker is the victim.
    fn worker(&self, stage: &Stage, arm: &Arm, report: &mut Report) -> Result<(), String> {
        // A dead worker's name and the traces of a start that was killed lie in its way.
        let mut first = stage.serving_worker()?;
        let baseline = Usage::read(stage)?;
        first.process.kill();
        leave_behind(stage)?;
        let mut victim = stage.worker(arm)?;
        let mut serving = stage.serves(&mut victim);
        if !serving && victim.process.state() == State::Stopped {
            report.reached = true;
            std::thread::sleep(Duration::from_millis(20)); // as long as it stands still, nobody else can tell
            victim.process.go_on();
            serving = stage.serves(&mut victim);
        }
        let mut bystander = stage.client(&manner(self.seed, 100), &Arm::default())?;
        let (mut visitors, mut leaving) = (Vec::new(), false);
        if serving {
            self.load(stage, &mut victim, &mut bystander, &mut visitors)?;
            if victim.process.state() == State::Alive {
                leaving = true;
                victim.process.tell_to_end();
                within(patience(), || victim.process.state() != State::Alive);
            }
            if victim.process.state() == State::Stopped {
                report.reached = true;
                std::thread::sleep(Duration::from_millis(20));
                victim.process.go_on();
                if !leaving {
                    served(&mut bystander, now_ns(), 20)?;
                    victim.process.tell_to_end();
                }
            }
        }
        within(patience(), || victim.process.ended().is_some());
        match victim.process.ended() {
            Some(End::Killed) => report.reached = true,
            Some(End::Good) => {}
            other => report.violations.push(format!("the worker ended as {other:?}")),
        }
        let successor = stage.serving_worker()?;
        served(&mut bystander, now_ns(), 10)?;
        let pid = bystander.process.pid();
        if !within(patience(), || old_mappings(stage, pid) == 0) {
            report.violations.push(format!("client {} keeps the dead worker's memory mapped", bystander.number));
        }
        report.violations.extend(finish(std::slice::from_mut(&mut bystander)));
        report.violations.extend(finish(&mut visitors));
        baseline.returns(stage)?;
        let mut lives = vec![(bystander, false, true)];
        lives.extend(visitors.into_iter().map(|visitor| {
            let killed = visitor.was_killed;
            (visitor, killed, true)
        }));
        let mut workers = [first, victim, successor];
        let ended = workers[2].process.finish()?;
        if ended != End::Good {
            report.violations.push(format!("the successor ended as {ended:?}"));
        }
        self.close(stage, &mut workers, &mut lives, report)
    }

    /// Clients come, are killed in the middle, break the rules, leave: whatever makes a worker give and take back.
    fn load(
        &self,
        stage: &Stage,
        victim: &mut Worker,
        bystander: &mut Actor,
        visitors: &mut Vec<Actor>,
    ) -> Result<(), String> {
        let end = std::time::Instant::now() + self.patience;
        let mut round = 0;
        while is_alive(victim) && (round < 2 || std::time::Instant::now() < end) {
            round += 1;
            visit(stage, victim, self.seed + round * 2, visitors)?;
            let last = visitors.len() - 1;
            visitors[last].process.kill();
            visitors[last].was_killed = true;
            if round == 1 && is_alive(victim) {
                let mut rude = stage.rude()?;
                let pid = rude.pid();
                within(Duration::from_secs(2), || !is_alive(victim) || has_been_cut(stage, pid));
                rude.kill();
            }
            if is_alive(victim) {
                visit(stage, victim, self.seed + round * 2 + 1, visitors)?;
                let last = visitors.len() - 1;
                visitors[last].process.tell_to_end();
                within(patience(), || !is_alive(victim) || visitors[last].process.ended().is_some());
            }
            within(patience(), || !is_alive(victim) || bystander.answered_since(0) >= 20);
        }
        Ok(())
    }

    /// Everybody has ended: nothing is left, and every request has had what it is owed.
    fn close(
        &self,
        stage: &Stage,
        workers: &mut [Worker],
        cast: &mut [(Actor, bool, bool)],
        report: &mut Report,
    ) -> Result<(), String> {
        report.violations.extend(stage.is_empty().err());
        let runs = runs_of(workers);
        cast.iter_mut().for_each(|(actor, ..)| {
            actor.read();
        });
        let lives: Vec<Life<'_>> = cast
            .iter()
            .map(|(actor, killed, disturbed)| Life {
                client: actor.number,
                records: &actor.records,
                killed: *killed,
                disturbed: *disturbed,
            })
            .collect();
        let (tally, broken) = judge(&lives, Some(&runs));
        report.tally = tally;
        report.violations.extend(stage.explained(broken));
        Ok(())
    }
}

/// Mappings of objects that have lost the segment's name; of those that never had one, all but the newest.
fn old_mappings(stage: &Stage, pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    if stage.memfd {
        let objects = maps.lines().filter(|line| line.contains("/memfd:molt"));
        let inodes: HashSet<&str> = objects.filter_map(|line| line.split_whitespace().nth(4)).collect();
        return inodes.len().saturating_sub(1);
    }
    maps.lines().filter(|line| line.contains(&stage.shm[1..]) && line.ends_with("(deleted)")).count()
}

fn has_been_cut(stage: &Stage, pid: u32) -> bool {
    stage.segment().is_ok_and(|segment| {
        let report = molt_ipc_shm::stat::Report::of(&segment);
        report.sessions.iter().any(|session| session.pid == pid && session.state == "quarantined")
    })
}
