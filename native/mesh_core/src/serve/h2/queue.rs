//! What a connection has for its client that the client has not taken yet. Up to
//! `limits.buffer_bytes` of all connections together is free; beyond that a connection gets more
//! only when all that it had has gone.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::runtime::{Budget, Share};

/// Of one connection. Shared with what is in it, which h2 drops.
pub struct Queue {
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: usize,
    /// Streams that have more.
    waiting: Vec<Waker>,
}

impl Queue {
    pub fn new(budget: Arc<Budget>) -> Arc<Queue> {
        Arc::new(Queue { budget, state: Mutex::default() })
    }

    /// Ready when so many bytes may be queued, a small buffer at most.
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

    /// Whether so many bytes may be queued now.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.admits(&self.state.lock(), bytes)
    }

    fn admits(&self, state: &State, bytes: usize) -> bool {
        state.bytes == 0 || self.budget.has(bytes)
    }

    /// A copy that counts until it is dropped.
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
