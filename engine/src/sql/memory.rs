//! Memory for sorting, grouping and joining: what all runs share, what one run may take of it, and where it spills to.
//!
//! Operators ask the pool before they grow. Those that can (sorts, aggregates, sort-merge joins) write what they hold to
//! files when they are refused, and go on; the others end the run with an error that has the numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

/// Where operators may spill to, and how much.
#[derive(Debug, Clone)]
pub struct Spill {
    /// A folder that nobody else uses.
    pub folder: PathBuf,
    /// Most bytes of all files together.
    pub bytes: u64,
}

/// The memory of an engine.
#[derive(Debug)]
pub struct Memory {
    pub environment: Arc<RuntimeEnv>,
    /// Bytes of the pool.
    pub bytes: usize,
    spills: bool,
}

impl Memory {
    /// A pool of `bytes`, and files in `spill` for what does not fit.
    pub fn new(bytes: usize, spill: Option<&Spill>) -> DfResult<Self> {
        let disk = match spill {
            Some(Spill { folder, bytes }) => DiskManagerBuilder::default()
                .with_mode(DiskManagerMode::Directories(vec![folder.clone()]))
                .with_max_temp_directory_size(*bytes),
            None => DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
        };
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(pool(bytes, spill.is_some()))
            .with_disk_manager_builder(disk)
            .build_arc()?;
        Ok(Self { environment, bytes, spills: spill.is_some() })
    }

    /// What a sort keeps aside for merging what it has spilled: it must fit beside what is being sorted.
    pub fn sort_reserve(&self) -> usize {
        (self.bytes / 16).min(10 << 20)
    }

    /// `task` for one run that may have `most` bytes of the pool.
    pub fn limited(&self, task: &TaskContext, most: usize) -> (Arc<TaskContext>, Arc<RunPool>) {
        let run = Arc::new(RunPool {
            own: pool(most, self.spills),
            shared: Arc::clone(&self.environment.memory_pool),
            refused: AtomicUsize::new(0),
        });
        let environment =
            RuntimeEnv { memory_pool: Arc::clone(&run) as Arc<dyn MemoryPool>, ..(*self.environment).clone() };
        let mut config = task.session_config().clone();
        let sort = &mut config.options_mut().execution.sort_spill_reservation_bytes;
        *sort = (*sort).min(most / 16);
        // Functions are looked up while planning alone: none are copied for a run.
        let (scalar, higher, aggregate, window) = Default::default();
        let runtime = Arc::new(environment);
        let task = TaskContext::new(None, task.session_id(), config, scalar, higher, aggregate, window, runtime);
        (Arc::new(task), run)
    }
}

fn pool(bytes: usize, spills: bool) -> Arc<dyn MemoryPool> {
    match spills {
        true => Arc::new(SpillPool { bytes, taken: Mutex::default() }),
        false => Arc::new(GreedyMemoryPool::new(bytes)),
    }
}

/// A pool whose operators can spill, or some of them. Those that can have one half: who asks first gets it, but for half of an
/// equal share that is kept aside for each of the others, so that one alone cannot keep them from working. (Equal shares alone
/// would leave most of it to nobody: of the six operators of a grouping on two threads, four hold next to nothing.) What cannot
/// spill (joins, what merges the files) has the rest.
#[derive(Debug)]
struct SpillPool {
    bytes: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// What each operator that can spill has, by its number.
    spillers: BTreeMap<usize, usize>,
    /// What those have together that cannot.
    fixed: usize,
}

impl Taken {
    fn all(&self) -> usize {
        self.spillers.values().sum::<usize>() + self.fixed
    }

    /// The place where a consumer's bytes are counted.
    fn of(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        match consumer.can_spill() {
            true => self.spillers.entry(consumer.id()).or_default(),
            false => &mut self.fixed,
        }
    }

    /// What is left of `bytes`, which those that can spill share, for a reservation of one of them.
    fn left_for(&self, reservation: &MemoryReservation, bytes: usize) -> usize {
        let number = reservation.consumer().id();
        let floor = bytes / (2 * self.spillers.len().max(1));
        let aside = |(other, has): (&usize, &usize)| if *other == number { *has } else { *has.max(&floor) };
        let common = bytes.saturating_sub(self.spillers.iter().map(aside).sum());
        // An operator that merges what it has spilled has two reservations, and needs both.
        common.max(floor.saturating_sub(reservation.size()))
    }
}

impl SpillPool {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Display for SpillPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

impl MemoryPool for SpillPool {
    fn name(&self) -> &str {
        "spill"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.taken().spillers.insert(consumer.id(), 0);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.taken().spillers.remove(&consumer.id());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *self.taken().of(reservation.consumer()) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut taken = self.taken();
        let has = taken.of(reservation.consumer());
        *has = has.saturating_sub(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        let mut taken = self.taken();
        let (consumer, has) = (reservation.consumer(), reservation.size());
        let free = self.bytes.saturating_sub(taken.all());
        let left = match consumer.can_spill() {
            true => {
                let shared = (self.bytes / 2).saturating_sub(taken.fixed.saturating_sub(self.bytes / 2));
                taken.left_for(reservation, shared).min(free)
            }
            // What merges spilled files takes all that it can get: who has much leaves a quarter to those that have little.
            false if has >= self.bytes / 4 => free.saturating_sub(self.bytes / 4),
            false => free,
        };
        if additional > left {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} has {has} bytes and asks for {additional} more; {left} are left for it of {}",
                consumer.name(),
                self.bytes
            )));
        }
        *taken.of(consumer) += additional;
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.taken().all()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

/// One run's part of the shared pool: bounded by itself, and by what the others leave.
#[derive(Debug)]
pub struct RunPool {
    own: Arc<dyn MemoryPool>,
    shared: Arc<dyn MemoryPool>,
    /// The last amount that the run's own bound refused; 0: none.
    refused: AtomicUsize,
}

impl RunPool {
    /// Whether the run's own bound has refused memory, and how much was asked for.
    pub fn refused(&self) -> Option<usize> {
        Some(self.refused.load(Ordering::Relaxed)).filter(|asked| *asked > 0)
    }
}

impl fmt::Display for RunPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.own.fmt(f)
    }
}

impl MemoryPool for RunPool {
    fn name(&self) -> &str {
        "run"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.shared.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        self.own
            .try_grow(reservation, additional)
            .inspect_err(|_| self.refused.store(additional, Ordering::Relaxed))?;
        self.shared.try_grow(reservation, additional).inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_can_spill_take_what_others_do_not_need_and_leave_them_half_a_share() {
        let pool = pool(1_200, true);
        let operators = |spills: bool, count: usize| -> Vec<MemoryReservation> {
            let operator = |number| MemoryConsumer::new(format!("{number}")).with_can_spill(spills).register(&pool);
            (0..count).map(operator).collect()
        };
        let spilling = operators(true, 6);
        // Four others are kept 50 each aside of 600; what two have is theirs.
        spilling[0].try_grow(250).unwrap();
        spilling[1].try_grow(150).unwrap();
        let error = spilling[1].try_grow(1).unwrap_err().to_string();
        assert!(error.contains("1 has 150 bytes and asks for 1 more; 0 are left for it of 1200"), "{error}");
        for late in &spilling[2..] {
            late.try_grow(50).unwrap();
            assert!(late.try_grow(1).is_err());
        }
        // Who has spilled leaves room, for whoever comes first.
        spilling[0].free();
        spilling[2].try_grow(200).unwrap();
        assert!(spilling[1].try_grow(1).is_err());
        spilling[0].try_grow(50).unwrap();
        assert_eq!(pool.reserved(), 50 + 150 + 250 + 3 * 50);
        // The other half is for those that cannot spill, of which one leaves a quarter of what there is.
        let fixed = operators(false, 2);
        fixed[0].try_grow(600).unwrap();
        assert!(spilling[3].try_grow(1).is_err());
        drop(spilling);
        assert!(fixed[0].try_grow(301).is_err());
        fixed[0].try_grow(300).unwrap();
        fixed[1].try_grow(300).unwrap();
        drop(fixed);
        assert_eq!(pool.reserved(), 0);
        let alone = operators(true, 1);
        alone[0].try_grow(600).unwrap();
        assert!(alone[0].try_grow(1).is_err(), "one half");
        // One that comes when nothing is left of the half has its half share all the same.
        let late = operators(true, 1);
        late[0].try_grow(150).unwrap();
        assert!(late[0].try_grow(1).is_err());
        // So has a second reservation of one that has nothing left.
        let merging = late[0].new_empty();
        merging.try_grow(150).unwrap();
        assert!(merging.try_grow(1).is_err());
    }
}
