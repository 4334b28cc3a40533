//! What all workers of a gateway share.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::client_limit::ClientLimit;
use super::listener;
use crate::config::Config;
use crate::observe::{Observer, WorkerCounters};
use crate::routing::Table;
use crate::runtime::Budget;

/// The part of `limits.buffer_bytes` that is for the windows of uploads over HTTP/2.
const WINDOWS_SHARE: usize = 4;

/// How a stop is to go; workers wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// As before, but every response is the last one on its connection.
    LameDuck,
    /// No new connections; `None` waits for the last request however long it takes.
    Draining(Option<Duration>),
}

/// What all workers of a gateway share.
pub struct Shared {
    pub config: Config,
    pub port: u16,
    pub table: Arc<ArcSwap<Table>>,
    pub table_changed: Notify,
    pub phase: watch::Sender<Phase>,
    /// Client connections over all workers, counted only where a limit asks for it.
    pub connections: AtomicUsize,
    pub held_requests: AtomicUsize,
    pub clients: Arc<ClientLimit>,
    /// Of `limits.buffer_bytes`: for long buffers, and for responses that HTTP/2 has queued.
    pub buffers: Arc<Budget>,
    /// And for the windows of uploads over HTTP/2.
    pub upload_windows: Arc<Budget>,
    pub observer: Observer,
    /// How often a worker has let another one have the next connection.
    #[cfg(test)]
    pub turns: AtomicUsize,
    /// A worker is to panic when it accepts the next connection.
    #[cfg(test)]
    pub crash: AtomicBool,
    listeners: Mutex<Vec<TcpListener>>,
    pub workers: Vec<WorkerSlot>,
}

impl Shared {
    pub fn new(config: Config, port: u16, listeners: Vec<TcpListener>) -> Shared {
        let windows = config.limits.buffer_bytes / WINDOWS_SHARE;
        Shared {
            port,
            table: Arc::default(),
            table_changed: Notify::new(),
            phase: watch::channel(Phase::Serving).0,
            connections: AtomicUsize::new(0),
            held_requests: AtomicUsize::new(0),
            observer: Observer::default(),
            #[cfg(test)]
            turns: AtomicUsize::new(0),
            #[cfg(test)]
            crash: AtomicBool::new(false),
            clients: ClientLimit::new(config.limits.connections_per_client),
            buffers: Budget::new(config.limits.buffer_bytes - windows),
            upload_windows: Budget::new(windows),
            listeners: Mutex::new(listeners),
            workers: (0..config.workers.max(1)).map(|_| WorkerSlot::default()).collect(),
            config,
        }
    }

    /// Connections that all workers have accepted so far.
    pub fn accepted(&self) -> u64 {
        self.workers.iter().map(|slot| slot.counters.connections_accepted.get()).sum()
    }

    /// Open connections of the running worker that has the fewest.
    pub fn fewest_open(&self) -> u64 {
        let running = self.workers.iter().filter(|slot| slot.running.load(Ordering::Relaxed));
        running.map(|slot| slot.counters.connections_open.get()).min().unwrap_or(0)
    }

    /// The listening sockets once more, for one worker's event loop.
    pub fn listeners(&self) -> std::io::Result<Vec<TcpListener>> {
        self.listeners.lock().iter().map(TcpListener::try_clone).collect()
    }

    /// A worker has taken what was in the queues. They end with the other workers' descriptors.
    pub fn close_listeners(&self) {
        self.listeners.lock().clear();
    }

    /// Lets no new connection into the queues of the listening sockets.
    pub fn close_to_new(&self) {
        self.listeners.lock().iter().for_each(listener::close_to_new);
    }
}

#[derive(Default)]
pub struct WorkerSlot {
    pub running: AtomicBool,
    pub counters: Arc<WorkerCounters>,
}
