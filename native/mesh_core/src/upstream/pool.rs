//! What one worker knows of one address: idle connections, requests under way, and health. All services that
//! name the address share it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::health::Health;
use super::open::OpenUpstream;
use super::stream::Stream;
use super::transport::Transport;
use crate::routing::Address;

/// Most idle connections that a worker keeps to one address. It closes the ones beyond.
pub const MAX_IDLE: usize = 512;

pub struct Pool {
    pub address: Arc<Address>,
    pub health: Health,
    /// Of two loopback addresses, the IPv4 one answered last.
    pub prefers_ipv4: Cell<bool>,
    idle: RefCell<Vec<Idle>>,
    in_flight: Cell<usize>,
}

/// A request under way at an address, counted while this lives.
pub struct InFlight(pub Rc<Pool>);

impl InFlight {
    pub fn new(pool: &Rc<Pool>) -> InFlight {
        pool.in_flight.set(pool.in_flight.get() + 1);
        InFlight(Rc::clone(pool))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

struct Idle {
    stream: Stream,
    counted: OpenUpstream,
    since: Instant,
}

impl Pool {
    pub fn new(address: Arc<Address>) -> Rc<Pool> {
        Rc::new(Pool {
            address,
            health: Health::default(),
            prefers_ipv4: Cell::new(false),
            idle: RefCell::default(),
            in_flight: Cell::new(0),
        })
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub fn is_retired(&self) -> bool {
        self.address.is_retired()
    }

    /// The connection that was used last and is not known to be dead. `probe` asks the kernel. What
    /// has come back before `oldest` is too old.
    pub fn checkout(&self, probe: bool, oldest: Option<Instant>) -> Option<(Stream, OpenUpstream)> {
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if oldest.is_some_and(|oldest| last.since < oldest) {
                // Those below are older still.
                idle.clear();
                return None;
            }
            if last.stream.is_quiet(probe) {
                return Some((last.stream, last.counted));
            }
        }
        None
    }

    /// Takes a connection back on which a whole response has been read and nothing more.
    pub fn checkin(&self, stream: Stream, counted: OpenUpstream, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE && !self.is_retired() {
            idle.push(Idle { stream, counted, since: now });
        }
    }

    /// Closes what has been idle for too long; how many are left.
    pub fn reap(&self, oldest: Option<Instant>) -> usize {
        let retired = self.is_retired();
        let mut idle = self.idle.borrow_mut();
        let fresh = |i: &Idle| oldest.is_none_or(|oldest| i.since >= oldest);
        idle.retain(|i| !retired && fresh(i) && i.stream.is_quiet(false));
        idle.len()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;
    use crate::observe::ServiceCounters;
    use crate::routing::UpstreamAddr;

    fn pool() -> Rc<Pool> {
        Pool::new(Arc::new(Address::new(1, UpstreamAddr::Unix("/nowhere".into()))))
    }

    /// Some connections, and the other ends of them.
    fn connections(n: usize) -> (Vec<Stream>, Vec<UnixStream>) {
        let pairs = (0..n).map(|_| UnixStream::pair().unwrap());
        pairs.map(|(ours, theirs)| (Stream::Unix(ours), theirs)).unzip()
    }

    fn open(counters: &ServiceCounters) -> u64 {
        counters.upstream_connections_open.get()
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let (pool, counters) = (pool(), Arc::default());
        for _ in 0..MAX_IDLE + 10 {
            // Without their other ends, which would be as many descriptors again.
            let (mut ours, _) = connections(1);
            pool.checkin(ours.remove(0), OpenUpstream::new(&counters), Instant::now());
        }
        assert_eq!(open(&counters), MAX_IDLE as u64);
        drop(pool);
        assert_eq!(open(&counters), 0);
    }

    #[tokio::test]
    async fn the_last_used_comes_first_and_old_ones_are_closed() {
        let (pool, counters) = (pool(), Arc::default());
        let (ours, theirs) = connections(3);
        let began = Instant::now();
        let at = |i: u64| began + std::time::Duration::from_secs(i);
        for (i, stream) in (0..).zip(ours) {
            pool.checkin(stream, OpenUpstream::new(&counters), at(i));
        }
        let (last, _counted) = pool.checkout(true, Some(at(1))).unwrap();
        theirs[2].try_write(b"x").unwrap();
        assert!(!last.is_quiet(true), "the one that came back last");
        assert_eq!(pool.reap(Some(at(1))), 1);
        assert!(pool.checkout(true, Some(at(2))).is_none(), "it is too old");
        assert_eq!(open(&counters), 1);
    }

    #[tokio::test]
    async fn an_address_that_no_service_names_keeps_nothing() {
        let (pool, counters) = (pool(), Arc::default());
        let (mut ours, _theirs) = connections(2);
        pool.checkin(ours.remove(0), OpenUpstream::new(&counters), Instant::now());
        pool.address.retire();
        pool.checkin(ours.remove(0), OpenUpstream::new(&counters), Instant::now());
        assert_eq!((open(&counters), pool.reap(None)), (1, 0));
        assert_eq!(open(&counters), 0);
    }
}
