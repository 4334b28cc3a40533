//! A worker: one thread, one event loop, its own connections, buffers and upstream connections.
//! Only the listening sockets, the routing table and the counters are shared.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use mesh_wire::ids;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::client_limit::{Admitted, Refused};
use super::shared::Shared;
use super::task_pool::TaskPool;
use super::tunnels::Tunnels;
use crate::error::Error;
use crate::observe::{Notice, WorkerCounters};
use crate::runtime::BufferPool;
use crate::upstream::LocalRoutes;

/// An upstream connection is kept this part of the idle time longer than that, at most.
const LOOKS_PER_IDLE_TIME: u32 = 8;
/// Spare head buffers that are kept; a larger one is dropped.
const SPARE_HEADS: usize = 256;
const MAX_SPARE_HEAD: usize = 16 * 1024;

/// A new connection has at least this long to bring its first request: its client may be about to send.
pub const FIRST_REQUEST: Duration = Duration::from_secs(2);

pub struct Worker {
    pub shared: Arc<Shared>,
    pub counters: Arc<WorkerCounters>,
    pub buffers: BufferPool,
    pub tasks: TaskPool<Accepted>,
    pub routes: LocalRoutes,
    random: RefCell<Rng>,
    /// The gateway stops soon: every response is the last one on its connection.
    pub retiring: Cell<bool>,
    /// Wakes the HTTP/2 connections when that begins.
    pub retire: Notify,
    /// The gateway is stopping: connections without a request are closed.
    pub draining: Cell<bool>,
    /// Wakes the connections that wait for a request when that begins.
    pub drain: Notify,
    pub tunnels: Tunnels,
    heads: RefCell<Vec<Vec<u8>>>,
    open: Cell<usize>,
    /// Of those, the ones on which there is nothing but tunnels.
    only_tunnels: Cell<usize>,
    /// A connection has ended, or has become one with nothing but tunnels.
    pub ended: Notify,
    reaping: Cell<bool>,
    /// The time when idle upstream connections were last looked through: near enough to tell how
    /// old they are, without asking for the time twice for each request.
    pub now: Cell<Instant>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, index: usize, counters: Arc<WorkerCounters>) -> Rc<Worker> {
        Rc::new(Worker {
            routes: LocalRoutes::new(Arc::clone(&shared.table), index),
            buffers: BufferPool::new(Arc::clone(&shared.buffers)),
            shared,
            counters,
            tasks: TaskPool::default(),
            random: RefCell::new(Rng::new()),
            retiring: Cell::new(false),
            retire: Notify::new(),
            draining: Cell::new(false),
            drain: Notify::new(),
            tunnels: Tunnels::default(),
            heads: RefCell::default(),
            open: Cell::new(0),
            only_tunnels: Cell::new(0),
            ended: Notify::new(),
            reaping: Cell::new(false),
            now: Cell::new(Instant::now()),
        })
    }

    /// From now on every response is the last one on its connection.
    pub fn retire(&self) {
        if !self.retiring.replace(true) {
            self.retire.notify_waiters();
        }
    }

    /// The gateway is stopping: connections without a request are closed from now on.
    pub fn begin_drain(&self) {
        self.retire();
        self.draining.set(true);
        self.drain.notify_waiters();
    }

    /// A random number. Not secret: ids and samples are made of it.
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
        self.open.get() == 0
    }

    /// Whether nothing is under way but tunnels, which may never end by themselves.
    pub fn has_only_tunnels(&self) -> bool {
        self.open.get() == self.only_tunnels.get()
    }

    pub fn connect_timeout(&self) -> Option<Duration> {
        self.shared.config.timeouts.connect
    }

    /// When an idle upstream connection must have been used to be used again.
    pub fn oldest_idle(&self) -> Option<Instant> {
        self.now.get().checked_sub(self.shared.config.timeouts.upstream_idle?)
    }

    /// An empty buffer to write a head into.
    pub fn take_head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_head(&self, mut head: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if head.capacity() <= MAX_SPARE_HEAD && heads.len() < SPARE_HEADS {
            head.clear();
            heads.push(head);
        }
    }

    /// Sees to it that idle upstream connections are closed in time, with a task that lives only
    /// while there are some: an idle gateway has no timers.
    pub fn reap_later(self: &Rc<Self>) {
        let Some(keep) = self.shared.config.timeouts.upstream_idle else { return };
        if self.reaping.replace(true) {
            return;
        }
        self.now.set(Instant::now());
        let pause = (keep / LOOKS_PER_IDLE_TIME).max(Duration::from_millis(1));
        let worker = Rc::downgrade(self);
        spawn_local(async move {
            loop {
                sleep(pause).await;
                let Some(worker) = worker.upgrade() else { return };
                worker.now.set(Instant::now());
                if worker.routes.reap(worker.oldest_idle()) == 0 {
                    worker.reaping.set(false);
                    return;
                }
            }
        });
    }
}

/// A connection that has just been accepted.
pub struct Accepted {
    pub open: Open,
    pub client: TcpStream,
    pub address: SocketAddr,
}

/// An open client connection: counted while it lives, however it ends.
pub struct Open {
    pub worker: Rc<Worker>,
    limited: bool,
    /// Its place among the connections of its client, once it is known who that is.
    admitted: Option<Admitted>,
    /// Its place among those that are refused.
    refused: Option<Refused>,
}

impl Open {
    /// An error says that there is no room for it.
    pub fn new(worker: &Rc<Worker>, ip: IpAddr) -> Result<Open, Error> {
        let shared = &worker.shared;
        // Before it has a place: one client is not to take the others' with what is refused.
        let mut admitted = None;
        if shared.config.proxy_protocol.is_none() {
            admitted = shared.clients.admit(ip);
            if admitted.is_none() {
                let refused = shared.clients.refuse().ok_or(Error::TooManyConnections)?;
                return Ok(Open::counted(worker, false, None, Some(refused)));
            }
        }
        let limit = shared.config.limits.connections;
        if let Some(limit) = limit
            && shared.connections.fetch_add(1, Ordering::Relaxed) >= limit
        {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Overloaded);
        }
        Ok(Open::counted(worker, limit.is_some(), admitted, None))
    }

    fn counted(
        worker: &Rc<Worker>,
        limited: bool,
        admitted: Option<Admitted>,
        refused: Option<Refused>,
    ) -> Open {
        worker.open.set(worker.open.get() + 1);
        worker.counters.connections_open.add(1);
        Open { worker: Rc::clone(worker), limited, admitted, refused }
    }

    /// Now that it is known whose connection this is: whether the client may have it. Where it may
    /// not, the connection is only told so, and its place among `limits.connections` is free.
    pub fn admit(&mut self, ip: IpAddr) -> Admission {
        let clients = &self.worker.shared.clients;
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
    /// It is told why.
    Refused,
    /// Too many are being told already.
    TurnedAway,
}

impl Drop for Open {
    fn drop(&mut self) {
        let worker = &self.worker;
        if std::thread::panicking() {
            worker.counters.panics.add(1);
            worker.shared.observer.notice(Notice::Panic, String::new);
        }
        if self.limited {
            worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
        worker.open.set(worker.open.get() - 1);
        worker.counters.connections_open.sub(1);
        worker.ended.notify_one();
    }
}

/// A client connection that has become a tunnel.
pub struct TunnelGuard {
    _tunnel: OnlyTunnels,
    open: Open,
}

impl TunnelGuard {
    pub fn new(open: Open) -> TunnelGuard {
        TunnelGuard { _tunnel: OnlyTunnels::new(&open.worker), open }
    }

    pub fn worker(&self) -> &Rc<Worker> {
        &self.open.worker
    }
}

/// Counts a client connection on which there is nothing but tunnels, as long as it is so.
pub struct OnlyTunnels(Rc<Worker>);

impl OnlyTunnels {
    pub fn new(worker: &Rc<Worker>) -> OnlyTunnels {
        worker.only_tunnels.set(worker.only_tunnels.get() + 1);
        worker.ended.notify_one();
        OnlyTunnels(Rc::clone(worker))
    }
}

impl Drop for OnlyTunnels {
    fn drop(&mut self) {
        self.0.only_tunnels.set(self.0.only_tunnels.get() - 1);
    }
}
