//! A bound on the memory that all workers of a gateway use together for one purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much memory all workers of a gateway may use for something. It goes to those who ask first;
/// the others do with little.
pub struct Budget {
    bytes: usize,
    used: AtomicUsize,
}

/// Bytes of a budget, given back with this.
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget { bytes, used: AtomicUsize::new(0) })
    }

    /// Whether so many bytes are left.
    pub fn has(&self, bytes: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.bytes
    }

    /// Takes them whether or not they are left.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Share {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Share { budget: Arc::clone(self), bytes }
    }

    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let share = self.charge(bytes);
        (self.used.load(Ordering::Relaxed) <= self.bytes).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
