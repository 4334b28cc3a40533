//! Bounds the memory that all workers of a gateway use for one purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Budget {
    bytes: usize,
    used: AtomicUsize,
}

/// Bytes of a budget, returned when dropped.
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget { bytes, used: AtomicUsize::new(0) })
    }

    /// Whether this many bytes are available.
    pub fn has(&self, bytes: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.bytes
    }

    /// Takes the bytes even if they exceed the budget.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Share {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Share { budget: Arc::clone(self), bytes }
    }

    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let share = self.charge(bytes);
        (self.used.load(Ordering::Relaxed) <= self.bytes).then_some(share)
    }
}

impl Share {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more, even if it exceeds the budget, or returns some.
    pub fn resize(&mut self, bytes: usize) {
        let used = &self.budget.used;
        if bytes > self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
