//! One request that a process of this VM answers, between the worker and the process, and the worker's side of it.
//!
//! Everything that either side may wait for ends when the other side does.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::{Mutex, MutexGuard};

use super::origin::Origin;
use super::process::Process;
use super::queue::{Chunk, SMALL_PART, chunks};
use super::shared::{End, Phase, Place, Shared, register, send};
use crate::config::OnDisconnect;

pub struct Call {
    /// The sides meet here. Locked for a moment, and never while anything is woken, sent, or copied at length.
    pub(super) shared: Mutex<Shared>,
    /// What only the process uses. Locked before `shared`.
    pub(super) process: Mutex<Process>,
    pub(super) origin: Arc<Origin>,
}

impl Call {
    /// `place` is its place among the calls that wait.
    pub fn new(origin: &Arc<Origin>, place: Place) -> Arc<Call> {
        Arc::new(Call {
            shared: Mutex::new(Shared::new(place)),
            process: Mutex::new(Process::new()),
            origin: Arc::clone(origin),
        })
    }

    /// What becomes of the process when the client leaves.
    pub fn on_disconnect(&self) -> OnDisconnect {
        self.origin.config.on_disconnect
    }

    /// Wakes the worker's task.
    pub(super) fn tell_worker(&self, mut shared: MutexGuard<'_, Shared>) {
        let reader = shared.reader.take();
        let writer = if shared.reads_no_more() { shared.writer.take() } else { None };
        drop(shared);
        for task in [reader, writer].into_iter().flatten() {
            self.origin.bell.ring(task);
        }
    }
}

/// The worker's side: functions of the request write, those of the response read.
impl Call {
    /// Queues the first part of the request, which contains the head.
    pub fn begin_request(&self, part: &[u8]) {
        let part = part.to_vec();
        let mut shared = self.shared.lock();
        shared.request.reserve_beyond(part.len(), &self.origin.config.buffers);
        shared.request.push([Chunk::Copied(part)]);
    }

    /// Queues more of the request. `None` if the process reads no more of it; 0 if there is no room.
    pub fn write_request(&self, part: &[u8]) -> Option<usize> {
        let mut shared = self.shared.lock();
        if shared.reads_no_more() {
            shared.is_partial = true;
            return None;
        }
        let n = shared.request.reserve(part.len(), &self.origin.config.buffers);
        shared.is_partial |= n < part.len();
        if n <= SMALL_PART {
            shared.request.append(&part[..n]);
        } else {
            drop(shared);
            let chunks = chunks(&part[..n]);
            shared = self.shared.lock();
            shared.request.push(chunks);
        }
        let readable = if n > 0 { mem::take(&mut shared.readable) } else { Vec::new() };
        drop(shared);
        send(readable);
        Some(n)
    }

    pub fn poll_request_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut shared = self.shared.lock();
        if shared.request.has_room(&self.origin.config.buffers) || shared.reads_no_more() {
            return Poll::Ready(());
        }
        register(&mut shared.writer, cx);
        Poll::Pending
    }

    /// Takes a chunk of the response, once the chunk before (of length `consumed`) has been read. `Ok(None)` is
    /// the end.
    pub fn next_response(&self, consumed: usize) -> Poll<Result<Option<Chunk>, ()>> {
        let mut shared = self.shared.lock();
        let room = shared.consumed_response(consumed, &self.origin.config.buffers);
        let chunk = shared.next_response();
        let next = match (chunk, shared.end) {
            (Some(chunk), _) => Poll::Ready(Ok(Some(chunk))),
            (None, Some(End::Complete)) => Poll::Ready(Ok(None)),
            (None, Some(End::Failed)) => Poll::Ready(Err(())),
            (None, None) if shared.phase == Phase::Dropped => Poll::Ready(Err(())),
            (None, None) => Poll::Pending,
        };
        drop(shared);
        send(room);
        next
    }

    /// Ready if [`next_response`](Self::next_response) would be.
    pub fn poll_response(&self, cx: &Context<'_>, consumed: usize) -> Poll<()> {
        let mut shared = self.shared.lock();
        let room = shared.consumed_response(consumed, &self.origin.config.buffers);
        let is_ready =
            !shared.response.is_empty() || shared.end.is_some() || shared.phase == Phase::Dropped;
        if !is_ready {
            register(&mut shared.reader, cx);
        }
        drop(shared);
        send(room);
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The worker leaves: the response is complete, or the client is gone.
    pub fn close(&self) {
        let mut shared = self.shared.lock();
        shared.is_closed = true;
        shared.request.clear();
        shared.response.clear();
        let wakers = (shared.reader.take(), shared.writer.take());
        let place = shared.place.take();
        let is_early = shared.end.is_none();
        let [readable, room, closed] = shared.take_notices();
        drop(shared);
        drop((wakers, place));
        send(readable);
        send(room);
        if is_early {
            send(closed);
        }
    }

    /// No process will take the call: none was there, or it ended before. Nothing of the request has run.
    pub fn drop_unless_taken(&self) {
        let mut shared = self.shared.lock();
        if shared.phase == Phase::Waiting {
            shared.phase = Phase::Dropped;
            self.tell_worker(shared);
        }
    }

    /// The request, head and body, as far as it has been written, if no process has taken it and none will.
    /// `Some(None)`: a part of it would be missing.
    pub fn untaken_request(&self) -> Option<Option<Vec<u8>>> {
        let mut shared = self.shared.lock();
        if shared.phase != Phase::Dropped {
            return None;
        }
        if shared.is_partial {
            return Some(None);
        }
        let mut request = Vec::new();
        while let Some(chunk) = shared.request.pop() {
            request.extend_from_slice(&chunk);
        }
        Some(Some(request))
    }
}
