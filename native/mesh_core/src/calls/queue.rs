//! A bounded queue of bytes.
//!
//! What is queued beyond a small buffer counts in the gateway's budget for buffers. Without it a queue is as long
//! as a small buffer.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::runtime::{Budget, SMALL, Share};

/// Parts that are copied while the queue is locked are at most this long.
pub const SMALL_PART: usize = 16 * 1024;
/// Longer data is queued in chunks of this size, so that room comes back bit by bit.
const CHUNK: usize = 64 * 1024;

pub enum Chunk {
    Copied(Vec<u8>),
    /// Data of the process, which holds it until the chunk is queued.
    Held(Bytes),
}

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk::Copied(Vec::new())
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Copied(bytes) => bytes,
            Chunk::Held(bytes) => bytes,
        }
    }
}

impl Chunk {
    /// The bytes to change, copied if they are not the queue's own.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Chunk::Copied(bytes) => bytes,
            Chunk::Held(bytes) => bytes.into(),
        }
    }
}

pub struct Queue {
    chunks: VecDeque<Chunk>,
    /// Bytes in the queue, promised to it, or popped and not yet consumed.
    queued: usize,
    most: usize,
    /// For the bytes beyond a small buffer.
    share: Option<Share>,
}

impl Queue {
    pub fn new(most: usize) -> Queue {
        Queue { chunks: VecDeque::new(), queued: 0, most, share: None }
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    pub fn has_room(&self, budget: &Budget) -> bool {
        self.queued < self.most && (self.queued < SMALL || budget.has(SMALL))
    }

    /// Whether enough room is there that waiting for it has been worth it.
    pub fn has_much_room(&self, budget: &Budget) -> bool {
        self.queued <= self.most / 2 && self.has_room(budget)
    }

    /// Reserves room for up to `wanted` bytes.
    pub fn reserve(&mut self, wanted: usize, budget: &Arc<Budget>) -> usize {
        let mut n = wanted.min(self.most.saturating_sub(self.queued));
        let beyond = (self.queued + n).saturating_sub(SMALL);
        let counted = self.counted();
        if beyond > counted && !budget.has(beyond - counted) {
            // A step at least, so that a budget that is used up is not shared out byte by byte.
            let step = if budget.has(SMALL) { SMALL } else { 0 };
            n = n.min((SMALL + counted + step).saturating_sub(self.queued));
        }
        self.reserve_beyond(n, budget);
        n
    }

    /// Reserves room whether there is some or not.
    pub fn reserve_beyond(&mut self, n: usize, budget: &Arc<Budget>) {
        self.queued += n;
        let beyond = self.queued.saturating_sub(SMALL);
        if beyond > 0 {
            self.share.get_or_insert_with(|| budget.charge(0)).resize(beyond);
        }
    }

    fn counted(&self) -> usize {
        self.share.as_ref().map_or(0, Share::bytes)
    }

    /// Appends a small part for which room is reserved.
    pub fn append(&mut self, part: &[u8]) {
        match self.chunks.back_mut() {
            Some(Chunk::Copied(last)) if last.len() + part.len() <= CHUNK => {
                last.extend_from_slice(part);
            }
            _ if part.is_empty() => {}
            _ => self.chunks.push_back(Chunk::Copied(part.to_vec())),
        }
    }

    /// Appends chunks for which room is reserved.
    pub fn push(&mut self, chunks: impl IntoIterator<Item = Chunk>) {
        self.chunks.extend(chunks);
    }

    /// Takes the first chunk. Its room is free once it is [`consumed`](Self::consumed).
    pub fn pop(&mut self) -> Option<Chunk> {
        self.chunks.pop_front()
    }

    /// Drops all but the first `n` chunks.
    pub fn truncate(&mut self, n: usize) {
        let dropped = self.chunks.iter().skip(n).map(|chunk| chunk.len()).sum();
        self.chunks.truncate(n);
        self.consumed(dropped);
    }

    pub fn consumed(&mut self, n: usize) {
        self.queued -= n;
        if let Some(share) = &mut self.share {
            match self.queued.saturating_sub(SMALL) {
                0 => self.share = None,
                beyond => share.resize(beyond.min(share.bytes())),
            }
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.share = None;
    }
}

/// Copies data for [`Queue::push`], outside of the lock.
pub fn chunks(data: &[u8]) -> Vec<Chunk> {
    data.chunks(CHUNK).map(|chunk| Chunk::Copied(chunk.to_vec())).collect()
}

/// The same without a copy.
pub fn held_chunks(data: &Bytes) -> Vec<Chunk> {
    let starts = (0..data.len()).step_by(CHUNK);
    starts.map(|at| Chunk::Held(data.slice(at..data.len().min(at + CHUNK)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_beyond_the_budget_are_as_long_as_a_small_buffer() {
        let budget = Budget::new(64 * 1024);
        let (mut first, mut second) = (Queue::new(256 * 1024), Queue::new(256 * 1024));
        assert_eq!(first.reserve(SMALL, &budget), SMALL);
        assert!(budget.has(64 * 1024), "a small buffer counts for nothing");
        assert_eq!(first.reserve(48 * 1024, &budget), 48 * 1024);
        // The small buffer, and what is left of the budget.
        assert_eq!(second.reserve(100 * 1024, &budget), 2 * SMALL);
        assert!(!second.has_room(&budget) && !second.has_much_room(&budget));
        assert_eq!((second.reserve(1, &budget), first.reserve(1, &budget)), (0, 0));
        // What cannot wait goes beyond.
        second.reserve_beyond(10, &budget);
        second.consumed(10);
        first.consumed(32 * 1024);
        assert!(second.has_room(&budget) && first.has_much_room(&budget));
        assert_eq!(second.reserve(100 * 1024, &budget), SMALL);
        first.consumed(32 * 1024);
        second.consumed(20 * 1024);
        second.clear();
        drop(second);
        assert!(budget.has(64 * 1024));
    }
}
