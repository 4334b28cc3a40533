//! Addresses of upstreams. Workers keep idle connections and health per address, so an address has an
//! identity of its own: services that name it share it, and it lives while successive tables name it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where one upstream listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddr {
    Tcp(SocketAddr),
    /// A port of the loopback address of IPv6 or IPv4. An endpoint that is bound to `::` listens on
    /// both, or only on one: IPv6 may be switched off, or its socket may not take IPv4.
    Loopback(u16),
    Unix(PathBuf),
}

impl fmt::Display for UpstreamAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamAddr::Tcp(address) => write!(f, "{address}"),
            UpstreamAddr::Loopback(port) => write!(f, "localhost:{port}"),
            UpstreamAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address that the routing table names.
pub struct Address {
    /// Unique in this gateway's life.
    pub id: u64,
    pub address: UpstreamAddr,
    retired: AtomicBool,
}

impl Address {
    pub fn new(id: u64, address: UpstreamAddr) -> Address {
        Address { id, address, retired: AtomicBool::new(false) }
    }

    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// No service of the table names it any more: workers drop its idle connections.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}
