//! Byte buffers that are borrowed from the worker while something is moving and given back as soon
//! as nothing is, so that an idle connection or tunnel owns none.

use std::cell::RefCell;
use std::sync::Arc;

use super::budget::{Budget, Share};

/// Fits the heads and the small bodies that most traffic consists of.
pub const SMALL: usize = 16 * 1024;
/// For bodies that do not fit a small one: fewer, larger system calls.
pub const LARGE: usize = 256 * 1024;

/// How many spare buffers of each size a worker keeps.
const SPARE_SMALL: usize = 256;
const SPARE_LARGE: usize = 8;

/// One worker's spare buffers. Their bytes were zeroed once and are never read before written.
pub struct BufferPool {
    small: RefCell<Vec<Vec<u8>>>,
    /// Not in the budget: they are few.
    large: RefCell<Vec<Vec<u8>>>,
    budget: Arc<Budget>,
}

impl BufferPool {
    pub fn new(budget: Arc<Budget>) -> BufferPool {
        BufferPool { small: RefCell::default(), large: RefCell::default(), budget }
    }

    fn take(&self, size: usize) -> Vec<u8> {
        let spares = if size == SMALL { &self.small } else { &self.large };
        let spare = spares.borrow_mut().pop();
        spare.unwrap_or_else(|| vec![0; size])
    }

    fn give(&self, data: Vec<u8>) {
        let (spares, most) = match data.len() {
            SMALL => (&self.small, SPARE_SMALL),
            LARGE => (&self.large, SPARE_LARGE),
            _ => return,
        };
        let mut spares = spares.borrow_mut();
        if spares.len() < most {
            spares.push(data);
        }
    }
}

/// A window of filled bytes in a buffer that may not be there at all.
#[derive(Default)]
pub struct Buf {
    data: Vec<u8>,
    start: usize,
    end: usize,
    /// Of the budget, for a large one. Boxed, because buffers are moved for each request.
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

    /// Room behind the filled bytes.
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

    /// Makes sure that there is a buffer, of at least the small size.
    pub fn borrow_from(&mut self, pool: &BufferPool) {
        if self.data.is_empty() {
            self.data = pool.take(SMALL);
            self.clear();
        }
    }

    /// Exchanges an empty buffer for a large one, if the budget has it.
    pub fn borrow_large(&mut self, pool: &BufferPool) {
        if self.is_empty()
            && self.data.len() != LARGE
            && let Some(share) = pool.budget.take(LARGE)
        {
            pool.give(std::mem::take(&mut self.data));
            self.data = pool.take(LARGE);
            self.share = Some(Box::new(share));
            self.clear();
        }
    }

    /// Gives the buffer back if nothing is in it.
    pub fn give_back(&mut self, pool: &BufferPool) {
        if self.is_empty() && !self.data.is_empty() {
            pool.give(std::mem::take(&mut self.data));
            self.share = None;
            self.clear();
        }
    }

    /// Makes room behind the filled bytes: first by moving them to the front, then by growing up
    /// to `most` bytes in all. `false` when `most` is reached.
    pub fn make_room(&mut self, most: usize) -> bool {
        if self.has_room() {
            return true;
        }
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return true;
        }
        if self.data.len() >= most {
            return false;
        }
        let size = (self.data.len() * 2).clamp(SMALL, most.max(SMALL));
        self.data.resize(size, 0);
        self.has_room()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_beyond_the_budget_are_small_until_one_is_given_back() {
        let budget = Budget::new(2 * LARGE);
        let pool = BufferPool::new(Arc::clone(&budget));
        let mut buffers: Vec<Buf> = (0..3).map(|_| Buf::new()).collect();
        for buf in &mut buffers {
            buf.borrow_large(&pool);
            buf.borrow_from(&pool);
        }
        let sizes: Vec<_> = buffers.iter().map(|buf| buf.data.len()).collect();
        assert_eq!(sizes, [LARGE, LARGE, SMALL]);
        // Given back, or just dropped with what is in it.
        buffers[0].give_back(&pool);
        buffers[2].borrow_large(&pool);
        assert_eq!(buffers[2].data.len(), LARGE);
        buffers[1].advance(1);
        buffers.remove(1);
        assert!(budget.has(LARGE) && !budget.has(2 * LARGE));
        drop(buffers);
        assert!(budget.has(2 * LARGE));
    }
}
