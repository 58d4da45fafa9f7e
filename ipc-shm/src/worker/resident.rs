//! Resident tables: bytes in the arena that stay, and that any number of sessions and queries read at once.
//!
//! A resident is immutable. Whoever reads it holds it: the catalogue that names it, each lease on it, each buffer of a
//! query. Its extents go back when the last of them lets go, so replacing or dropping a table disturbs no reader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow_buffer::alloc::Allocation;

use crate::block::Block;
use crate::frame::Handle;
use crate::mapping::SharedMapping;
use crate::table::{self, Table, TableFault};

/// One version of a table, where it lies.
#[derive(Debug)]
pub struct Resident {
    map: SharedMapping,
    block: Mutex<Option<Block>>,
    handle: Handle,
    /// Leases on it, by the process that holds them.
    readers: Mutex<BTreeMap<u32, u32>>,
}

impl Resident {
    /// What lies in `block`, an Arrow IPC stream, from now on for everybody.
    pub fn new(map: SharedMapping, block: Block) -> Arc<Self> {
        let handle = block.handle();
        Arc::new(Self { map, block: Mutex::new(Some(block)), handle, readers: Mutex::default() })
    }

    /// Where it lies.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Bytes of its stream.
    pub fn bytes(&self) -> u64 {
        self.handle.len
    }

    /// Reads and validates it in full. The buffers hold the resident.
    pub fn read(self: &Arc<Self>) -> Result<Table, TableFault> {
        let owner: Arc<dyn Allocation> = self.clone();
        table::read(&self.map, self.handle.offset as usize, self.handle.len as usize, &owner)
    }

    /// Processes that have it open, with the number of their leases.
    pub fn readers(&self) -> Vec<(u32, u32)> {
        let readers = self.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        readers.iter().map(|(pid, leases)| (*pid, *leases)).collect()
    }

    /// Leaves its bytes claimed when the last reader is gone: the worker goes, and somebody may still look at them.
    pub(super) fn abandon(&self) {
        let mut block = self.block.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(block) = block.take() {
            block.abandon();
        }
    }
}

/// A process's lease on a resident.
#[derive(Debug)]
pub(super) struct Reading {
    resident: Arc<Resident>,
    pid: u32,
}

impl Reading {
    pub(super) fn new(resident: Arc<Resident>, pid: u32) -> Self {
        *resident.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(pid).or_default() += 1;
        Self { resident, pid }
    }

    pub(super) fn resident(&self) -> &Arc<Resident> {
        &self.resident
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.resident.readers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(leases) = readers.get_mut(&self.pid) {
            *leases -= 1;
            if *leases == 0 {
                readers.remove(&self.pid);
            }
        }
    }
}
