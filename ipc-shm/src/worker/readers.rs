//! Who still reads a request's tables: the request is not answered before the last of them is done, because the client
//! gives the bytes back when it has the answer.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::block::Block;
use crate::mapping::SharedMapping;

/// Counts the buffers of one request that are alive.
#[derive(Debug, Default)]
pub struct Readers {
    alive: Mutex<u32>,
    none: Condvar,
}

/// Keeps a table's bytes: the owner of its Arrow buffers.
#[derive(Debug)]
pub struct Reader {
    readers: Arc<Readers>,
    #[expect(dead_code, reason = "held, not read: the mapping must outlive the buffers")]
    map: SharedMapping,
    #[expect(dead_code, reason = "held, not read: the worker's own block, where the table lies in one")]
    block: Option<Block>,
}

impl Readers {
    /// One more reader.
    pub fn reader(self: &Arc<Self>, map: SharedMapping, block: Option<Block>) -> Reader {
        *self.alive.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
        Reader { readers: self.clone(), map, block }
    }

    /// Waits until nobody reads; `false`: somebody still does after all that time.
    pub fn wait_for_none(&self, longest: Duration) -> bool {
        let alive = self.alive.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waited = self.none.wait_timeout_while(alive, longest, |alive| *alive > 0);
        *waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0 == 0
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut alive = self.readers.alive.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *alive -= 1;
        if *alive == 0 {
            self.readers.none.notify_all();
        }
    }
}
