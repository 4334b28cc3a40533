//! Which TCP connections on this machine are the gateway's own. An endpoint that listens on
//! loopback sees the same peer address whoever connects; with the port it can ask here whether to
//! believe the forwarded fields of a request.

use std::net::SocketAddr;
use std::sync::LazyLock;

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Local addresses of all open upstream connections of all gateways in this process, with how many
/// each has: the system gives connections to different endpoints the same port. Written when one is
/// opened or closed, which is not once per request.
static OPEN: LazyLock<Mutex<HashMap<SocketAddr, usize>>> = LazyLock::new(Mutex::default);

/// Whether a connection from this address is one of ours.
pub fn is_own(address: SocketAddr) -> bool {
    OPEN.lock().contains_key(&canonical(address))
}

/// An endpoint that listens on both families sees 127.0.0.1 as ::ffff:127.0.0.1.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Keeps an address listed. To be dropped before its socket is closed: once that is, the port can be
/// anybody's.
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
    fn an_address_is_ours_until_its_last_connection_closes() {
        let address: SocketAddr = "127.0.0.9:1".parse().unwrap();
        let (first, second) = (LocalPort::new(address), LocalPort::new(address));
        drop(first);
        assert!(is_own(address));
        drop(second);
        assert!(!is_own(address) && !OPEN.lock().contains_key(&address));
    }

    #[test]
    fn an_ipv4_address_is_itself_in_ipv6_too() {
        let plain: SocketAddr = "127.0.0.9:2".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:127.0.0.9]:2".parse().unwrap();
        for listed in [plain, mapped] {
            let own = LocalPort::new(listed);
            assert!(is_own(plain) && is_own(mapped), "{listed}");
            drop(own);
            assert!(!is_own(plain) && !is_own(mapped), "{listed}");
        }
    }
}
