//! A counter of one worker.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer and any number of readers.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        // Load and store instead of a locked addition, because there is one writer.
        self.set(self.get().wrapping_add(n));
    }

    pub fn sub(&self, n: u64) {
        self.set(self.get().wrapping_sub(n));
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
