//! A service as one worker sees it: its counters, and the choice of an upstream for each request.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connect;
use super::open::OpenUpstream;
use super::pool::{InFlight, Pool};
use super::stream::Stream;
use crate::error::{Error, Side};
use crate::observe::ServiceCounters;
use crate::routing::Service;

pub struct LocalService {
    pub service: Arc<Service>,
    pub counters: Arc<ServiceCounters>,
    pools: Vec<Rc<Pool>>,
    /// Where the next request starts to look for an upstream.
    next: Cell<usize>,
}

/// A connection that is checked out of its pool.
pub struct Checkout {
    pub stream: Stream,
    pub open: OpenUpstream,
    in_flight: InFlight,
    /// Has served a request before, so that the endpoint may have just closed it.
    pub reused: bool,
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

    /// Checks out the idle connection that was used last, if there is one. Connections that came back before
    /// `oldest` are too old.
    pub fn checkout_idle(&self, want: Want, oldest: Option<Instant>) -> Option<Checkout> {
        let upstream = self.preferred();
        let checkout = self.idle(upstream, want, oldest)?;
        self.turn_from(upstream);
        Some(checkout)
    }

    /// Checks out an idle connection, or opens one. An upstream that cannot be reached is passed over, and
    /// for a while afterwards it is tried last.
    pub async fn checkout(
        &self,
        want: Want,
        connect: Option<Duration>,
        oldest: Option<Instant>,
    ) -> Result<Checkout, Error> {
        let count = self.pools.len();
        let first = self.preferred();
        self.turn_from(first);
        let mut failed = Error::NotListening;
        let mut resting = Vec::new();
        for upstream in (0..count).map(|i| (first + i) % count) {
            if let Some(checkout) = self.idle(upstream, want, oldest) {
                return Ok(checkout);
            }
            if count > 1 && self.pools[upstream].health.rests(Instant::now()) {
                resting.push(upstream);
                continue;
            }
            match self.open(upstream, connect).await {
                Ok(checkout) => return Ok(checkout),
                Err(error) => failed = error,
            }
        }
        for upstream in resting {
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

    /// The upstream whose turn it is, or the one after it if that has fewer requests under way.
    fn preferred(&self) -> usize {
        let next = self.next.get();
        let after = self.after(next);
        let load = |upstream: usize| self.pools.get(upstream).map_or(0, |pool| pool.in_flight());
        if after != next && load(after) < load(next) { after } else { next }
    }

    fn after(&self, upstream: usize) -> usize {
        if upstream + 1 < self.pools.len() { upstream + 1 } else { 0 }
    }

    /// The next request begins with the upstream after this one.
    fn turn_from(&self, upstream: usize) {
        self.next.set(self.after(upstream));
    }

    fn idle(&self, upstream: usize, want: Want, oldest: Option<Instant>) -> Option<Checkout> {
        if want == Want::New {
            return None;
        }
        let pool = self.pools.get(upstream)?;
        let (stream, open) = pool.checkout(want == Want::Probed, oldest)?;
        self.counters.upstream_connections_reused.add(1);
        let open = open.counted_for(&self.counters);
        Some(Checkout { stream, open, in_flight: InFlight::new(pool), reused: true })
    }

    async fn open(&self, upstream: usize, limit: Option<Duration>) -> Result<Checkout, Error> {
        let pool = &self.pools[upstream];
        // Counted while it connects, so that others choose another one.
        let in_flight = InFlight::new(pool);
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
    /// Returns a connection to its pool on which a whole response has been read and nothing more.
    pub fn checkin(self, now: Instant) {
        self.in_flight.0.checkin(self.stream, self.open, now);
    }
}
