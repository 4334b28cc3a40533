//! A worker: one thread with its own event loop, connections, buffers and upstream connections.
//!
//! Workers share only [`Shared`]: the listening sockets, the routing table, counters and limits.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use mesh_wire::ids;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::client_limit::{Admitted, RefusedConnection};
use super::shared::Shared;
use super::task_pool::TaskPool;
use super::tunnels::Tunnels;
use crate::calls::CallConfig;
use crate::error::Error;
use crate::observe::{Notice, WorkerCounters};
use crate::runtime::BufferPool;
use crate::upstream::LocalRoutes;

/// Idle upstream connections are checked this often per idle timeout, so they live longer by this fraction
/// at most.
const LOOKS_PER_IDLE_TIME: u32 = 8;
/// How many spare head buffers are kept. Larger ones are dropped.
const SPARE_HEADS: usize = 256;
const MAX_SPARE_HEAD: usize = 16 * 1024;

/// How long a new connection may take for its first request during shutdown: its client may be about to send.
pub const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// A flag that is raised once and wakes the tasks that wait for it.
#[derive(Default)]
pub struct Signal {
    is_raised: Cell<bool>,
    raised: Notify,
}

impl Signal {
    pub fn raise(&self) {
        if !self.is_raised.replace(true) {
            self.raised.notify_waiters();
        }
    }

    pub fn is_raised(&self) -> bool {
        self.is_raised.get()
    }

    /// Waits for a later [`raise`](Self::raise).
    pub fn raised(&self) -> Notified<'_> {
        self.raised.notified()
    }
}

pub struct Worker {
    pub shared: Arc<Shared>,
    pub counters: Arc<WorkerCounters>,
    pub buffers: BufferPool,
    pub tasks: TaskPool<Accepted>,
    pub routes: LocalRoutes,
    random: RefCell<Rng>,
    /// The gateway stops soon: each response is the last on its connection.
    pub lame_duck: Signal,
    /// The gateway is stopping: connections without a request are closed.
    pub draining: Signal,
    pub tunnels: Tunnels,
    spare_heads: RefCell<Vec<Vec<u8>>>,
    open_connections: Cell<usize>,
    /// Open connections that carry only tunnels.
    only_tunnels: Cell<usize>,
    /// A connection has ended, or now carries only tunnels.
    pub ended: Notify,
    reaping: Cell<bool>,
    /// When idle upstream connections were last checked.
    coarse_now: Cell<Instant>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, index: usize, counters: Arc<WorkerCounters>) -> Rc<Worker> {
        let calls = CallConfig {
            buffers: Arc::clone(&shared.buffers),
            on_disconnect: shared.config.on_disconnect,
        };
        Rc::new(Worker {
            routes: LocalRoutes::new(Arc::clone(&shared.table), index, calls),
            buffers: BufferPool::new(Arc::clone(&shared.buffers)),
            shared,
            counters,
            tasks: TaskPool::default(),
            // Rng::new takes the time, which other workers may share.
            random: RefCell::new(Rng::with_seed(RandomState::new().hash_one(index))),
            lame_duck: Signal::default(),
            draining: Signal::default(),
            tunnels: Tunnels::default(),
            spare_heads: RefCell::default(),
            open_connections: Cell::new(0),
            only_tunnels: Cell::new(0),
            ended: Notify::new(),
            reaping: Cell::new(false),
            coarse_now: Cell::new(Instant::now()),
        })
    }

    /// The time of the last look at idle upstream connections. Precise enough to date them, and saves
    /// reading the clock twice per request.
    pub fn coarse_now(&self) -> Instant {
        self.coarse_now.get()
    }

    /// A random number for ids and samples. Not secret.
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    pub fn random_id(&self) -> u128 {
        self.random.borrow_mut().u128(..)
    }

    /// A `traceparent` that begins a trace.
    pub fn traceparent(&self) -> [u8; 55] {
        ids::traceparent(self.random_id(), self.random())
    }

    pub fn is_idle(&self) -> bool {
        self.open_connections.get() == 0
    }

    /// Whether only tunnels are open, which may never end by themselves.
    pub fn has_only_tunnels(&self) -> bool {
        self.open_connections.get() == self.only_tunnels.get()
    }

    /// An upstream connection that was last used before this is too old to be reused.
    pub fn oldest_idle(&self) -> Option<Instant> {
        self.coarse_now.get().checked_sub(self.shared.config.timeouts.upstream_idle?)
    }

    /// An empty buffer for a head.
    pub fn borrow_head(&self) -> Vec<u8> {
        self.spare_heads.borrow_mut().pop().unwrap_or_default()
    }

    pub fn release_head(&self, mut head: Vec<u8>) {
        let mut heads = self.spare_heads.borrow_mut();
        if head.capacity() <= MAX_SPARE_HEAD && heads.len() < SPARE_HEADS {
            head.clear();
            heads.push(head);
        }
    }

    /// Closes idle upstream connections in time. The task lives only while there are some, so an idle
    /// gateway has no timers.
    pub fn reap_later(self: &Rc<Self>) {
        let Some(keep) = self.shared.config.timeouts.upstream_idle else { return };
        if self.reaping.replace(true) {
            return;
        }
        self.coarse_now.set(Instant::now());
        let pause = (keep / LOOKS_PER_IDLE_TIME).max(Duration::from_millis(1));
        let worker = Rc::downgrade(self);
        spawn_local(async move {
            loop {
                sleep(pause).await;
                let Some(worker) = worker.upgrade() else { return };
                worker.coarse_now.set(Instant::now());
                if worker.routes.reap(worker.oldest_idle()) == 0 {
                    worker.reaping.set(false);
                    return;
                }
            }
        });
    }
}

pub struct Accepted {
    pub guard: ConnectionGuard,
    pub client: TcpStream,
    pub address: SocketAddr,
}

/// Counts an open client connection until dropped.
pub struct ConnectionGuard {
    pub worker: Rc<Worker>,
    limited: bool,
    /// The connection of a peer, not of a client.
    of_peer: bool,
    /// It counts as open. That of a peer does so only while it has a request.
    counts: bool,
    /// Its place among the client's connections, once the client is known.
    admitted: Option<Admitted>,
    /// Its place among the refused connections.
    refused: Option<RefusedConnection>,
}

impl ConnectionGuard {
    /// Returns an error if there is no room for the connection.
    pub fn new(worker: &Rc<Worker>, ip: IpAddr) -> Result<ConnectionGuard, Error> {
        let shared = &worker.shared;
        // Checked before `limits.connections`, so that refused connections of one client take no places of
        // others.
        let mut admitted = None;
        if shared.config.proxy_protocol.is_none() {
            admitted = shared.client_limit.admit(ip);
            if admitted.is_none() {
                let refused = shared.client_limit.refuse().ok_or(Error::TooManyConnections)?;
                return Ok(ConnectionGuard::counted(worker, false, None, Some(refused)));
            }
        }
        let limit = shared.config.limits.connections;
        if let Some(limit) = limit
            && shared.connections.fetch_add(1, Ordering::Relaxed)
                + shared.reserved.load(Ordering::Relaxed)
                >= limit
        {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Overloaded);
        }
        Ok(ConnectionGuard::counted(worker, limit.is_some(), admitted, None))
    }

    fn counted(
        worker: &Rc<Worker>,
        limited: bool,
        admitted: Option<Admitted>,
        refused: Option<RefusedConnection>,
    ) -> ConnectionGuard {
        worker.counters.connections_open.add(1);
        let mut guard = ConnectionGuard {
            worker: Rc::clone(worker),
            limited,
            of_peer: false,
            counts: false,
            admitted,
            refused,
        };
        guard.set_counts(true);
        guard
    }

    /// Counts the connection of a peer, for which no limit of clients applies. A stopping gateway does not wait
    /// for it while it is idle: only the peer closes it.
    pub fn of_peer(worker: &Rc<Worker>) -> ConnectionGuard {
        worker.counters.peer_connections_open.add(1);
        ConnectionGuard {
            worker: Rc::clone(worker),
            limited: false,
            of_peer: true,
            counts: false,
            admitted: None,
            refused: None,
        }
    }

    /// Whether a stopping gateway waits for the connection.
    pub fn set_counts(&mut self, counts: bool) {
        let open = &self.worker.open_connections;
        match (std::mem::replace(&mut self.counts, counts), counts) {
            (false, true) => open.set(open.get() + 1),
            (true, false) => {
                open.set(open.get() - 1);
                self.worker.ended.notify_one();
            }
            _ => {}
        }
    }

    /// Checks the client's limit once the client is known. If the client exceeds it, the connection only
    /// gets an answer and its place among `limits.connections` is freed.
    pub fn admit(&mut self, ip: IpAddr) -> Admission {
        let clients = &self.worker.shared.client_limit;
        if self.admitted.is_none() && self.refused.is_none() {
            self.admitted = clients.admit(ip);
        }
        if self.admitted.is_some() {
            return Admission::Served;
        }
        if std::mem::take(&mut self.limited) {
            self.worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
        self.refused = self.refused.take().or_else(|| clients.refuse());
        if self.refused.is_some() { Admission::Refused } else { Admission::TurnedAway }
    }
}

pub enum Admission {
    Served,
    /// The client gets an answer.
    Refused,
    /// Too many connections are being refused already.
    TurnedAway,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let worker = &self.worker;
        if std::thread::panicking() {
            worker.counters.panics.add(1);
            worker.shared.observer.notice(Notice::Panic, String::new);
        }
        if self.limited {
            worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
        if self.of_peer {
            worker.counters.peer_connections_open.sub(1);
        } else {
            worker.counters.connections_open.sub(1);
        }
        self.set_counts(false);
    }
}

pub struct TunnelGuard {
    _tunnel: TunnelsOnlyGuard,
    guard: ConnectionGuard,
}

impl TunnelGuard {
    pub fn new(guard: ConnectionGuard) -> TunnelGuard {
        TunnelGuard { _tunnel: TunnelsOnlyGuard::new(&guard.worker), guard }
    }

    pub fn worker(&self) -> &Rc<Worker> {
        &self.guard.worker
    }
}

/// Counts a client connection that carries only tunnels, until dropped.
pub struct TunnelsOnlyGuard(Rc<Worker>);

impl TunnelsOnlyGuard {
    pub fn new(worker: &Rc<Worker>) -> TunnelsOnlyGuard {
        worker.only_tunnels.set(worker.only_tunnels.get() + 1);
        worker.ended.notify_one();
        TunnelsOnlyGuard(Rc::clone(worker))
    }
}

impl Drop for TunnelsOnlyGuard {
    fn drop(&mut self) {
        self.0.only_tunnels.set(self.0.only_tunnels.get() - 1);
    }
}
