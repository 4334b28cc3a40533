//! Services, as the control plane describes them and as workers share them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::address::{Address, UpstreamAddr};
use crate::observe::ServiceStats;

/// One upstream of a service as the control plane describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    pub address: UpstreamAddr,
    /// Gets requests only if all others cannot be reached.
    pub last_resort: bool,
}

impl From<UpstreamAddr> for UpstreamSpec {
    fn from(address: UpstreamAddr) -> UpstreamSpec {
        UpstreamSpec { address, last_resort: false }
    }
}

/// One service as the control plane describes it.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// The name in logs and metrics.
    pub name: String,
    pub hosts: Vec<String>,
    /// If empty, the service is known but not listening: its requests get a 503.
    pub upstreams: Vec<UpstreamSpec>,
}

impl ServiceSpec {
    /// A service with one host, which is also its name.
    pub fn new(host: &str, upstreams: Vec<UpstreamAddr>) -> ServiceSpec {
        let upstreams = upstreams.into_iter().map(UpstreamSpec::from).collect();
        ServiceSpec { name: host.to_string(), hosts: vec![host.to_string()], upstreams }
    }
}

/// One upstream as the workers see it.
#[derive(Clone)]
pub struct Upstream {
    pub address: Arc<Address>,
    pub last_resort: bool,
}

/// One service as the workers see it. Tables with the same name and upstreams share it.
pub struct Service {
    /// Unique within the gateway.
    pub id: u64,
    pub name: String,
    pub upstreams: Vec<Upstream>,
    pub stats: Arc<ServiceStats>,
    /// For the requests of peers.
    pub stats_of_peers: Arc<ServiceStats>,
    retired: AtomicBool,
    /// The last attempt to open a connection failed.
    down: AtomicBool,
}

impl Service {
    pub fn new(
        id: u64,
        name: String,
        upstreams: Vec<Upstream>,
        (stats, stats_of_peers): (Arc<ServiceStats>, Arc<ServiceStats>),
    ) -> Service {
        Service {
            id,
            name,
            upstreams,
            stats,
            stats_of_peers,
            retired: AtomicBool::new(false),
            down: AtomicBool::new(false),
        }
    }

    pub fn is_at(&self, upstreams: &[UpstreamSpec]) -> bool {
        self.upstreams.len() == upstreams.len()
            && self.upstreams.iter().zip(upstreams).all(|(own, spec)| {
                own.address.address == spec.address && own.last_resort == spec.last_resort
            })
    }

    /// Records whether the service was reachable. Returns whether that has changed.
    pub fn set_reachable(&self, up: bool) -> bool {
        // Usually nothing has changed. Then nothing is written, and other workers keep their cache line.
        self.down.load(Ordering::Relaxed) == up && self.down.swap(!up, Ordering::Relaxed) == up
    }

    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// The service is no longer in the table.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}
