//! The gateway as its owner sees it: opened, given routes, run by workers, asked, stopped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_wire::host::Host;
use parking_lot::Mutex;

use crate::config::Config;
use crate::observe::{COARSE, Gone, Observe, ObserveError, ServiceTotals, Stats, WorkerTotals};
use crate::routing::{Resolved, RouteError, ServiceSpec, Table};
use crate::serve::{OpenError, Phase, Shared, WorkerError, bind_all, run_worker};

pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// Serialises changes of the table; holds the last service id given out.
    next_id: Mutex<u64>,
    gone: Mutex<Gone>,
}

impl Gateway {
    /// Binds the sockets. Clients can connect from now on and are served once a worker runs.
    pub fn open(config: Config) -> Result<Gateway, OpenError> {
        let listeners = bind_all(&config)?;
        let addresses: Vec<_> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        let port = addresses.first().map_or(config.port, SocketAddr::port);
        Ok(Gateway {
            shared: Arc::new(Shared::new(config, port, listeners)),
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
        run_worker(Arc::clone(&self.shared), index, Arc::clone(&slot.counters))
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
        self.shared.close_to_new();
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
