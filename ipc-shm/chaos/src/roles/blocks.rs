//! A client's blocks, written through their pointers as Python writes them: claimed, filled, looked at again, sent, freed.

use std::sync::Arc;

use molt_ipc_shm::client::ClientBlock;
use molt_ipc_shm::failpoint::{Moment, pass};

use crate::payload;

/// A block and what it must hold for as long as it is not given back.
pub struct Filled {
    /// The block.
    pub block: Arc<ClientBlock>,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Filled {
    /// Writes the bytes, stopping halfway where a test wants to.
    pub fn new(block: Arc<ClientBlock>, body: Vec<u8>) -> Self {
        let half = body.len() / 2;
        let to = block.address();
        assert_eq!(block.block().len(), body.len());
        pass(Moment::Before);
        // SAFETY: `address` points to `body.len()` bytes (asserted) of the mapping that the block, kept by `self`, has
        // claimed for this process alone; `body` is private memory, so the ranges cannot overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(body.as_ptr(), to, half);
            pass(Moment::Halfway);
            std::ptr::copy_nonoverlapping(body.as_ptr().add(half), to.add(half), body.len() - half);
        }
        pass(Moment::After);
        Self { block, body }
    }

    /// Whether nobody else has written there.
    pub fn is_whole(&self) -> Result<(), String> {
        payload::differs(&self.body, &self.block.to_vec()).map_or(Ok(()), |at| {
            let (from, len) = (self.block.block().offset(), self.body.len());
            Err(format!("byte {at} of the block {from}+{len} is another's: handed out twice"))
        })
    }
}
