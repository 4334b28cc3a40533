//! Lists the local addresses of the gateway's own upstream connections.
//!
//! An endpoint on loopback sees the same peer address for every local client. With the port it can ask here
//! whether the gateway opened the connection, and so whether to believe its forwarding fields.

use std::net::SocketAddr;
use std::sync::LazyLock;

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Local addresses of all open upstream connections of all gateways in this process, with a count each: the
/// system reuses a port for different destinations. Written when a connection opens or closes, not once per
/// request.
static OPEN: LazyLock<Mutex<HashMap<SocketAddr, usize>>> = LazyLock::new(Mutex::default);

/// Whether a gateway of this process has an upstream connection with this local address.
pub fn is_local_port(address: SocketAddr) -> bool {
    OPEN.lock().contains_key(&canonical(address))
}

/// An endpoint that listens on both families sees 127.0.0.1 as ::ffff:127.0.0.1.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Keeps an address listed. Drop it before its socket closes: afterwards the port may belong to another
/// process.
pub struct LocalPort(SocketAddr);

impl LocalPort {
    pub fn new(address: SocketAddr) -> LocalPort {
        let address = canonical(address);
        *OPEN.lock().entry(address).or_insert(0) += 1;
        LocalPort(address)
    }
}

impl Drop for LocalPort {
    fn drop(&mut self) {
        let mut open = OPEN.lock();
        if let Some(count) = open.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux shares a local port between connections to different destinations.
    #[test]
    fn an_address_is_listed_until_its_last_connection_closes() {
        let address: SocketAddr = "127.0.0.9:1".parse().unwrap();
        let (first, second) = (LocalPort::new(address), LocalPort::new(address));
        drop(first);
        assert!(is_local_port(address));
        drop(second);
        assert!(!is_local_port(address) && !OPEN.lock().contains_key(&address));
    }

    #[test]
    fn ipv4_mapped_addresses_match() {
        let plain: SocketAddr = "127.0.0.9:2".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:127.0.0.9]:2".parse().unwrap();
        for listed in [plain, mapped] {
            let own = LocalPort::new(listed);
            assert!(is_local_port(plain) && is_local_port(mapped), "{listed}");
            drop(own);
            assert!(!is_local_port(plain) && !is_local_port(mapped), "{listed}");
        }
    }
}
