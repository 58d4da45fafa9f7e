//! The atomics of a model: loom's, with every look made known to its search.
//!
//! To decide which orders are worth a run, loom remembers of each atomic who touched it last. A thread that loads and then
//! stores hides a load of another thread's behind its own: the order in which the store comes first is never run. So each
//! look here is preceded by an action that conflicts with every other look at the same word, and that neither carries a
//! value nor orders anything: a condition variable that nobody waits for is notified.

use std::sync::atomic::Ordering;

use loom::sync::Condvar;
use loom::sync::atomic;
pub use loom::sync::atomic::fence;

macro_rules! model {
    ($Atomic:ident, $int:ty) => {
        #[derive(Debug)]
        pub struct $Atomic {
            value: atomic::$Atomic,
            looked: Condvar,
        }

        impl $Atomic {
            pub fn new(value: $int) -> Self {
                Self { value: atomic::$Atomic::new(value), looked: Condvar::new() }
            }

            pub fn load(&self, order: Ordering) -> $int {
                self.looked.notify_one();
                self.value.load(order)
            }

            pub fn store(&self, value: $int, order: Ordering) {
                self.value.store(value, order);
            }

            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                self.value.swap(value, order)
            }

            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                self.value.compare_exchange(current, new, success, failure)
            }

            pub fn fetch_or(&self, bits: $int, order: Ordering) -> $int {
                self.value.fetch_or(bits, order)
            }

            pub fn fetch_add(&self, by: $int, order: Ordering) -> $int {
                self.value.fetch_add(by, order)
            }
        }
    };
}

model!(AtomicU64, u64);
model!(AtomicU32, u32);
