//! Connections to endpoints: opened, lent to one request at a time, kept for the next. Each worker
//! has its own, so that lending one takes no lock.

mod connect;
mod health;
mod pool;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Side};
use crate::io::Stream;
use crate::stats::ServiceCounters;
use crate::table::Service;

pub use pool::Pool;

/// A service as one worker sees it: its counters, and the pools of the addresses that it names.
pub struct LocalService {
    pub service: Arc<Service>,
    pub counters: Arc<ServiceCounters>,
    pools: Vec<Rc<Pool>>,
    /// Where the next request starts to look for an upstream.
    next: Cell<usize>,
}

/// A connection on loan.
pub struct Lent {
    pub stream: Stream,
    pub counted: OpenUpstream,
    /// Which upstream of the service it leads to.
    upstream: usize,
    /// Has served a request before, so that the endpoint may have just closed it.
    pub reused: bool,
}

/// Counts a connection to an upstream as open while it lives, for the service that uses it or used
/// it last.
pub struct OpenUpstream(Arc<ServiceCounters>);

impl OpenUpstream {
    fn new(counters: &Arc<ServiceCounters>) -> OpenUpstream {
        counters.upstream_connections_open.add(1);
        OpenUpstream(Arc::clone(counters))
    }
}

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        self.0.upstream_connections_open.sub(1);
    }
}

/// Which connections will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Any that is not known to be dead: the request can be repeated.
    Any,
    /// One that has been looked at this moment: the request cannot be repeated.
    Probed,
    /// A new one: a kept one has just failed.
    New,
}

impl LocalService {
    pub fn new(service: Arc<Service>, worker: usize, pools: Vec<Rc<Pool>>) -> Rc<LocalService> {
        Rc::new(LocalService {
            counters: service.stats.of_worker(worker),
            pools,
            next: Cell::new(0),
            service,
        })
    }

    /// Lends the connection that was used last, if one was kept. With several upstreams each gets
    /// its turn. What has come back before `oldest` is too old.
    pub fn lend_kept(&self, want: Want, oldest: Option<Instant>) -> Option<Lent> {
        let upstream = self.next.get();
        let lent = self.kept(upstream, want, oldest)?;
        self.turn_from(upstream);
        Some(lent)
    }

    /// Lends a connection as [`lend_kept`](Self::lend_kept) does, or a new one. An upstream that
    /// cannot be reached is passed over, and for a while afterwards it is tried last.
    pub async fn lend(
        &self,
        want: Want,
        connect: Option<Duration>,
        oldest: Option<Instant>,
    ) -> Result<Lent, Error> {
        let count = self.pools.len();
        let first = self.next.get();
        self.turn_from(first);
        let mut failed = Error::NotListening;
        let mut resting = Vec::new();
        for upstream in (0..count).map(|i| (first + i) % count) {
            if let Some(lent) = self.kept(upstream, want, oldest) {
                return Ok(lent);
            }
            if count > 1 && self.pools[upstream].health.rests(Instant::now()) {
                resting.push(upstream);
                continue;
            }
            match self.open(upstream, connect).await {
                Ok(lent) => return Ok(lent),
                Err(error) => failed = error,
            }
        }
        for upstream in resting {
            match self.open(upstream, connect).await {
                Ok(lent) => return Ok(lent),
                Err(error) => failed = error,
            }
        }
        if failed.side() == Side::Upstream {
            self.counters.connect_errors.add(1);
        }
        Err(failed)
    }

    /// The next request begins with the upstream after this one.
    fn turn_from(&self, upstream: usize) {
        let next = upstream + 1;
        self.next.set(if next < self.pools.len() { next } else { 0 });
    }

    fn kept(&self, upstream: usize, want: Want, oldest: Option<Instant>) -> Option<Lent> {
        if want == Want::New {
            return None;
        }
        let pool = self.pools.get(upstream)?;
        let (stream, mut counted) = pool.checkout(want == Want::Probed, oldest)?;
        if !Arc::ptr_eq(&counted.0, &self.counters) {
            counted = OpenUpstream::new(&self.counters);
        }
        self.counters.upstream_connections_reused.add(1);
        Some(Lent { stream, counted, upstream, reused: true })
    }

    async fn open(&self, upstream: usize, limit: Option<Duration>) -> Result<Lent, Error> {
        let pool = &self.pools[upstream];
        let began = Instant::now();
        pool.health.attempt(began);
        match connect::open(pool, limit).await {
            Ok(stream) => {
                pool.health.succeeded();
                self.counters.upstream_connections_opened.add(1);
                let counted = OpenUpstream::new(&self.counters);
                Ok(Lent { stream, counted, upstream, reused: false })
            }
            Err(error) => {
                if error.side() == Side::Upstream {
                    pool.health.failed(began, Instant::now());
                }
                Err(error)
            }
        }
    }

    /// Takes a connection back on which a whole response has been read and nothing more.
    pub fn give_back(&self, lent: Lent, now: Instant) {
        self.pools[lent.upstream].checkin(lent.stream, lent.counted, now);
    }
}
