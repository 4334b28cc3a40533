//! Holds the state that the streams of one HTTP/2 connection share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use mesh_wire::client_addr::ClientAddr;
use tokio::sync::Notify;

use super::queue::Queue;
use crate::observe::Notice;
use crate::serve::worker::{ConnectionGuard, TunnelsOnlyGuard, Worker};

/// Lives until the last stream has ended.
pub struct Session {
    pub worker: Rc<Worker>,
    pub client: ClientAddr,
    /// Bytes queued for the client.
    pub queue: Arc<Queue>,
    pub streams: Cell<usize>,
    tunnels: Cell<usize>,
    /// Streams that the client reset early, less those that it waited for.
    pub abandoned: Cell<u32>,
    pub ended: Notify,
    only_tunnels: RefCell<Option<TunnelsOnlyGuard>>,
    // Declared last: everything else is dropped before the connection counts as closed.
    _guard: ConnectionGuard,
}

impl Session {
    pub fn new(guard: ConnectionGuard, client: ClientAddr) -> Rc<Session> {
        let worker = Rc::clone(&guard.worker);
        Rc::new(Session {
            client,
            queue: Queue::new(Arc::clone(&worker.shared.buffers)),
            worker,
            streams: Cell::new(0),
            tunnels: Cell::new(0),
            abandoned: Cell::new(0),
            ended: Notify::new(),
            only_tunnels: RefCell::new(None),
            _guard: guard,
        })
    }

    /// Records whether the client waited for the end of a stream.
    pub fn note_end(&self, waited: bool) {
        let abandoned = self.abandoned.get();
        self.abandoned.set(if waited { abandoned.saturating_sub(1) } else { abandoned + 1 });
    }

    /// Tells the worker whether only tunnels are left, which must not delay a stop.
    fn changed(&self) {
        let only = self.streams.get() > 0 && self.streams.get() == self.tunnels.get();
        let mut counted = self.only_tunnels.borrow_mut();
        if only != counted.is_some() {
            *counted = only.then(|| TunnelsOnlyGuard::new(&self.worker));
        }
    }
}

/// Counts a stream until dropped.
pub struct StreamGuard {
    pub session: Rc<Session>,
    is_tunnel: Cell<bool>,
}

impl StreamGuard {
    pub fn new(session: &Rc<Session>) -> StreamGuard {
        session.streams.set(session.streams.get() + 1);
        session.changed();
        StreamGuard { session: Rc::clone(session), is_tunnel: Cell::new(false) }
    }

    pub fn becomes_tunnel(&self) {
        if !self.is_tunnel.replace(true) {
            self.session.tunnels.set(self.session.tunnels.get() + 1);
            self.session.changed();
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let session = &self.session;
        if std::thread::panicking() {
            session.worker.counters.panics.add(1);
            session.worker.shared.observer.notice(Notice::Panic, String::new);
        }
        session.streams.set(session.streams.get() - 1);
        if self.is_tunnel.get() {
            session.tunnels.set(session.tunnels.get() - 1);
        }
        session.changed();
        session.ended.notify_one();
    }
}
