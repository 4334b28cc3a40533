//! Services: what the control plane describes, and what workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::address::{Address, UpstreamAddr};
use crate::observe::ServiceStats;

/// One service as the control plane describes it.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// What logs and counters call it.
    pub name: String,
    pub hosts: Vec<String>,
    /// None at all is a service that is known and not listening: its requests get a 503.
    pub upstreams: Vec<UpstreamAddr>,
}

impl ServiceSpec {
    /// A service with one host, which is its name, too.
    pub fn new(host: &str, upstreams: Vec<UpstreamAddr>) -> ServiceSpec {
        ServiceSpec { name: host.to_string(), hosts: vec![host.to_string()], upstreams }
    }
}

/// One service as the workers see it. Two tables that agree on name and upstreams share it.
pub struct Service {
    /// Unique in this gateway's life.
    pub id: u64,
    pub name: String,
    pub upstreams: Vec<Arc<Address>>,
    pub stats: Arc<ServiceStats>,
    retired: AtomicBool,
    /// It could not be reached the last time that a connection was opened.
    down: AtomicBool,
}

impl Service {
    pub fn new(
        id: u64,
        name: String,
        upstreams: Vec<Arc<Address>>,
        stats: Arc<ServiceStats>,
    ) -> Service {
        Service {
            id,
            name,
            upstreams,
            stats,
            retired: AtomicBool::new(false),
            down: AtomicBool::new(false),
        }
    }

    pub fn is_at(&self, upstreams: &[UpstreamAddr]) -> bool {
        self.upstreams.iter().map(|upstream| &upstream.address).eq(upstreams)
    }

    /// Whether that it could be reached just now, or could not, is news.
    pub fn turned(&self, up: bool) -> bool {
        // Mostly it is none, and then nothing is written that other workers would have to read.
        self.down.load(Ordering::Relaxed) == up && self.down.swap(!up, Ordering::Relaxed) == up
    }

    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// No longer in the table.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}
