//! A worker: one thread, one event loop, its own connections, buffers and upstream connections.
//! Only the listening sockets, the routing table and the counters are shared.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::accept::Accepting;
use crate::buffer::BufferPool;
use crate::clients::{Admitted, Refused};
use crate::drain::{self, Tunnels};
use crate::error::Error;
use crate::gateway::{Phase, Shared, WorkerError};
use crate::ids;
use crate::observe::Notice;
use crate::routes::Routes;
use crate::stats::WorkerCounters;
use crate::tasks::Spares;

/// An upstream connection is kept this part of the idle time longer than that, at most.
const LOOKS_PER_IDLE_TIME: u32 = 8;
/// Spare head buffers that are kept; a larger one is dropped.
const SPARE_HEADS: usize = 256;
const MAX_SPARE_HEAD: usize = 16 * 1024;

pub struct Worker {
    pub shared: Arc<Shared>,
    pub counters: Arc<WorkerCounters>,
    pub buffers: BufferPool,
    pub spares: Spares,
    pub routes: Routes,
    pub ids: ids::Maker,
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

/// Runs until the gateway stops.
pub fn run(
    shared: Arc<Shared>,
    index: usize,
    counters: Arc<WorkerCounters>,
) -> Result<(), WorkerError> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())
        .map_err(WorkerError::Io)?;
    runtime.block_on(async {
        let worker = Rc::new(Worker {
            routes: Routes::new(Arc::clone(&shared.table), index),
            buffers: BufferPool::new(Arc::clone(&shared.buffers)),
            shared,
            counters,
            spares: Spares::default(),
            ids: ids::Maker::default(),
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
        });
        serve(&worker).await
    })
}

async fn serve(worker: &Rc<Worker>) -> Result<(), WorkerError> {
    let mut phase = worker.shared.phase.subscribe();
    let listeners = worker.shared.listeners().map_err(WorkerError::Io)?;
    let mut accepting = Accepting::start(worker, listeners).map_err(WorkerError::Io)?;
    loop {
        match *phase.borrow_and_update() {
            Phase::Serving => {}
            Phase::LameDuck => worker.retire(),
            Phase::Draining(_) => break,
        }
        tokio::select! {
            // The sender lives in `shared`, which lives in `worker`.
            _ = phase.changed() => {}
            () = accepting.failed() => return Err(WorkerError::Panicked),
        }
    }
    worker.retire();
    worker.draining.set(true);
    worker.drain.notify_waiters();
    drain::run(worker, accepting, phase).await;
    Ok(())
}

impl Worker {
    /// From now on every response is the last one on its connection.
    fn retire(&self) {
        if !self.retiring.replace(true) {
            self.retire.notify_waiters();
        }
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

/// A request that waits for its endpoint to come back.
pub struct HeldRequest(Rc<Worker>);

impl HeldRequest {
    /// `None` when as many wait as may.
    pub fn new(worker: &Rc<Worker>) -> Option<HeldRequest> {
        let held = &worker.shared.held_requests;
        if held.fetch_add(1, Ordering::Relaxed) >= worker.shared.config.limits.held_requests {
            held.fetch_sub(1, Ordering::Relaxed);
            worker.reached(&worker.counters.limits.held_requests, "held_requests");
            return None;
        }
        Some(HeldRequest(Rc::clone(worker)))
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.0.shared.held_requests.fetch_sub(1, Ordering::Relaxed);
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
