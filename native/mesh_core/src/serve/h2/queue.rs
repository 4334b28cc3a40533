//! Bounds what is queued for an HTTP/2 client that has not read it.
//!
//! All connections share `limits.buffer_bytes`. Beyond that, a connection may queue more only when its
//! queue is empty.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::runtime::{Budget, Share};

/// The queue of one connection. Shared with its contents, which h2 drops.
pub struct Queue {
    budget: Arc<Budget>,
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    bytes: usize,
    /// Streams that have more to send.
    waiting: Vec<Waker>,
}

impl Queue {
    pub fn new(budget: Arc<Budget>) -> Arc<Queue> {
        Arc::new(Queue { budget, state: Mutex::default() })
    }

    /// Ready when this many bytes, at most a small buffer, may be queued.
    pub fn poll_room(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        let mut state = self.state.lock();
        if self.admits(&state, bytes) {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether this many bytes may be queued now.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.admits(&self.state.lock(), bytes)
    }

    fn admits(&self, state: &QueueState, bytes: usize) -> bool {
        state.bytes == 0 || self.budget.has(bytes)
    }

    /// Copies `data`. The copy counts until it is dropped.
    pub fn hold(self: &Arc<Self>, data: &[u8]) -> Bytes {
        if data.is_empty() {
            return Bytes::new();
        }
        self.state.lock().bytes += data.len();
        let share = self.budget.charge(data.len());
        Bytes::from_owner(Queued { data: data.into(), queue: Arc::clone(self), _share: share })
    }
}

struct Queued {
    data: Box<[u8]>,
    queue: Arc<Queue>,
    _share: Share,
}

impl AsRef<[u8]> for Queued {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.bytes -= self.data.len();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}
