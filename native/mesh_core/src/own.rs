//! Which TCP connections on this machine are the gateway's own. An endpoint that listens on
//! loopback sees the same peer address whoever connects; with the port it can ask here whether to
//! believe the forwarded fields of a request.

use std::net::SocketAddr;
use std::sync::LazyLock;

use hashbrown::HashSet;
use parking_lot::Mutex;

/// Local addresses of all open upstream connections of all gateways in this process. Written when
/// one is opened or closed, which is not once per request.
static OPEN: LazyLock<Mutex<HashSet<SocketAddr>>> = LazyLock::new(Mutex::default);

/// Whether a connection from this address is one of ours.
pub fn is_own(address: SocketAddr) -> bool {
    OPEN.lock().contains(&address)
}

/// Keeps an address listed. To be dropped before its socket is closed: once that is, the port can be
/// anybody's.
pub struct Own(SocketAddr);

impl Own {
    pub fn new(address: SocketAddr) -> Own {
        OPEN.lock().insert(address);
        Own(address)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        OPEN.lock().remove(&self.0);
    }
}
