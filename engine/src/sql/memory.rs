//! Memory for sorting, grouping and joining: what all runs share, what one run may take of it, and where it spills to.
//!
//! Operators ask the pool before they grow. Those that can (sorts, aggregates, sort-merge joins) write what they hold to
//! files when they are refused, and go on; the others end the run with an error that has the numbers.

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

/// A pool whose operators can spill, or some of them: each that can gets an equal share of one half, so that one alone
/// cannot keep the others from working; what cannot spill (joins, what merges the files) has the rest.
#[derive(Debug)]
struct SpillPool {
    bytes: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Operators that can spill.
    spillers: usize,
    spillable: usize,
    fixed: usize,
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
        self.taken().spillers += usize::from(consumer.can_spill());
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.taken().spillers -= usize::from(consumer.can_spill());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut taken = self.taken();
        match reservation.consumer().can_spill() {
            true => taken.spillable += additional,
            false => taken.fixed += additional,
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut taken = self.taken();
        match reservation.consumer().can_spill() {
            true => taken.spillable = taken.spillable.saturating_sub(shrink),
            false => taken.fixed = taken.fixed.saturating_sub(shrink),
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        let mut taken = self.taken();
        let (consumer, has) = (reservation.consumer(), reservation.size());
        let free = self.bytes.saturating_sub(taken.spillable + taken.fixed);
        let left = match consumer.can_spill() {
            true => {
                let shared = (self.bytes / 2).saturating_sub(taken.fixed.saturating_sub(self.bytes / 2));
                (shared / taken.spillers.max(1)).saturating_sub(has).min(free)
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
        match consumer.can_spill() {
            true => taken.spillable += additional,
            false => taken.fixed += additional,
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        let taken = self.taken();
        taken.spillable + taken.fixed
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
