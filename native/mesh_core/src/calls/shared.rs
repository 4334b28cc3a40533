//! What the two sides of a call share.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::sync::OwnedSemaphorePermit;

use super::queue::{Chunk, Queue};
use super::response::FAILED;
use crate::runtime::Budget;

/// A place among the calls that wait, until dropped.
pub type Place = OwnedSemaphorePermit;

/// How much of a request is queued for the process. The first part, with the head, may be longer.
const MAX_REQUEST: usize = 256 * 1024;
/// How much of a response is queued for the worker: about as much as a socket's buffers. A head may be beyond it.
const MAX_RESPONSE: usize = 256 * 1024;

/// A message to a process that waits.
pub trait Notice: Send {
    /// Identifies the process. A second notice for it replaces the first.
    fn process(&self) -> u64;

    fn send(self: Box<Self>);
}

/// At most one for each process.
pub type Notices = Vec<Box<dyn Notice>>;

pub struct Shared {
    pub phase: Phase,
    /// How many chunks are in front of the final head, until the worker takes the head.
    pub unread_head: Option<usize>,
    /// The worker has left: the client is gone, or the response is complete.
    pub is_closed: bool,
    /// The process has ended its response.
    pub end: Option<End>,
    pub request: Queue,
    pub response: Queue,
    /// A part of the request was not accepted whole.
    pub is_partial: bool,
    pub place: Option<Place>,
    /// The task of the worker waits for a response, or for room.
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
    /// Sent once, when there is more of the request, when there is room for more of the response, and when the
    /// client is gone. The worker sends them, all that are left when it leaves.
    pub readable: Notices,
    pub room: Notices,
    pub closed: Notices,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No process has taken the call yet.
    Waiting,
    Taken,
    /// No process will.
    Dropped,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Complete,
    /// The process failed after it had sent a head.
    Failed,
}

impl Shared {
    pub fn new(place: Place) -> Shared {
        Shared {
            phase: Phase::Waiting,
            unread_head: None,
            is_closed: false,
            end: None,
            request: Queue::new(MAX_REQUEST),
            response: Queue::new(MAX_RESPONSE),
            is_partial: false,
            place: Some(place),
            reader: None,
            writer: None,
            readable: Vec::new(),
            room: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// The process reads no more of the request. A call that was dropped is still filled: the worker is about to
    /// take the request back, and what was refused would be missing.
    pub fn reads_no_more(&self) -> bool {
        self.end.is_some()
    }

    /// Frees the room of a chunk. Returns who waits for it.
    pub fn consumed_response(&mut self, n: usize, budget: &Budget) -> Notices {
        if n == 0 {
            return Vec::new();
        }
        self.response.consumed(n);
        if self.response.has_much_room(budget) { mem::take(&mut self.room) } else { Vec::new() }
    }

    /// Takes the next chunk of the response.
    pub fn next_response(&mut self) -> Option<Chunk> {
        let chunk = self.response.pop()?;
        self.unread_head = self.unread_head.and_then(|before| before.checked_sub(1));
        Some(chunk)
    }

    /// Ends the response. Without a head, or with one of which the client has got nothing, it is a 500.
    pub fn fail(&mut self, has_head: bool, budget: &Arc<Budget>) {
        if has_head {
            let Some(before) = self.unread_head.take() else {
                self.end = Some(End::Failed);
                return;
            };
            self.response.truncate(before);
        }
        self.response.reserve_beyond(FAILED.len(), budget);
        self.response.append(FAILED);
        self.end = Some(End::Complete);
    }

    pub fn take_notices(&mut self) -> [Notices; 3] {
        [&mut self.readable, &mut self.room, &mut self.closed].map(mem::take)
    }
}

pub fn arm(notices: &mut Notices, notice: Box<dyn Notice>) {
    match notices.iter_mut().find(|armed| armed.process() == notice.process()) {
        Some(armed) => *armed = notice,
        None => notices.push(notice),
    }
}

pub fn send(notices: Notices) {
    notices.into_iter().for_each(|notice| notice.send());
}

pub fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}
