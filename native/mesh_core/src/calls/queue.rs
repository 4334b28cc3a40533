//! A bounded queue of bytes.

use std::collections::VecDeque;

/// Parts that are copied while the queue is locked are at most this long.
pub const SMALL_PART: usize = 16 * 1024;
/// Longer data is queued in chunks of this size, so that room comes back bit by bit.
const CHUNK: usize = 64 * 1024;

pub struct Queue {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes in the queue, promised to it, or popped and not yet consumed.
    queued: usize,
    most: usize,
}

impl Queue {
    pub fn new(most: usize) -> Queue {
        Queue { chunks: VecDeque::new(), queued: 0, most }
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.queued < self.most
    }

    /// Whether enough room is there that waiting for it has been worth it.
    pub fn has_much_room(&self) -> bool {
        self.queued <= self.most / 2
    }

    /// Reserves room for up to `wanted` bytes.
    pub fn reserve(&mut self, wanted: usize) -> usize {
        let n = wanted.min(self.most.saturating_sub(self.queued));
        self.queued += n;
        n
    }

    /// Reserves room whether there is some or not.
    pub fn reserve_beyond(&mut self, n: usize) {
        self.queued += n;
    }

    /// Appends a small part for which room is reserved.
    pub fn append(&mut self, part: &[u8]) {
        match self.chunks.back_mut() {
            Some(last) if last.len() + part.len() <= CHUNK => last.extend_from_slice(part),
            _ if part.is_empty() => {}
            _ => self.chunks.push_back(part.to_vec()),
        }
    }

    /// Appends chunks for which room is reserved.
    pub fn push(&mut self, chunks: Vec<Vec<u8>>) {
        self.chunks.extend(chunks);
    }

    /// Takes the first chunk. Its room is free once it is [`consumed`](Self::consumed).
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        self.chunks.pop_front()
    }

    pub fn consumed(&mut self, n: usize) {
        self.queued -= n;
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.chunks = VecDeque::new();
    }
}

/// Copies data for [`Queue::push`], outside of the lock.
pub fn chunks(data: &[u8]) -> Vec<Vec<u8>> {
    data.chunks(CHUNK).map(<[u8]>::to_vec).collect()
}
