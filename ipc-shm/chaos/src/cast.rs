//! A stage in motion: a worker, clients that are killed, bystanders that never are; and what is checked between two rounds.

use std::time::Duration;

use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::stat::Report;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::StdRng;

use crate::baseline::Usage;
use crate::journal::{Event, Plan};
use crate::oracle::{Life, Runs, judge};
use crate::process::{End, State, patience, within};
use crate::roles::client::Manner;
use crate::stage::{Actor, Arm, Stage, Worker, finish};
use crate::totals::Totals;

/// Clients that may be killed at any moment.
const VICTIMS: usize = 3;
/// Clients that are not.
const BYSTANDERS: usize = 2;

/// Names of failpoints, as a recorded load passed them.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// By clients.
    pub client: Vec<String>,
    /// By workers.
    pub worker: Vec<String>,
}

impl Places {
    /// Those whose names contain none of these.
    pub fn without(mut self, except: &[String]) -> Self {
        let stays = |name: &String| !except.iter().any(|part| name.contains(part.as_str()));
        self.client.retain(stays);
        self.worker.retain(stays);
        self
    }
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL for a client.
    KillClient,
    /// A new client that dies, or stops, at a failpoint.
    TrapClient,
    /// SIGSTOP for a client; then SIGCONT, or SIGKILL.
    StopClient,
    /// SIGKILL for the worker.
    KillWorker,
    /// SIGKILL for the worker; its successor dies at a failpoint.
    TrapWorker,
    /// SIGSTOP for the worker; then SIGCONT, or SIGKILL.
    StopWorker,
    /// SIGKILL for the worker and all victims.
    KillAll,
}

/// The processes of a stage.
pub struct Cast {
    stage: Stage,
    baseline: Usage,
    worker: Worker,
    foreign: bool,
    victims: Vec<Actor>,
    bystanders: Vec<Actor>,
    /// Clients that were killed in this round.
    gone: Vec<Actor>,
    runs: Runs,
    random: StdRng,
    places: Places,
    /// The worker died, stopped or was not there in this round.
    disturbed: bool,
    /// What was counted since it was last taken.
    pub totals: Totals,
}

impl Cast {
    /// A stage with a worker that has served already.
    pub fn new(stage: Stage, places: Places, random: StdRng) -> Result<Self, String> {
        let worker = stage.serving_worker()?;
        let foreign = !stage.keeps_journal();
        let baseline = Usage::read(&stage)?;
        let (victims, bystanders, gone) = Default::default();
        let (runs, totals) = Default::default();
        let mut cast = Self {
            stage,
            baseline,
            worker,
            foreign,
            victims,
            bystanders,
            gone,
            runs,
            random,
            places,
            disturbed: false,
            totals,
        };
        if foreign {
            // Its runtimes open what they need with the first requests.
            cast.begin()?;
            cast.served(200)?;
            cast.bystanders.iter_mut().for_each(|client| client.process.tell_to_end());
            finish(&mut cast.bystanders);
            cast.bystanders.clear();
            within(patience(), || {
                Usage::read(&cast.stage).is_ok_and(|usage| usage.sessions.is_empty() && usage.arena == 0)
            });
            cast.baseline = Usage::read(&cast.stage)?;
        }
        Ok(cast)
    }

    fn manner(&mut self, pause_us: u64) -> Manner {
        Manner { threads: 2, event_loop: true, pause_us, seed: self.random.random(), echo_only: self.foreign }
    }

    /// The worker's process, as the segment names it: under a supervisor it is not the one that was started.
    pub fn worker_pid(&self) -> Option<u32> {
        if !self.foreign {
            return Some(self.worker.process.pid());
        }
        self.stage.serving().ok().map(|segment| segment.header.worker_pid)
    }

    /// The stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Starts the bystanders.
    pub fn begin(&mut self) -> Result<(), String> {
        self.disturbed = false;
        while self.bystanders.len() < BYSTANDERS {
            let manner = self.manner(1500);
            self.bystanders.push(self.stage.client(&manner, &Arm::default())?);
        }
        self.served(3)
    }

    /// Every bystander is answered that often from now on. A worker that was to die at some place may do so meanwhile.
    pub fn served(&mut self, times: usize) -> Result<(), String> {
        let (now, end) = (now_ns(), std::time::Instant::now() + patience());
        for index in 0..self.bystanders.len() {
            while !within(Duration::from_millis(100), || self.bystanders[index].answered_since(now) >= times) {
                self.revive()?;
                if std::time::Instant::now() > end {
                    let state = self.bystanders[index].process.state();
                    let (number, wait) = (self.bystanders[index].number, patience());
                    return Err(format!("bystander {number} ({state:?}) was not served within {wait:?}"));
                }
            }
        }
        Ok(())
    }

    fn chosen(&mut self, places: &[String], most: f64, stop: bool) -> Arm {
        if places.is_empty() {
            return Arm::default();
        }
        let place = &places[self.random.random_range(0..places.len())];
        // As often early as late: 1 to e^most, evenly over the powers.
        Arm::trap(place, self.random.random_range(0.0..most).exp() as u64, stop)
    }

    fn pause(&mut self, most_ms: f64) {
        std::thread::sleep(Duration::from_secs_f64(self.random.random_range(0.0..most_ms) / 1000.0));
    }

    fn fill(&mut self) -> Result<(), String> {
        while self.victims.len() < VICTIMS {
            let manner = self.manner(300);
            self.victims.push(self.stage.client(&manner, &Arm::default())?);
        }
        Ok(())
    }

    /// Looks who died or stopped by a failpoint meanwhile.
    fn look(&mut self) -> Result<(), String> {
        let mut index = 0;
        while index < self.victims.len() {
            match self.victims[index].process.state() {
                State::Alive => index += 1,
                State::Stopped => {
                    self.totals.stopped_clients += 1;
                    self.victims[index].process.go_on();
                    index += 1;
                }
                State::Dead => {
                    self.totals.trapped_clients += 1;
                    self.bury(index)?;
                }
            }
        }
        self.revive()
    }

    /// Sees to it that a worker serves.
    fn revive(&mut self) -> Result<(), String> {
        if self.foreign {
            let serves = within(patience(), || self.stage.serving().is_ok());
            return serves.then_some(()).ok_or_else(|| "the supervisor starts no worker in time".to_owned());
        }
        match self.worker.process.state() {
            State::Alive => Ok(()),
            State::Stopped => {
                self.worker.process.go_on();
                Ok(())
            }
            State::Dead => {
                self.totals.trapped_workers += 1;
                self.replace(&Arm::default())
            }
        }
    }

    /// Starts another worker in the place of the dead one.
    fn replace(&mut self, arm: &Arm) -> Result<(), String> {
        self.disturbed = true;
        self.worker.process.kill();
        let mut next = self.stage.worker(arm)?;
        let served = self.stage.serves(&mut next);
        std::mem::swap(&mut self.worker, &mut next);
        next.read(&mut self.runs);
        match (served, arm.trap.is_some()) {
            (true, _) => Ok(()),
            (false, true) => {
                // Dead, or stopped, before it served.
                self.totals.trapped_workers += 1;
                self.replace(&Arm::default())
            }
            (false, false) => Err("a worker does not begin to serve".into()),
        }
    }

    fn kill_worker(&mut self, successor: &Arm) -> Result<(), String> {
        self.disturbed = true;
        if !self.foreign {
            self.worker.process.kill();
            return self.replace(successor);
        }
        let Some(pid) = self.worker_pid() else { return self.revive() };
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        let is_another = || self.stage.serving().is_ok_and(|segment| segment.header.worker_pid != pid);
        let back = within(patience(), is_another);
        back.then_some(()).ok_or_else(|| format!("the supervisor does not replace worker {pid} in time"))
    }

    fn kill_client(&mut self, index: usize) -> Result<(), String> {
        if self.victims[index].process.kill() == End::Killed {
            self.totals.killed_clients += 1;
        }
        self.bury(index)
    }

    /// A client is dead: what it had must come back while the others go on.
    fn bury(&mut self, index: usize) -> Result<(), String> {
        let mut dead = self.victims.swap_remove(index);
        if let Some(End::Bad(status)) = dead.process.ended() {
            self.totals.violations.push(format!("client {} ended by itself: {status}", dead.number));
        }
        dead.was_killed = true;
        let pid = dead.process.pid();
        self.gone.push(dead);
        let started = std::time::Instant::now();
        let (mut back, end) = (false, started + patience());
        while !back && std::time::Instant::now() < end {
            if !self.foreign {
                self.revive()?; // a worker that was to die at some place may do so now
            }
            back = within(Duration::from_millis(200), || {
                self.stage.segment().is_ok_and(|open| !Report::of(&open).sessions.iter().any(|one| one.pid == pid))
            });
        }
        self.totals.reclaimed.add(started.elapsed());
        self.fill()?;
        back.then_some(()).ok_or_else(|| format!("the session of the killed process {pid} is still there in time"))
    }

    /// Something happens.
    pub fn act(&mut self, act: Act) -> Result<(), String> {
        self.fill()?;
        self.look()?;
        self.pause(6.0);
        let index = self.random.random_range(0..self.victims.len());
        match act {
            Act::KillClient => self.kill_client(index),
            Act::TrapClient => {
                let stop = self.random.random_bool(0.2);
                let places = std::mem::take(&mut self.places.client);
                let arm = self.chosen(&places, 6.0, stop);
                self.places.client = places;
                let manner = self.manner(0);
                let trapped = self.stage.client(&manner, &arm)?;
                self.victims.push(trapped);
                let last = self.victims.len() - 1;
                let hit = within(Duration::from_millis(150), || self.victims[last].process.state() != State::Alive);
                if hit { self.look() } else { self.kill_client(last) }
            }
            Act::StopClient => {
                self.victims[index].process.stop();
                self.pause(30.0);
                if self.random.random_bool(0.5) {
                    return self.kill_client(index);
                }
                self.totals.stopped_clients += 1;
                self.victims[index].process.go_on();
                Ok(())
            }
            Act::KillWorker => {
                self.kill_worker(&Arm::default())?;
                self.totals.killed_workers += 1;
                self.served(1)
            }
            Act::TrapWorker => {
                let places = std::mem::take(&mut self.places.worker);
                let arm = self.chosen(&places, 7.5, false);
                self.places.worker = places;
                self.kill_worker(&arm)?;
                self.totals.killed_workers += 1;
                Ok(())
            }
            Act::StopWorker => {
                self.disturbed = true;
                let Some(pid) = self.worker_pid() else { return Ok(()) };
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGSTOP);
                self.pause(60.0);
                if self.random.random_bool(0.3) {
                    self.totals.killed_workers += 1;
                    return self.kill_worker(&Arm::default());
                }
                self.totals.stopped_workers += 1;
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGCONT);
                self.served(1)
            }
            Act::KillAll => {
                let victims: Vec<Actor> = self.victims.drain(..).collect();
                for mut victim in victims {
                    victim.process.kill();
                    victim.was_killed = true;
                    self.totals.killed_clients += 1;
                    self.gone.push(victim);
                }
                self.kill_worker(&Arm::default())?;
                self.totals.killed_workers += 1;
                self.served(1)
            }
        }
    }

    /// Ends all clients in good order; then nothing may be in use, and every request has had what it is owed.
    pub fn close_round(&mut self) -> Result<(), String> {
        self.look()?;
        let mut clients: Vec<Actor> = self.victims.drain(..).chain(self.bystanders.drain(..)).collect();
        let bystanders: Vec<u32> = clients.iter().rev().take(BYSTANDERS).map(|client| client.number).collect();
        // A trap may spring while it leaves: that is a kill too.
        for client in &mut clients {
            client.process.go_on();
            client.process.tell_to_end();
        }
        for client in &mut clients {
            let mut is_dead = || {
                let state = client.process.state();
                if state == State::Stopped {
                    client.process.go_on();
                }
                state == State::Dead
            };
            // A worker that was to die at some place may do so now; who has just come waits for the next one.
            let end = std::time::Instant::now() + patience();
            while !within(Duration::from_millis(100), &mut is_dead) && std::time::Instant::now() < end {
                self.revive()?;
            }
            match client.process.finish()? {
                End::Good => {}
                End::Killed if !bystanders.contains(&client.number) => {
                    client.was_killed = true;
                    self.totals.trapped_clients += 1;
                }
                end => self.totals.violations.push(format!("client {} ended as {end:?}", client.number)),
            }
        }
        self.revive()?;
        if !self.foreign && self.worker_is_trapped() {
            self.kill_worker(&Arm::default())?;
        }
        self.totals.baseline.add(self.baseline.returns(&self.stage)?);
        self.worker.read(&mut self.runs);
        clients.append(&mut self.gone);
        let mut lives = Vec::new();
        for client in &mut clients {
            client.read();
        }
        for client in &clients {
            let (killed, disturbed) = (client.was_killed, self.disturbed);
            lives.push(Life { client: client.number, records: &client.records, killed, disturbed });
            if bystanders.contains(&client.number) {
                self.totals.watch(&client.records, disturbed);
            }
        }
        let runs = std::mem::take(&mut self.runs);
        let (tally, broken) = judge(&lives, (!self.foreign).then_some(&runs));
        self.totals.tally.add(&tally);
        self.totals.violations.extend(self.stage.explained(broken));
        self.totals.violations.extend(self.stage.accusations());
        self.stage.forget_failures();
        clients.iter().for_each(|client| self.stage.forget(client.number));
        self.totals.rounds += 1;
        Ok(())
    }

    /// A trap may still be set in the worker: between rounds it must not spring.
    fn worker_is_trapped(&self) -> bool {
        std::fs::read(format!("/proc/{}/environ", self.worker.process.pid()))
            .is_ok_and(|environment| environment.windows(15).any(|part| part == b"MOLT_FAILPOINT="))
    }

    /// Ends the worker in good order: no name may be left.
    pub fn close(mut self) -> Result<Totals, String> {
        if self.foreign {
            // The real worker asks nobody's input.
            let _ = kill(Pid::from_raw(self.worker.process.pid() as i32), Signal::SIGTERM);
        }
        match self.worker.process.finish()? {
            End::Good => {}
            end => self.totals.violations.push(format!("the worker ended as {end:?}")),
        }
        self.totals.violations.extend(self.stage.is_empty().err());
        Ok(self.totals)
    }

    /// Times of the bystanders' plain requests that were answered after `since`, each once.
    pub fn times_since(&mut self, since: u64) -> crate::summary::Times {
        let mut times = crate::summary::Times::default();
        for bystander in &mut self.bystanders {
            let mut begun = std::collections::HashMap::new();
            for record in bystander.read() {
                match record.event {
                    Event::Begun(Plan::Plain, _) => {
                        begun.insert(record.seq, record.at_ns);
                    }
                    Event::Ended(molt_ipc_shm::Outcome::Ok, _) if record.at_ns > since => {
                        if let Some(at) = begun.get(&record.seq) {
                            times.add(Duration::from_nanos(record.at_ns - at));
                        }
                    }
                    _ => {}
                }
            }
        }
        times
    }
}
