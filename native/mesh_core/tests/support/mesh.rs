//! A gateway on a port of its own, with its worker threads; stopped and joined when dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_core::observe::{ServiceTotals, Stats};
use mesh_core::{Config, Gateway, Inherited, ServiceSpec, UpstreamAddr, WorkerError};

use super::{PATIENCE, eventually};

pub struct Mesh {
    pub gateway: Arc<Gateway>,
    workers: Vec<JoinHandle<Result<(), WorkerError>>>,
}

/// A service of the same name as its one host.
pub fn service(host: &str, upstreams: &[UpstreamAddr]) -> ServiceSpec {
    ServiceSpec::new(host, upstreams.to_vec())
}

impl Mesh {
    pub fn start(config: Config, services: Vec<ServiceSpec>, default: Option<&str>) -> Mesh {
        Mesh::start_with(config, Inherited::default(), services, default)
    }

    pub fn start_with(
        config: Config,
        inherited: Inherited,
        services: Vec<ServiceSpec>,
        default: Option<&str>,
    ) -> Mesh {
        let workers = config.workers;
        let gateway = Gateway::open_with(config, inherited).expect("cannot listen");
        let gateway = Arc::new(gateway);
        gateway.set_routes(services, default).expect("bad routes");
        let mut mesh = Mesh { gateway, workers: Vec::new() };
        for index in 0..workers {
            mesh.run_worker(index);
        }
        mesh
    }

    pub fn run_worker(&mut self, index: usize) {
        let gateway = Arc::clone(&self.gateway);
        self.workers.push(std::thread::spawn(move || gateway.run_worker(index)));
    }

    /// A service `a.test` with one upstream.
    pub fn to(config: Config, upstream: &UpstreamAddr) -> Mesh {
        Mesh::start(config, vec![service("a.test", std::slice::from_ref(upstream))], None)
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.local_addrs()[0]
    }

    pub fn stats(&self) -> Stats {
        self.gateway.stats()
    }

    /// Counters of `a.test`.
    pub fn service_stats(&self) -> ServiceTotals {
        self.stats().services.get("a.test").cloned().unwrap_or_default()
    }

    pub fn eventually(&self, what: &str, holds: impl Fn(&Stats) -> bool) {
        eventually(what, || holds(&self.stats()));
    }

    /// Nothing is under way: no connection, no request, no tunnel.
    pub fn wait_idle(&self) {
        self.eventually("the gateway is idle", |stats| {
            let quiet = |s: &ServiceTotals| s.in_flight == 0 && s.tunnels_open == 0;
            stats.gateway.connections_open == 0 && stats.services.values().all(quiet)
        });
    }

    /// Stops and waits for the workers.
    pub fn stop(&mut self, drain: Option<Duration>) {
        self.gateway.stop(drain);
        self.join();
    }

    /// Waits until all workers have ended of themselves.
    pub fn join(&mut self) {
        for worker in self.workers.drain(..) {
            eventually("a worker ends", || worker.is_finished());
            worker.join().expect("a worker panicked").expect("a worker failed");
        }
    }

    pub fn is_running(&self) -> bool {
        self.workers.iter().any(|w| !w.is_finished())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.gateway.stop(Some(Duration::ZERO));
        let until = std::time::Instant::now() + PATIENCE;
        for worker in self.workers.drain(..) {
            while !worker.is_finished() && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            // A test that is failing already must not hang on top.
            if worker.is_finished() {
                let _ = worker.join();
            }
        }
    }
}
