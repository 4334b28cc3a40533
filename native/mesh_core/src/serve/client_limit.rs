//! Connections per client address, counted over all workers, and only where a limit asks for it.
//! Those beyond the limit are answered and read on for a moment, which is bounded, too.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// How many connections at once may be told that their client has too many. They take a descriptor
/// each and no place among `limits.connections`; further ones are closed without waiting for the
/// client to read why.
const MOST_REFUSED: usize = 128;

pub struct ClientLimit {
    most: Option<usize>,
    open: Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicUsize,
}

/// One connection that is being refused, counted while this lives.
pub struct Refused(Arc<ClientLimit>);

/// One connection of a client, counted while this lives.
pub struct Admitted {
    clients: Arc<ClientLimit>,
    key: Option<IpAddr>,
}

impl ClientLimit {
    pub fn new(most: Option<usize>) -> Arc<ClientLimit> {
        Arc::new(ClientLimit { most, open: Mutex::default(), refused: AtomicUsize::new(0) })
    }

    /// `None` when this client has as many connections as one may have.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Admitted> {
        let key = match self.most {
            None => None,
            Some(most) => {
                let key = network(ip);
                let mut open = self.open.lock();
                let count = open.entry(key).or_insert(0);
                if *count >= most {
                    return None;
                }
                *count += 1;
                Some(key)
            }
        };
        Some(Admitted { clients: Arc::clone(self), key })
    }

    /// `None` when as many are being refused as may be at once.
    pub fn refuse(self: &Arc<Self>) -> Option<Refused> {
        if self.refused.fetch_add(1, Ordering::Relaxed) >= MOST_REFUSED {
            self.refused.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Refused(Arc::clone(self)))
    }
}

impl Drop for Refused {
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

/// An IPv6 client has a whole /64 to itself and would otherwise count as 2^64 clients.
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
    fn a_client_has_its_share_and_gets_it_back() {
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
