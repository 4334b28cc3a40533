//! A service as one worker sees it: counts, and chooses an upstream for each request.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connect;
use super::open::OpenUpstream;
use super::pool::{Pool, UpstreamInFlight};
use super::stream::UpstreamStream;
use crate::error::{Error, Side};
use crate::observe::ServiceCounters;
use crate::routing::Service;

pub struct LocalService {
    pub service: Arc<Service>,
    pub counters: Arc<ServiceCounters>,
    pools: Vec<Rc<Pool>>,
    /// The upstream that the next request prefers.
    next: Cell<usize>,
}

/// A connection checked out of its pool.
pub struct Checkout {
    pub stream: UpstreamStream,
    pub open: OpenUpstream,
    in_flight: UpstreamInFlight,
    /// The connection has served a request before, so the endpoint may just have closed it.
    pub reused: bool,
}

/// Which pooled connections a request may reuse.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any that is not known to be closed: the request can be repeated.
    Any,
    /// One that the kernel has just reported open: the request cannot be repeated.
    Probed,
    /// None: a pooled connection has just failed.
    Never,
}

impl LocalService {
    pub fn new(
        service: Arc<Service>,
        counters: Arc<ServiceCounters>,
        pools: Vec<Rc<Pool>>,
    ) -> Rc<LocalService> {
        Rc::new(LocalService { counters, pools, next: Cell::new(0), service })
    }

    /// Checks out the most recently used idle connection, if there is one. Connections returned before
    /// `oldest` are too old.
    pub fn checkout_idle(&self, reuse: Reuse, oldest: Option<Instant>) -> Option<Checkout> {
        let upstream = self.preferred();
        let checkout = self.checkout_idle_from(upstream, reuse, oldest)?;
        self.advance_past(upstream);
        Some(checkout)
    }

    /// Checks out an idle connection, or opens one. Skips upstreams that cannot be reached; those that
    /// failed recently are tried last.
    pub async fn checkout(
        &self,
        reuse: Reuse,
        connect: Option<Duration>,
        oldest: Option<Instant>,
    ) -> Result<Checkout, Error> {
        let count = self.pools.len();
        let first = self.preferred();
        self.advance_past(first);
        let mut failed = Error::NotListening;
        let mut backing_off = Vec::new();
        for upstream in (0..count).map(|i| (first + i) % count) {
            if let Some(checkout) = self.checkout_idle_from(upstream, reuse, oldest) {
                return Ok(checkout);
            }
            if count > 1 && self.pools[upstream].health.is_backing_off_now() {
                backing_off.push(upstream);
                continue;
            }
            match self.open(upstream, connect).await {
                Ok(checkout) => return Ok(checkout),
                Err(error) => failed = error,
            }
        }
        for upstream in backing_off {
            match self.open(upstream, connect).await {
                Ok(checkout) => return Ok(checkout),
                Err(error) => failed = error,
            }
        }
        if failed.side() == Side::Upstream {
            self.counters.connect_errors.add(1);
        }
        Err(failed)
    }

    /// The next upstream in turn, or the one after it if that has fewer requests in flight. Upstreams that
    /// failed recently are left out: they never have requests in flight.
    fn preferred(&self) -> usize {
        let next = self.next.get();
        let count = self.pools.len();
        if count < 2 {
            return next;
        }
        let load = |upstream: usize| self.pools[upstream].in_flight();
        let order = (0..count).map(|i| (next + i) % count);
        let mut order = order.filter(|upstream| !self.pools[*upstream].health.is_backing_off_now());
        match (order.next(), order.next()) {
            (Some(first), Some(second)) if load(second) < load(first) => second,
            (first, _) => first.unwrap_or(next),
        }
    }

    fn after(&self, upstream: usize) -> usize {
        if upstream + 1 < self.pools.len() { upstream + 1 } else { 0 }
    }

    /// Makes the next request prefer the upstream after this one.
    fn advance_past(&self, upstream: usize) {
        self.next.set(self.after(upstream));
    }

    fn checkout_idle_from(
        &self,
        upstream: usize,
        reuse: Reuse,
        oldest: Option<Instant>,
    ) -> Option<Checkout> {
        if reuse == Reuse::Never {
            return None;
        }
        let pool = self.pools.get(upstream)?;
        let (stream, open) = pool.checkout(reuse == Reuse::Probed, oldest)?;
        self.counters.upstream_connections_reused.add(1);
        let open = open.counted_for(&self.counters);
        Some(Checkout { stream, open, in_flight: UpstreamInFlight::new(pool), reused: true })
    }

    async fn open(&self, upstream: usize, limit: Option<Duration>) -> Result<Checkout, Error> {
        let pool = &self.pools[upstream];
        // Counts while connecting, so that other requests prefer another upstream.
        let in_flight = UpstreamInFlight::new(pool);
        let began = Instant::now();
        pool.health.attempt(began);
        match connect::open(pool, limit).await {
            Ok(stream) => {
                pool.health.succeeded();
                self.counters.upstream_connections_opened.add(1);
                let open = OpenUpstream::new(&self.counters);
                Ok(Checkout { stream, open, in_flight, reused: false })
            }
            Err(error) => {
                if error.side() == Side::Upstream {
                    pool.health.failed(began, Instant::now());
                }
                Err(error)
            }
        }
    }
}

impl Checkout {
    /// Returns the connection to its pool. A complete response must have been read, and nothing more.
    pub fn checkin(self, now: Instant) {
        self.in_flight.0.checkin(self.stream, self.open, now);
    }
}
