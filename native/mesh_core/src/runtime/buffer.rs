//! Byte buffers that connections borrow from their worker while data moves.
//!
//! Buffers are released as soon as they are empty, so an idle connection or tunnel owns none.

use std::cell::RefCell;
use std::sync::Arc;

use super::budget::{Budget, Share};

/// Fits the heads and small bodies of most traffic.
pub const SMALL: usize = 16 * 1024;
/// For larger bodies: fewer and larger system calls.
pub const LARGE: usize = 256 * 1024;

/// How many spare buffers of each size a worker keeps.
const SPARE_SMALL: usize = 256;
const SPARE_LARGE: usize = 8;

/// One worker's spare buffers. They are zeroed once; no byte is read before it is written again.
pub struct BufferPool {
    small: RefCell<Vec<Vec<u8>>>,
    /// Spare buffers are few and do not count against the budget.
    large: RefCell<Vec<Vec<u8>>>,
    budget: Arc<Budget>,
}

impl BufferPool {
    pub fn new(budget: Arc<Budget>) -> BufferPool {
        BufferPool { small: RefCell::default(), large: RefCell::default(), budget }
    }

    fn get(&self, size: usize) -> Vec<u8> {
        let spares = if size == SMALL { &self.small } else { &self.large };
        let spare = spares.borrow_mut().pop();
        spare.unwrap_or_else(|| vec![0; size])
    }

    fn put(&self, data: Vec<u8>) {
        let (spares, max) = match data.len() {
            SMALL => (&self.small, SPARE_SMALL),
            LARGE => (&self.large, SPARE_LARGE),
            _ => return,
        };
        let mut spares = spares.borrow_mut();
        if spares.len() < max {
            spares.push(data);
        }
    }
}

/// The filled range of a buffer, which may not be allocated.
#[derive(Default)]
pub struct Buf {
    data: Vec<u8>,
    start: usize,
    end: usize,
    /// A large buffer's share of the budget. Boxed, because each request moves its buffers.
    share: Option<Box<Share>>,
}

impl Buf {
    pub fn new() -> Self {
        Buf::default()
    }

    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The room after the filled bytes.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    pub fn has_room(&self) -> bool {
        self.end < self.data.len()
    }

    pub fn advance(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.data.len());
    }

    pub fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Borrows a small buffer, unless there is a buffer.
    pub fn borrow_from(&mut self, pool: &BufferPool) {
        if self.data.is_empty() {
            self.data = pool.get(SMALL);
            self.clear();
        }
    }

    /// Replaces an empty buffer with a large one, if the budget allows it.
    pub fn borrow_large(&mut self, pool: &BufferPool) {
        if self.is_empty()
            && self.data.len() != LARGE
            && let Some(share) = pool.budget.take(LARGE)
        {
            pool.put(std::mem::take(&mut self.data));
            self.data = pool.get(LARGE);
            self.share = Some(Box::new(share));
            self.clear();
        }
    }

    /// Returns the buffer to the pool if it is empty.
    pub fn release(&mut self, pool: &BufferPool) {
        if self.is_empty() && !self.data.is_empty() {
            pool.put(std::mem::take(&mut self.data));
            self.share = None;
            self.clear();
        }
    }

    /// Makes room after the filled bytes: moves them to the front, or grows the buffer up to `max` bytes.
    /// Returns `false` if it has reached `max`.
    pub fn make_room(&mut self, max: usize) -> bool {
        if self.has_room() {
            return true;
        }
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return true;
        }
        if self.data.len() >= max {
            return false;
        }
        let size = (self.data.len() * 2).clamp(SMALL, max.max(SMALL));
        self.data.resize(size, 0);
        self.has_room()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_beyond_the_budget_are_small_until_a_large_one_is_released() {
        let budget = Budget::new(2 * LARGE);
        let pool = BufferPool::new(Arc::clone(&budget));
        let mut buffers: Vec<Buf> = (0..3).map(|_| Buf::new()).collect();
        for buf in &mut buffers {
            buf.borrow_large(&pool);
            buf.borrow_from(&pool);
        }
        let sizes: Vec<_> = buffers.iter().map(|buf| buf.data.len()).collect();
        assert_eq!(sizes, [LARGE, LARGE, SMALL]);
        // A buffer's share ends when it is released, or dropped with its contents.
        buffers[0].release(&pool);
        buffers[2].borrow_large(&pool);
        assert_eq!(buffers[2].data.len(), LARGE);
        buffers[1].advance(1);
        buffers.remove(1);
        assert!(budget.has(LARGE) && !budget.has(2 * LARGE));
        drop(buffers);
        assert!(budget.has(2 * LARGE));
    }
}
