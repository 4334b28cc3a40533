//! Holds the state that all workers of a gateway share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::client_limit::ClientLimit;
use super::listening::Listening;
use super::mesh_port::MeshPort;
use crate::config::Config;
use crate::mesh::Peer;
use crate::observe::{Observer, WorkerCounters};
use crate::routing::Table;
use crate::runtime::Budget;

/// The fraction of `limits.buffer_bytes` for the windows of HTTP/2 uploads.
const WINDOWS_SHARE: usize = 4;

/// The phase of the gateway, which workers follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// Serves, but each response is the last on its connection.
    LameDuck,
    /// Accepts no connections. `None` waits for the last request without a limit.
    Draining(Option<Duration>),
}

pub struct Shared {
    pub config: Config,
    /// For requests of peers.
    pub config_for_peers: Config,
    pub port: u16,
    pub table: Arc<ArcSwap<Table>>,
    pub table_changed: Notify,
    pub phase: watch::Sender<Phase>,
    /// Client connections over all workers, counted only if a limit is configured.
    pub connections: AtomicUsize,
    /// Those of another process that count, too.
    pub reserved: AtomicUsize,
    pub held_requests: AtomicUsize,
    pub client_limit: Arc<ClientLimit>,
    /// The part of `limits.buffer_bytes` for large buffers, queues of calls and queued HTTP/2 responses.
    pub buffers: Arc<Budget>,
    /// The part for the windows of HTTP/2 uploads.
    pub upload_windows: Arc<Budget>,
    pub observer: Arc<Observer>,
    /// Peers that have become upstreams, for the worker that is notified.
    pub to_greet: Mutex<Vec<Arc<Peer>>>,
    pub greet: Notify,
    /// The mesh, once it is open.
    pub mesh: watch::Sender<Option<Arc<MeshPort>>>,
    /// How often a worker has yielded a connection to another.
    #[cfg(test)]
    pub yields: AtomicUsize,
    /// Makes a worker panic when it accepts the next connection.
    #[cfg(test)]
    pub crash: AtomicBool,
    pub listening: Listening,
    pub workers: Vec<WorkerSlot>,
}

impl Shared {
    pub fn new(config: Config, port: u16, listening: Listening) -> Shared {
        let windows = config.limits.buffer_bytes / WINDOWS_SHARE;
        Shared {
            port,
            listening,
            table: Arc::default(),
            table_changed: Notify::new(),
            phase: watch::channel(Phase::Serving).0,
            connections: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            held_requests: AtomicUsize::new(0),
            observer: Arc::default(),
            to_greet: Mutex::default(),
            greet: Notify::new(),
            mesh: watch::channel(None).0,
            config_for_peers: config.for_peers(),
            #[cfg(test)]
            yields: AtomicUsize::new(0),
            #[cfg(test)]
            crash: AtomicBool::new(false),
            client_limit: ClientLimit::new(config.limits.connections_per_client),
            buffers: Budget::new(config.limits.buffer_bytes - windows),
            upload_windows: Budget::new(windows),
            workers: (0..config.workers.max(1)).map(|_| WorkerSlot::default()).collect(),
            config,
        }
    }

    /// The configuration for the requests of peers or of clients.
    pub fn config_for(&self, peers: bool) -> &Config {
        if peers { &self.config_for_peers } else { &self.config }
    }

    pub fn accepted(&self) -> u64 {
        self.workers.iter().map(|slot| slot.counters.connections_accepted.get()).sum()
    }

    /// Open connections of the running worker with the fewest.
    pub fn fewest_open(&self) -> u64 {
        let running = self.workers.iter().filter(|slot| slot.running.load(Ordering::Relaxed));
        running.map(|slot| slot.counters.connections_open.get()).min().unwrap_or(0)
    }

    /// Connections of peers of the running worker with the fewest.
    pub fn fewest_peers_open(&self) -> u64 {
        let running = self.workers.iter().filter(|slot| slot.running.load(Ordering::Relaxed));
        running.map(|slot| slot.counters.peer_connections_open.get()).min().unwrap_or(0)
    }

    /// Open connections of clients, over all workers.
    pub fn connections_open(&self) -> u64 {
        self.workers.iter().map(|slot| slot.counters.connections_open.get()).sum()
    }
}

#[derive(Default)]
pub struct WorkerSlot {
    pub running: AtomicBool,
    pub counters: Arc<WorkerCounters>,
}
