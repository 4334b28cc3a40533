//! A worker: one thread, one event loop, its own connections, buffers and upstream connections.
//! Only the listening sockets, the routing table and the counters are shared.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::buffer::BufferPool;
use crate::clients::Admitted;
use crate::connection;
use crate::gateway::{Phase, Shared, WorkerError};
use crate::ids;
use crate::observe::Notice;
use crate::routes::Routes;
use crate::stats::WorkerCounters;
use crate::tasks::{self, Newcomer, Spares};

/// Pause after a failed `accept`: without descriptors the next one fails as well, and a loop that
/// tries at once would take the whole core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// A worker with this many connections more than another, and an eighth of the other's, lets it have
/// the next ones.
const AHEAD: u64 = 4;
/// For how long: long enough to wake up, and nobody notices it.
const TURN: Duration = Duration::from_millis(1);
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
    /// The gateway is stopping: finish what is under way, begin nothing.
    pub draining: Cell<bool>,
    /// Wakes the connections that wait for a request when draining begins.
    pub drain: Notify,
    /// Wakes the tunnels once no request is left.
    pub close_tunnels: Notify,
    /// They have been woken; a tunnel that begins only now ends at once.
    pub tunnels_closing: Cell<bool>,
    heads: RefCell<Vec<Vec<u8>>>,
    open: Cell<usize>,
    tunnels: Cell<usize>,
    /// Something that draining waits for has ended.
    ended: Notify,
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
            draining: Cell::new(false),
            drain: Notify::new(),
            close_tunnels: Notify::new(),
            tunnels_closing: Cell::new(false),
            heads: RefCell::default(),
            open: Cell::new(0),
            tunnels: Cell::new(0),
            ended: Notify::new(),
            reaping: Cell::new(false),
            now: Cell::new(Instant::now()),
        });
        serve(&worker).await
    })
}

async fn serve(worker: &Rc<Worker>) -> Result<(), WorkerError> {
    let mut phase = worker.shared.phase.subscribe();
    let mut accepting = JoinSet::new();
    for listener in worker.shared.listeners().map_err(WorkerError::Io)? {
        let listener = TcpListener::from_std(listener).map_err(WorkerError::Io)?;
        accepting.spawn_local(accept(Rc::clone(worker), listener));
    }
    loop {
        if let Phase::Draining(_) = *phase.borrow_and_update() {
            break;
        }
        tokio::select! {
            // The sender lives in `shared`, which lives in `worker`.
            _ = phase.changed() => {}
            Some(_) = accepting.join_next() => return Err(WorkerError::Panicked),
        }
    }
    accepting.shutdown().await;
    worker.draining.set(true);
    worker.drain.notify_waiters();
    drain(worker, phase).await;
    Ok(())
}

/// Waits for the requests in flight, then closes the tunnels, which would never end by themselves.
async fn drain(worker: &Worker, mut phase: tokio::sync::watch::Receiver<Phase>) {
    let began = Instant::now();
    loop {
        let limit = match *phase.borrow_and_update() {
            Phase::Draining(limit) => limit.and_then(|limit| began.checked_add(limit)),
            Phase::Serving => None,
        };
        if worker.open.get() == 0 {
            return;
        }
        if worker.open.get() == worker.tunnels.get() {
            worker.tunnels_closing.set(true);
            worker.close_tunnels.notify_waiters();
        }
        let too_late = async {
            match limit {
                Some(limit) => sleep_until(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = worker.ended.notified() => {}
            _ = phase.changed() => {}
            () = too_late => return,
        }
    }
}

async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                #[cfg(test)]
                crate::crash_tests::crash_if_told(worker.shared.port);
                if let Some(open) = Open::new(&worker) {
                    worker.counters.connections_accepted.add(1);
                    tasks::serve(Newcomer { open, client: stream, address });
                    if worker.is_ahead() {
                        // One that has ended meanwhile will do, too.
                        let _ = timeout(TURN, worker.ended.notified()).await;
                    }
                } else {
                    connection::turn_away(&worker, stream);
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                worker.counters.accept_errors.add(1);
                worker.shared.observer.notice(Notice::Accept, || error.to_string());
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client left between its SYN and our accept.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl Worker {
    /// Whether another worker is to have the next connection. Whoever wakes up first takes one after
    /// another while there are any: of connections that come at once and are kept, one worker could
    /// get them all, and serve them all for as long as they are kept.
    fn is_ahead(&self) -> bool {
        let fewest = self.shared.fewest_open();
        self.counters.connections_open.get() > fewest + AHEAD + fewest / 8
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
    pub admitted: Option<Admitted>,
}

impl Open {
    /// `None` when `limits.connections` is reached.
    fn new(worker: &Rc<Worker>) -> Option<Open> {
        let shared = &worker.shared;
        let limit = shared.config.limits.connections;
        if let Some(limit) = limit
            && shared.connections.fetch_add(1, Ordering::Relaxed) >= limit
        {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        worker.open.set(worker.open.get() + 1);
        worker.counters.connections_open.add(1);
        Some(Open { worker: Rc::clone(worker), limited: limit.is_some(), admitted: None })
    }
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
        worker.tunnels.set(worker.tunnels.get() + 1);
        worker.ended.notify_one();
        OnlyTunnels(Rc::clone(worker))
    }
}

impl Drop for OnlyTunnels {
    fn drop(&mut self) {
        self.0.tunnels.set(self.0.tunnels.get() - 1);
    }
}
