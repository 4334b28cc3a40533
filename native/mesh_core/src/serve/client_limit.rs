//! Limits connections per client address, over all workers. Counts only if a limit is configured.
//!
//! Connections beyond the limit get an answer and are drained for a moment; their number is bounded too.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// How many refused connections may be open at once. Each takes a descriptor but no place among
/// `limits.connections`. Further ones are closed without waiting for the client to read the answer.
const MAX_REFUSED: usize = 128;

pub struct ClientLimit {
    max: Option<usize>,
    open: Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicUsize,
}

/// Counts a refused connection until dropped.
pub struct RefusedConnection(Arc<ClientLimit>);

/// Counts a client's connection until dropped.
pub struct Admitted {
    clients: Arc<ClientLimit>,
    key: Option<IpAddr>,
}

impl ClientLimit {
    pub fn new(max: Option<usize>) -> Arc<ClientLimit> {
        Arc::new(ClientLimit { max, open: Mutex::default(), refused: AtomicUsize::new(0) })
    }

    /// `None` if the client has reached its limit.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Admitted> {
        let key = match self.max {
            None => None,
            Some(max) => {
                let key = network(ip);
                let mut open = self.open.lock();
                let count = open.entry(key).or_insert(0);
                if *count >= max {
                    return None;
                }
                *count += 1;
                Some(key)
            }
        };
        Some(Admitted { clients: Arc::clone(self), key })
    }

    /// `None` if the maximum number of connections is being refused.
    pub fn refuse(self: &Arc<Self>) -> Option<RefusedConnection> {
        if self.refused.fetch_add(1, Ordering::Relaxed) >= MAX_REFUSED {
            self.refused.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(RefusedConnection(Arc::clone(self)))
    }
}

impl Drop for RefusedConnection {
    fn drop(&mut self) {
        self.0.refused.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut open = self.clients.open.lock();
        if let Some(count) = open.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&key);
            }
        }
    }
}

/// An IPv6 client owns a whole /64 and would otherwise count as 2^64 clients.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => {
            let bits = u128::from(ip) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(bits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_admitted_up_to_its_limit() {
        let clients = ClientLimit::new(Some(2));
        let ip = |text: &str| text.parse().unwrap();
        let first = clients.admit(ip("2001:db8::1"));
        let second = clients.admit(ip("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(clients.admit(ip("2001:db8::3")).is_none());
        assert!(clients.admit(ip("2001:db8:0:1::3")).is_some());
        drop(first);
        assert!(clients.admit(ip("2001:db8::3")).is_some());
        drop(second);
        assert!(clients.open.lock().is_empty());
    }
}
