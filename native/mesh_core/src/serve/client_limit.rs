//! Limits connections per client address, over all workers. Counts only if a limit is configured.
//!
//! Connections beyond the limit get an answer and are drained for a moment; their number is bounded too.

use std::cmp::Reverse;
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
    open: Mutex<Open>,
    refused: AtomicUsize,
}

#[derive(Default)]
struct Open {
    /// Connections of each client.
    counts: HashMap<IpAddr, usize>,
    /// Those that the clients have in another process.
    reserved: HashMap<IpAddr, usize>,
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
                let reserved = open.reserved.get(&key).copied().unwrap_or(0);
                let count = open.counts.entry(key).or_insert(0);
                if *count + reserved < max {
                    *count += 1;
                    Some(key)
                } else {
                    if *count == 0 {
                        open.counts.remove(&key);
                    }
                    return None;
                }
            }
        };
        Some(Admitted { clients: Arc::clone(self), key })
    }

    /// The clients with the most connections, at most `most` of them.
    pub fn largest(&self, most: usize) -> Vec<(IpAddr, usize)> {
        let mut counts: Vec<_> = self.open.lock().counts.iter().map(|(ip, n)| (*ip, *n)).collect();
        counts.sort_unstable_by_key(|(_, n)| Reverse(*n));
        counts.truncate(most);
        counts
    }

    /// Counts connections that clients have in another process. Replaces those of an earlier call.
    pub fn reserve(&self, clients: impl Iterator<Item = (IpAddr, usize)>) {
        let reserved = clients.map(|(ip, n)| (network(ip), n)).collect();
        self.open.lock().reserved = reserved;
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
        let counts = &mut self.clients.open.lock().counts;
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
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
        assert!(clients.open.lock().counts.is_empty());
    }

    #[test]
    fn connections_in_another_process_count() {
        let clients = ClientLimit::new(Some(2));
        let ip = |text: &str| text.parse().unwrap();
        clients.reserve([(ip("2001:db8::1"), 1), (ip("192.0.2.1"), 2)].into_iter());
        assert!(clients.admit(ip("192.0.2.1")).is_none());
        let first = clients.admit(ip("2001:db8::2"));
        assert!(first.is_some() && clients.admit(ip("2001:db8::3")).is_none());
        let second = clients.admit(ip("192.0.2.2"));
        let third = clients.admit(ip("192.0.2.2"));
        assert_eq!(clients.largest(1), [(ip("192.0.2.2"), 2)]);
        assert_eq!(clients.largest(9).len(), 2);
        clients.reserve(std::iter::empty());
        assert!(clients.admit(ip("192.0.2.1")).is_some());
        drop((first, second, third));
        assert!(clients.open.lock().counts.is_empty());
    }
}
