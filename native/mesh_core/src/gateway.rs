//! The gateway as its owner sees it: opened, given routes, run by workers, asked, stopped.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::buffer::Budget;
use crate::clients::Clients;
use crate::config::Config;
use crate::histogram::COARSE;
use crate::host::Host;
use crate::listener::{self, OpenError};
use crate::observe::{Observe, ObserveError, Observer};
use crate::stats::{Gone, ServiceTotals, Stats, WorkerCounters, WorkerTotals};
use crate::table::{Resolved, RouteError, ServiceSpec, Table};
use crate::worker;

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
    pub clients: Arc<Clients>,
    /// Of `limits.buffer_bytes`: for long buffers, and for responses that HTTP/2 has queued.
    pub buffers: Arc<Budget>,
    /// And for the windows of uploads over HTTP/2.
    pub upload_windows: Arc<Budget>,
    pub observer: Arc<Observer>,
    /// How often a worker has let another one have the next connection.
    #[cfg(test)]
    pub turns: AtomicUsize,
    listeners: Mutex<Vec<TcpListener>>,
    workers: Vec<WorkerSlot>,
}

impl Shared {
    /// Connections that all workers have accepted so far.
    pub fn accepted(&self) -> u64 {
        self.workers.iter().map(|slot| slot.counters.connections_accepted.get()).sum()
    }

    /// Open connections of the running worker that has the fewest.
    pub fn fewest_open(&self) -> u64 {
        let running = self.workers.iter().filter(|slot| slot.running.load(Ordering::Relaxed));
        running.map(|slot| slot.counters.connections_open.get()).min().unwrap_or(0)
    }
}

#[derive(Default)]
struct WorkerSlot {
    running: AtomicBool,
    counters: Arc<WorkerCounters>,
}

pub struct Gateway {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// Serialises changes of the table; holds the last service id given out.
    next_id: Mutex<u64>,
    gone: Mutex<Gone>,
}

#[derive(Debug)]
pub enum WorkerError {
    UnknownWorker(usize),
    AlreadyRunning(usize),
    Io(std::io::Error),
    /// The task that accepts connections panicked.
    Panicked,
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerError::UnknownWorker(index) => write!(f, "there is no worker {index}"),
            WorkerError::AlreadyRunning(index) => write!(f, "worker {index} is running already"),
            WorkerError::Io(error) => write!(f, "the worker's event loop failed: {error}"),
            WorkerError::Panicked => f.write_str("the worker's accept loop panicked"),
        }
    }
}

impl std::error::Error for WorkerError {}

impl Gateway {
    /// Binds the sockets. Clients can connect from now on and are served once a worker runs.
    pub fn open(config: Config) -> Result<Gateway, OpenError> {
        let listeners = listener::bind_all(&config)?;
        let windows = config.limits.buffer_bytes / WINDOWS_SHARE;
        let addresses: Vec<_> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        let shared = Shared {
            port: addresses.first().map_or(config.port, SocketAddr::port),
            table: Arc::default(),
            table_changed: Notify::new(),
            phase: watch::channel(Phase::Serving).0,
            connections: AtomicUsize::new(0),
            held_requests: AtomicUsize::new(0),
            observer: Arc::default(),
            #[cfg(test)]
            turns: AtomicUsize::new(0),
            clients: Clients::new(config.limits.connections_per_client),
            buffers: Budget::new(config.limits.buffer_bytes - windows),
            upload_windows: Budget::new(windows),
            listeners: Mutex::new(listeners),
            workers: (0..config.workers.max(1)).map(|_| WorkerSlot::default()).collect(),
            config,
        };
        Ok(Gateway {
            shared: Arc::new(shared),
            addresses,
            next_id: Mutex::new(0),
            gone: Mutex::default(),
        })
    }

    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Lends the calling thread to worker `index` until the gateway is stopped and drained.
    pub fn run_worker(&self, index: usize) -> Result<(), WorkerError> {
        let slot = self.shared.workers.get(index).ok_or(WorkerError::UnknownWorker(index))?;
        if slot.running.swap(true, Ordering::AcqRel) {
            return Err(WorkerError::AlreadyRunning(index));
        }
        // Released on unwinding, too, so that the worker can be started anew.
        let _running = Running(&slot.running);
        worker::run(Arc::clone(&self.shared), index, Arc::clone(&slot.counters))
    }

    /// Replaces the whole routing table. On an error the old one stays.
    pub fn set_routes(
        &self,
        services: Vec<ServiceSpec>,
        default: Option<&str>,
    ) -> Result<(), RouteError> {
        let mut next_id = self.next_id.lock();
        let old = self.shared.table.load_full();
        let new = Arc::new(Table::build(services, default, &old, &mut next_id)?);
        self.shared.table.store(Arc::clone(&new));
        old.retire_missing_from(&new);
        let mut gone = self.gone.lock();
        old.services().filter(|s| new.named(&s.name).is_none()).for_each(|s| {
            gone.add(Arc::clone(&s.stats));
        });
        drop(gone);
        self.shared.table_changed.notify_waiters();
        Ok(())
    }

    /// Which service a `Host` field would lead to.
    pub fn resolve(&self, host: &str) -> Option<Resolved> {
        let host = Host::parse(host.as_bytes()).ok()?;
        self.shared.table.load().resolve(&host)
    }

    /// Goes on serving, and tells clients to use other connections from now on (`Connection: close`,
    /// GOAWAY): [`Gateway::stop`] will follow.
    pub fn lame_duck(&self) {
        self.shared.phase.send_if_modified(|phase| {
            let serves = *phase == Phase::Serving;
            if serves {
                *phase = Phase::LameDuck;
            }
            serves
        });
    }

    /// Accepts no new connections. Open connections, and those in the kernel's queue, have `drain` to
    /// finish. A second call replaces the time of the first.
    pub fn stop(&self, drain: Option<Duration>) {
        self.shared.listeners.lock().iter().for_each(listener::close_to_new);
        self.shared.phase.send_replace(Phase::Draining(drain));
    }

    /// Begins to observe, in place of what was observed before. With a log file that cannot be
    /// opened all stays as it was.
    pub fn observe(&self, observe: Observe) -> Result<(), ObserveError> {
        self.shared.observer.start(observe)
    }

    /// Opens the file of the access log anew, for the old one has been moved away.
    pub fn reopen_log(&self) {
        self.shared.observer.reopen();
    }

    pub fn stats(&self) -> Stats {
        let mut gateway = WorkerTotals::default();
        for slot in &self.shared.workers {
            gateway.add(&slot.counters);
        }
        gateway.records_lost += self.shared.observer.lost();
        let table = self.shared.table.load();
        let services: BTreeMap<_, _> =
            table.services().map(|s| (s.name.clone(), s.stats.totals())).collect();
        let mut total = self.gone.lock().totals();
        services.values().for_each(|service: &ServiceTotals| total.merge(service));
        Stats { gateway, total, services, latency_buckets: COARSE.to_vec() }
    }
}

impl Drop for Gateway {
    /// No thread outlives the gateway, or the library that its code is in.
    fn drop(&mut self) {
        self.shared.observer.stop();
    }
}

struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Shared {
    /// The listening sockets once more, for one worker's event loop.
    pub fn listeners(&self) -> std::io::Result<Vec<TcpListener>> {
        self.listeners.lock().iter().map(TcpListener::try_clone).collect()
    }

    /// A worker has taken what was in the queues. They end with the other workers' descriptors.
    pub fn close_listeners(&self) {
        self.listeners.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// The worker that wakes up first would have nearly all of them.
    #[test]
    fn connections_that_come_at_once_are_shared_among_the_workers() {
        let config = Config { workers: 2, ..Config::default() };
        let gateway = Arc::new(Gateway::open(config).unwrap());
        let run = |index| {
            let gateway = Arc::clone(&gateway);
            thread::spawn(move || gateway.run_worker(index))
        };
        let burst = |n: usize| -> Vec<TcpStream> {
            let address = gateway.local_addrs()[0];
            (0..n).map(|_| TcpStream::connect(address).unwrap()).collect()
        };
        let open = || gateway.shared.workers.iter().map(|w| w.counters.connections_open.get());
        let settle = |n: u64| {
            let until = Instant::now() + Duration::from_secs(20);
            while open().sum::<u64>() != n {
                assert!(Instant::now() < until, "{:?} are open", open().collect::<Vec<_>>());
                thread::sleep(Duration::from_millis(1));
            }
        };
        // One that comes later, as after a crash, gets what the other has more.
        let first = run(0);
        let early = burst(100);
        settle(100);
        let second = run(1);
        let late = burst(300);
        settle(400);
        let shares: Vec<u64> = open().collect();
        assert!(shares.iter().all(|share| *share >= 120), "{shares:?}");
        drop((early, late));
        settle(0);
        gateway.stop(None);
        assert!(first.join().unwrap().is_ok() && second.join().unwrap().is_ok());
    }

    /// A worker that is ahead does not wait for one that takes nothing before each connection.
    #[test]
    fn a_busy_worker_holds_no_connection_up() {
        const CLIENTS: usize = 400;
        let config = Config { workers: 2, ..Config::default() };
        let gateway = Arc::new(Gateway::open(config).unwrap());
        // It runs, has nothing, and takes nothing.
        gateway.shared.workers[1].running.store(true, Ordering::Relaxed);
        let address = gateway.local_addrs()[0];
        let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let worker = {
            let gateway = Arc::clone(&gateway);
            thread::spawn(move || gateway.run_worker(0))
        };
        let until = Instant::now() + Duration::from_secs(20);
        while gateway.shared.accepted() < CLIENTS as u64 {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(1));
        }
        let turns = gateway.shared.turns.load(Ordering::Relaxed);
        assert!((1..CLIENTS / 20).contains(&turns), "{turns} turns");
        drop(clients);
        gateway.stop(Some(Duration::ZERO));
        assert!(worker.join().unwrap().is_ok());
    }
}
