//! Words: the atomics that two processes share, and the fence between them.
//!
//! One code for the product and for its proof. In the product a word is std's atomic and nothing else. Under
//! `--cfg loom` it is loom's, which runs every order in which threads may see each other's stores; rings, doorbell,
//! attention bits, extents, cells and leases do not notice. With the feature `failpoints` each store is a place where a
//! test can kill the process just before or just after it; in a model, a thread.

#[cfg(loom)]
mod model;
#[cfg(loom)]
use model as atomic;
#[cfg(not(loom))]
use std::sync::atomic;

use std::sync::atomic::Ordering;

pub use atomic::fence;

use crate::failpoint::{Moment, pass};

/// Does a store, with a failpoint on either side.
macro_rules! store {
    ($store:expr) => {{
        pass(Moment::Before);
        let result = $store;
        pass(Moment::After);
        result
    }};
}

macro_rules! word {
    ($(#[$doc:meta])* $Word:ident, $Atomic:ident, $int:ty) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Debug)]
        pub struct $Word(atomic::$Atomic);

        impl $Word {
            /// A word in private memory: for tests and models.
            pub fn new(value: $int) -> Self {
                Self(atomic::$Atomic::new(value))
            }

            /// What it holds.
            #[inline(always)]
            pub fn load(&self, order: Ordering) -> $int {
                self.0.load(order)
            }

            /// Replaces it.
            #[inline(always)]
            #[track_caller]
            pub fn store(&self, value: $int, order: Ordering) {
                store!(self.0.store(value, order));
            }

            /// Replaces it, and says what it held.
            #[inline(always)]
            #[track_caller]
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                store!(self.0.swap(value, order))
            }

            /// Replaces it if it holds `current`.
            ///
            /// # Errors
            /// What it held instead.
            #[inline(always)]
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                store!(self.0.compare_exchange(current, new, success, failure))
            }

            /// Sets bits, and says what it held.
            #[inline(always)]
            #[track_caller]
            pub fn fetch_or(&self, bits: $int, order: Ordering) -> $int {
                store!(self.0.fetch_or(bits, order))
            }

            /// Adds, and says what it held.
            #[inline(always)]
            #[track_caller]
            pub fn fetch_add(&self, by: $int, order: Ordering) -> $int {
                store!(self.0.fetch_add(by, order))
            }
        }
    };
}

word!(
    /// A shared word of 64 bits.
    Word64, AtomicU64, u64
);
word!(
    /// A shared word of 32 bits.
    Word32, AtomicU32, u32
);
