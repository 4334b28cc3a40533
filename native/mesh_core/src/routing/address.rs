//! Identifies upstream addresses.
//!
//! Workers keep idle connections and health per address. Services that name the same address share it, and
//! it lives as long as successive tables name it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use crate::calls::{Dispatch, DispatchersRef};
use crate::mesh::PeerRef;

/// Where one upstream listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddr {
    Tcp(SocketAddr),
    /// A port on the loopback address of IPv6 or IPv4. An endpoint bound to `::` may listen on only one of
    /// them: IPv6 may be disabled, or its socket may not accept IPv4.
    Loopback(u16),
    Unix(PathBuf),
    /// The gateway of another node, which has the endpoint.
    Peer(PeerRef),
    Vm(VmUpstream),
    /// An endpoint that speaks HTTP/2 at this address.
    Http2(Box<UpstreamAddr>),
}

/// An endpoint that is called in this VM. What cannot be a call goes to its socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VmUpstream {
    pub socket: Box<UpstreamAddr>,
    pub dispatchers: DispatchersRef,
}

impl UpstreamAddr {
    /// The same endpoint, called in this VM by `dispatch`.
    pub fn in_vm(self, dispatch: Box<dyn Dispatch>) -> UpstreamAddr {
        let dispatchers = DispatchersRef::new(dispatch);
        UpstreamAddr::Vm(VmUpstream { socket: Box::new(self), dispatchers })
    }

    /// The same address, where the endpoint speaks HTTP/2.
    pub fn http2(self) -> UpstreamAddr {
        UpstreamAddr::Http2(Box::new(self))
    }

    /// Where connections are opened to.
    pub fn socket(&self) -> &UpstreamAddr {
        match self {
            UpstreamAddr::Vm(vm) => &vm.socket,
            UpstreamAddr::Http2(socket) => socket,
            socket => socket,
        }
    }
}

impl fmt::Display for UpstreamAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamAddr::Tcp(address) => write!(f, "{address}"),
            UpstreamAddr::Loopback(port) => write!(f, "localhost:{port}"),
            UpstreamAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            UpstreamAddr::Peer(peer) => f.write_str(&peer.0.name),
            UpstreamAddr::Vm(vm) => vm.socket.fmt(f),
            UpstreamAddr::Http2(socket) => match &**socket {
                UpstreamAddr::Unix(path) => write!(f, "h2c+unix:{}", path.display()),
                socket => write!(f, "h2c://{socket}"),
            },
        }
    }
}

pub struct Address {
    /// Unique within the gateway.
    pub id: u64,
    pub address: UpstreamAddr,
    /// When a table first named it.
    pub since: Instant,
    retired: AtomicBool,
}

impl Address {
    pub fn new(id: u64, address: UpstreamAddr) -> Address {
        Address { id, address, since: Instant::now(), retired: AtomicBool::new(false) }
    }

    pub fn is_peer(&self) -> bool {
        matches!(self.address, UpstreamAddr::Peer(_))
    }

    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// No service names the address any more: workers drop its idle connections.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}
