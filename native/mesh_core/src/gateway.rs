//! The gateway's public interface: opens it, sets routes, runs workers, reads statistics, stops it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_wire::host::Host;
use parking_lot::Mutex;

use crate::config::{Config, MeshConfig};
use crate::mesh::{Mesh, PeerError, PeerRef, PeerSpec, PeerStats};
use crate::observe::{
    COARSE, ObserveConfig, ObserveError, RemovedServices, ServiceTotals, Stats, WorkerTotals,
};
use crate::routing::{LocalPreference, Resolved, RouteError, ServiceSpec, Table, UpstreamAddr};
use crate::serve::{
    Inherited, Listening, MeshInfo, MeshPort, OpenError, Phase, Shared, WorkerError, bind_all,
    bind_rest, run_worker,
};

/// How many clients [`Gateway::connections`] lists.
const MAX_CLIENTS: usize = 1_000;

pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// Serialises changes of the table. Holds the last id of a service or address.
    next_id: Mutex<u64>,
    prefer: Mutex<LocalPreference>,
    removed: Mutex<RemovedServices>,
}

impl Gateway {
    /// Binds the sockets. Clients can connect from now on; a worker serves them once it runs.
    pub fn open(config: Config) -> Result<Gateway, OpenError> {
        Gateway::open_with(config, Inherited::default())
    }

    /// Uses sockets that listen already, and binds the addresses of `config` beside them.
    pub fn open_with(config: Config, inherited: Inherited) -> Result<Gateway, OpenError> {
        let Inherited { sockets, accepting, keep_queue } = inherited;
        let listeners = if sockets.is_empty() {
            bind_all(&config.ips, config.port)?
        } else {
            bind_rest(sockets, &config.ips, config.port)?
        };
        let addresses: Vec<_> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        let port = addresses.first().map_or(config.port, SocketAddr::port);
        Ok(Gateway {
            shared: Arc::new(Shared::new(
                config,
                port,
                Listening::new(listeners, accepting, keep_queue),
            )),
            addresses,
            next_id: Mutex::new(0),
            prefer: Mutex::default(),
            removed: Mutex::default(),
        })
    }

    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Runs worker `index` on the calling thread until the gateway is stopped and drained.
    pub fn run_worker(&self, index: usize) -> Result<(), WorkerError> {
        let slot = self.shared.workers.get(index).ok_or(WorkerError::UnknownWorker(index))?;
        if slot.running.swap(true, Ordering::AcqRel) {
            return Err(WorkerError::AlreadyRunning(index));
        }
        // Reset on unwinding too, so that the worker can be restarted.
        let _running = Running(&slot.running);
        run_worker(Arc::clone(&self.shared), index, Arc::clone(&slot.counters))
    }

    /// Opens the mesh: makes this gateway's key, and listens for peers. A second call changes nothing.
    pub fn open_mesh(&self, config: &MeshConfig) -> Result<MeshInfo, OpenError> {
        let mut opened = Ok(());
        self.shared.mesh.send_if_modified(|port| {
            if port.is_some() {
                return false;
            }
            let made = Mesh::new(Arc::clone(&self.shared.observer)).map_err(|source| OpenError {
                address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), config.port),
                source,
            });
            match made.and_then(|mesh| MeshPort::open(config, mesh)) {
                Ok(open) => {
                    self.set_local_preference(LocalPreference(config.prefer_local));
                    *port = Some(Arc::new(open));
                }
                Err(error) => opened = Err(error),
            }
            port.is_some()
        });
        opened.map(|()| self.mesh().map_or_else(MeshInfo::default, |port| port.info.clone()))
    }

    fn mesh(&self) -> Option<Arc<MeshPort>> {
        self.shared.mesh.borrow().clone()
    }

    /// Replaces the peers. On an error the old ones stay.
    pub fn set_peers(&self, peers: Vec<PeerSpec>) -> Result<(), PeerError> {
        self.mesh().ok_or(PeerError::Closed)?.mesh.set_peers(peers)
    }

    /// The peer with this id, for the upstreams of [`set_routes`](Self::set_routes).
    pub fn peer(&self, id: &str) -> Option<UpstreamAddr> {
        self.mesh()?.mesh.peer(id).map(|peer| UpstreamAddr::Peer(PeerRef(peer)))
    }

    pub fn peer_stats(&self) -> Vec<PeerStats> {
        self.mesh().map_or_else(Vec::new, |port| port.mesh.stats())
    }

    /// Sets how far upstreams on this node are preferred. Applies to services of later [`set_routes`] that are
    /// new or have other upstreams than before.
    ///
    /// [`set_routes`]: Gateway::set_routes
    pub fn set_local_preference(&self, prefer: LocalPreference) {
        *self.prefer.lock() = prefer;
    }

    /// Replaces the routing table. On an error the old table stays.
    pub fn set_routes(
        &self,
        services: Vec<ServiceSpec>,
        default: Option<&str>,
    ) -> Result<(), RouteError> {
        let mut next_id = self.next_id.lock();
        let old = self.shared.table.load_full();
        let mut new = Table::build(services, default, &old, &mut next_id)?;
        new.prefer = *self.prefer.lock();
        let new = Arc::new(new);
        self.shared.table.store(Arc::clone(&new));
        let mut to_greet = new.new_peers(&old).map(|peer| Arc::clone(&peer.0)).peekable();
        if to_greet.peek().is_some() {
            self.shared.to_greet.lock().extend(to_greet);
            self.shared.greet.notify_one();
        }
        old.retire_missing_from(&new);
        // Services with one name share their counters.
        let gone = old.services().filter(|service| new.named(&service.name).is_none());
        let gone: BTreeMap<_, _> = gone.map(|service| (&service.name, &service.stats)).collect();
        gone.into_values().for_each(|stats| self.removed.lock().add(Arc::clone(stats)));
        self.shared.table_changed.notify_waiters();
        Ok(())
    }

    /// Finds the service for a `Host` field.
    pub fn resolve(&self, host: &str) -> Option<Resolved> {
        let host = Host::parse(host.as_bytes()).ok()?;
        self.shared.table.load().resolve(&host)
    }

    /// Keeps serving, but tells clients to use other connections (`Connection: close`, GOAWAY).
    /// [`Gateway::stop`] follows.
    pub fn lame_duck(&self) {
        self.shared.phase.send_if_modified(|phase| {
            let serves = *phase == Phase::Serving;
            if serves {
                *phase = Phase::LameDuck;
            }
            serves
        });
    }

    /// Stops accepting connections. Open connections, and those in the kernel's queue, have `drain` to
    /// finish. A second call replaces the drain time.
    pub fn stop(&self, drain: Option<Duration>) {
        self.shared.listening.reject_new();
        self.shared.phase.send_replace(Phase::Draining(drain));
    }

    /// Lets the workers accept connections. The queues of the sockets belong to this gateway from now on.
    pub fn accept(&self) {
        self.shared.listening.accept();
    }

    /// Stops accepting: connections wait in the queues. `false` if a worker still accepts after `max`.
    pub fn pause(&self, max: Duration) -> bool {
        self.shared.listening.pause(max)
    }

    /// Duplicates the listening sockets for another process, which may accept in place of this gateway. Until
    /// [`accept`](Self::accept), this gateway leaves the queues to it.
    pub fn share_listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.shared.listening.share()
    }

    /// Closes the listening sockets after another process has taken them over.
    pub fn release(&self, max: Duration) -> bool {
        let is_paused = self.pause(max);
        self.shared.listening.close();
        is_paused
    }

    /// How many connections of clients are open, and the clients with the most of them if they are limited.
    pub fn connections(&self) -> (u64, Vec<(IpAddr, usize)>) {
        (self.shared.connections_open(), self.shared.client_limit.largest(MAX_CLIENTS))
    }

    /// Counts connections of another process towards the limits. Replaces those of an earlier call.
    pub fn reserve(&self, total: usize, clients: impl Iterator<Item = (IpAddr, usize)>) {
        self.shared.reserved.store(total, Ordering::Relaxed);
        self.shared.client_limit.reserve(clients);
    }

    /// Replaces the observation settings. If the log file cannot be opened, nothing changes.
    pub fn observe(&self, observe: ObserveConfig) -> Result<(), ObserveError> {
        self.shared.observer.start(observe)
    }

    /// Reopens the access log file after a rotation.
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
        let mut total = self.removed.lock().totals();
        services.values().for_each(|service: &ServiceTotals| total.merge(service));
        let from_peers = table.services().map(|s| (s.name.clone(), s.stats_of_peers.totals()));
        let from_peers = from_peers.filter(|(_, totals)| totals.requests > 0).collect();
        Stats { gateway, total, services, from_peers, latency_buckets: COARSE.to_vec() }
    }
}

impl Drop for Gateway {
    /// No thread may outlive the gateway, or the library that contains its code.
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

    /// Otherwise the worker that wakes up first would accept nearly all of them.
    #[test]
    fn simultaneous_connections_are_shared_among_the_workers() {
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
        // A worker that starts later, as after a crash, catches up.
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

    /// A worker that is ahead does not pause before each connection if another accepts nothing.
    #[test]
    fn a_busy_worker_does_not_delay_connections() {
        const CLIENTS: usize = 400;
        let config = Config { workers: 2, ..Config::default() };
        let gateway = Arc::new(Gateway::open(config).unwrap());
        // Worker 1 seems to run, but accepts nothing.
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
        let yields = gateway.shared.yields.load(Ordering::Relaxed);
        assert!((1..CLIENTS / 20).contains(&yields), "{yields} yields");
        drop(clients);
        gateway.stop(Some(Duration::ZERO));
        assert!(worker.join().unwrap().is_ok());
    }
}
