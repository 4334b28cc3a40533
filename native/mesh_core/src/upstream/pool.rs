//! One worker's state of one address: idle connections, requests in flight, tunnels, and health. Services that
//! name the address share it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::h2::H2Connections;
use super::health::Health;
use super::open::OpenUpstream;
use super::peer::PeerStream;
use super::stream::UpstreamStream;
use crate::calls::{CallConfig, Desk};
use crate::routing::{Address, UpstreamAddr};
use crate::transport::Transport;

/// How many idle connections a worker keeps per address. It closes the rest.
pub const MAX_IDLE: usize = 512;

/// How many connections to a peer a worker opens at once.
const MAX_HANDSHAKES: usize = 16;
/// How much longer than `timeouts.upstream_idle` an unused connection to a peer is kept.
const PEER_IDLE: Duration = Duration::from_secs(60);

pub struct Pool {
    pub address: Arc<Address>,
    /// The address is another node's gateway.
    pub is_peer: bool,
    /// Where requests are called in this VM, if they are.
    pub calls: Option<Rc<Desk>>,
    /// Connections to an endpoint that speaks HTTP/2.
    pub h2: Option<Box<H2Connections>>,
    pub health: Health,
    /// The address has stopped answering: others come first.
    pub is_suspect: Cell<bool>,
    /// When a peer that was lost has answered again.
    pub returned: Cell<Option<Instant>>,
    /// Of the two loopback addresses, IPv4 answered last.
    pub prefers_ipv4: Cell<bool>,
    idle: RefCell<Vec<Idle>>,
    in_flight: Cell<usize>,
    tunnels: Cell<usize>,
    /// A task asks the peer for answers.
    pub is_watched: Cell<bool>,
    was_used: Cell<bool>,
    /// For connections to the peer that are being opened.
    pub handshakes: Semaphore,
    /// Notifies when the peer becomes suspect.
    pub suspected: Notify,
    /// Open connections to the peer.
    links: RefCell<Vec<Weak<PeerStream>>>,
}

/// Counts a request or a tunnel at an address until dropped.
pub struct UpstreamLoad {
    pub pool: Rc<Pool>,
    is_tunnel: bool,
}

impl UpstreamLoad {
    pub fn new(pool: &Rc<Pool>, is_tunnel: bool) -> UpstreamLoad {
        let load = UpstreamLoad { pool: Rc::clone(pool), is_tunnel };
        load.count().set(load.count().get() + 1);
        load
    }

    fn count(&self) -> &Cell<usize> {
        if self.is_tunnel { &self.pool.tunnels } else { &self.pool.in_flight }
    }
}

impl Drop for UpstreamLoad {
    fn drop(&mut self) {
        self.count().set(self.count().get() - 1);
    }
}

/// Counts a tunnel at its address, and its connection as open, until dropped.
pub struct UpstreamTunnel {
    pub _load: UpstreamLoad,
    pub _open: OpenUpstream,
}

struct Idle {
    stream: UpstreamStream,
    counted: OpenUpstream,
    since: Instant,
}

impl Pool {
    pub fn new(address: Arc<Address>, calls: &CallConfig) -> Rc<Pool> {
        Rc::new(Pool {
            is_peer: matches!(address.address, UpstreamAddr::Peer(_)),
            calls: match &address.address {
                UpstreamAddr::Vm(vm) => Some(Desk::new(&vm.dispatchers, calls)),
                _ => None,
            },
            h2: matches!(address.address, UpstreamAddr::Http2(_)).then(Box::default),
            address,
            health: Health::default(),
            is_suspect: Cell::new(false),
            returned: Cell::new(None),
            prefers_ipv4: Cell::new(false),
            idle: RefCell::default(),
            in_flight: Cell::new(0),
            tunnels: Cell::new(0),
            is_watched: Cell::new(false),
            was_used: Cell::new(false),
            handshakes: Semaphore::new(MAX_HANDSHAKES),
            suspected: Notify::new(),
            links: RefCell::default(),
        })
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Open tunnels, and requests that ask for one: many may ask at once, before the first is open.
    pub fn tunnels(&self) -> usize {
        self.tunnels.get()
    }

    pub fn set_suspect(&self, suspect: bool) {
        if !self.is_suspect.replace(suspect) && suspect {
            self.suspected.notify_waiters();
        }
    }

    pub fn mark_used(&self) {
        self.was_used.set(true);
    }

    /// Remembers a connection to the peer.
    pub fn note(&self, stream: &UpstreamStream) {
        if let UpstreamStream::Peer(link) = stream {
            let mut links = self.links.borrow_mut();
            if links.len() == links.capacity() {
                links.retain(|link| link.strong_count() > 0);
            }
            links.push(Rc::downgrade(link));
        }
    }

    /// Whether the address has had a request since the last call, or has one.
    pub fn take_used(&self) -> bool {
        self.was_used.replace(false) || !self.is_unused()
    }

    /// Whether the address has neither a request nor a tunnel.
    pub fn is_unused(&self) -> bool {
        self.in_flight() == 0 && self.tunnels() == 0
    }

    /// Ends all connections to a peer that is lost, and with them what waits for it.
    pub fn lose_connections(&self) {
        let links = self.links.take();
        links.iter().filter_map(Weak::upgrade).for_each(|link| link.tls.abort());
    }

    /// Others come first: the address could not be connected to recently, or has stopped answering.
    pub fn is_failing(&self) -> bool {
        self.is_suspect.get() || self.health.is_backing_off_now()
    }

    pub fn is_retired(&self) -> bool {
        self.address.is_retired()
    }

    /// Connections to a peer are kept for longer: a handshake costs more, and the peer never closes first.
    fn oldest(&self, oldest: Option<Instant>) -> Option<Instant> {
        if self.is_peer { oldest?.checked_sub(PEER_IDLE) } else { oldest }
    }

    /// Checks out the most recently used connection that is not known to be closed. `probe` asks the kernel.
    /// Connections returned before `oldest` are too old.
    pub fn checkout(
        &self,
        probe: bool,
        oldest: Option<Instant>,
    ) -> Option<(UpstreamStream, OpenUpstream)> {
        let oldest = self.oldest(oldest);
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if oldest.is_some_and(|oldest| last.since < oldest) {
                // The remaining ones are older.
                idle.clear();
                return None;
            }
            if last.stream.is_quiet(probe) {
                return Some((last.stream, last.counted));
            }
        }
        None
    }

    /// Takes back a connection from which a complete response has been read, and nothing more.
    pub fn checkin(&self, stream: UpstreamStream, counted: OpenUpstream, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        // Where HTTP/2 is spoken, HTTP/1.1 is for WebSockets alone, which are too few to keep a connection for.
        if idle.len() < MAX_IDLE && !self.is_retired() && self.h2.is_none() {
            idle.push(Idle { stream, counted, since: now });
        }
    }

    /// Closes connections that are too old. Returns how many are left.
    pub fn reap(&self, oldest: Option<Instant>) -> usize {
        let oldest = self.oldest(oldest);
        let retired = self.is_retired();
        let surplus = self.h2.as_ref().map_or(0, |h2| h2.reap(oldest, retired));
        let mut idle = self.idle.borrow_mut();
        let fresh = |i: &Idle| oldest.is_none_or(|oldest| i.since >= oldest);
        idle.retain(|i| !retired && fresh(i) && i.stream.is_quiet(false));
        idle.len() + surplus
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;
    use crate::observe::ServiceCounters;

    fn pool() -> Rc<Pool> {
        let address = Address::new(1, UpstreamAddr::Unix("/nowhere".into()));
        Pool::new(Arc::new(address), &CallConfig::default())
    }

    /// `n` connections and their other ends.
    fn connections(n: usize) -> (Vec<UpstreamStream>, Vec<UnixStream>) {
        let pairs = (0..n).map(|_| UnixStream::pair().unwrap());
        pairs.map(|(ours, theirs)| (UpstreamStream::Unix(ours), theirs)).unzip()
    }

    fn open(counters: &ServiceCounters) -> u64 {
        counters.upstream_connections_open.get()
    }

    #[tokio::test]
    async fn idle_connections_are_bounded() {
        let (pool, counters) = (pool(), Arc::default());
        for _ in 0..MAX_IDLE + 10 {
            // Drops the other end, which would need another descriptor.
            let (mut ours, _) = connections(1);
            pool.checkin(ours.remove(0), OpenUpstream::new(&counters), Instant::now());
        }
        assert_eq!(open(&counters), MAX_IDLE as u64);
        drop(pool);
        assert_eq!(open(&counters), 0);
    }

    #[tokio::test]
    async fn the_last_used_connection_comes_first_and_old_ones_are_closed() {
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
    async fn a_retired_address_keeps_no_connection() {
        let (pool, counters) = (pool(), Arc::default());
        let (mut ours, _theirs) = connections(2);
        pool.checkin(ours.remove(0), OpenUpstream::new(&counters), Instant::now());
        pool.address.retire();
        pool.checkin(ours.remove(0), OpenUpstream::new(&counters), Instant::now());
        assert_eq!((open(&counters), pool.reap(None)), (1, 0));
        assert_eq!(open(&counters), 0);
    }
}
