//! A service as one worker sees it: counters, and connections to its upstreams.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::balance::{Attempt, Balancer};
use super::connect;
use super::open::OpenUpstream;
use super::pool::{UpstreamLoad, UpstreamTunnel};
use super::retry_budget::RetryBudget;
use super::stream::UpstreamStream;
use crate::calls::{CallStream, Desk, Place};
use crate::error::{Error, Side};
use crate::observe::ServiceCounters;
use crate::routing::Service;

pub struct LocalService {
    pub service: Arc<Service>,
    pub counters: Arc<ServiceCounters>,
    balancer: Balancer,
    retry_budget: Rc<RetryBudget>,
}

/// A connection checked out of its pool.
pub struct Checkout {
    pub stream: UpstreamStream,
    pub open: OpenUpstream,
    load: UpstreamLoad,
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
        balancer: Balancer,
        retry_budget: Rc<RetryBudget>,
    ) -> Rc<LocalService> {
        Rc::new(LocalService { service, counters, balancer, retry_budget })
    }

    /// Checks out the most recently used idle connection of the chosen upstream, if there is one. Connections
    /// returned before `oldest` are too old.
    pub fn checkout_idle(
        &self,
        attempt: &Attempt,
        reuse: Reuse,
        oldest: Option<Instant>,
    ) -> Option<Checkout> {
        self.checkout_idle_from(self.balancer.choose(attempt, &[])?, attempt, reuse, oldest)
    }

    /// Checks out an idle connection, or opens one. Skips upstreams that cannot be reached. The error is
    /// [`Error::NotListening`] if the attempt has tried all upstreams before.
    pub async fn checkout(
        &self,
        attempt: &Attempt,
        reuse: Reuse,
        connect: Option<Duration>,
        oldest: Option<Instant>,
    ) -> Result<Checkout, Error> {
        let mut error = Error::NotListening;
        let mut failed = Vec::new();
        while let Some(upstream) = self.balancer.choose(attempt, &failed) {
            if let Some(checkout) = self.checkout_idle_from(upstream, attempt, reuse, oldest) {
                return Ok(checkout);
            }
            match self.open(upstream, attempt, connect).await {
                Ok(checkout) => return Ok(checkout),
                Err(why) => error = why,
            }
            failed.push(upstream);
        }
        let is_exhausted = failed.is_empty() && !self.balancer.is_empty();
        if error.side() == Side::Upstream && !is_exhausted {
            self.counters.connect_errors.add(1);
        }
        Err(error)
    }

    /// Takes a retry out of the service's budget. Returns whether there was one.
    pub fn withdraw_retry(&self, now: Instant) -> bool {
        self.retry_budget.withdraw(now, self.counters.requests.get())
    }

    /// The upstream of the checkout has refused a request.
    pub fn refused(&self, checkout: &Checkout) {
        self.balancer.refused(checkout.address_id());
    }

    pub fn has_peers(&self) -> bool {
        self.balancer.has_peers()
    }

    /// Whether another upstream than that of the checkout could be tried.
    pub fn has_another(&self, attempt: &Attempt, checkout: &Checkout) -> bool {
        self.balancer.has_another(attempt, checkout.address_id())
    }

    fn checkout_idle_from(
        &self,
        upstream: usize,
        attempt: &Attempt,
        reuse: Reuse,
        oldest: Option<Instant>,
    ) -> Option<Checkout> {
        let pool = self.balancer.pool(upstream);
        if let Some(desk) = &pool.calls
            && is_call(desk, attempt)
        {
            return self.call(upstream, desk, desk.dispatchers.try_place()?, attempt);
        }
        if reuse == Reuse::Never {
            return None;
        }
        let (stream, open) = pool.checkout(reuse == Reuse::Probed, oldest)?;
        self.counters.upstream_connections_reused.add(1);
        let open = open.counted_for(&self.counters);
        let load = self.balancer.load(upstream, attempt);
        Some(Checkout { stream, open, load, reused: true })
    }

    #[inline(never)]
    fn call(
        &self,
        upstream: usize,
        desk: &Rc<Desk>,
        place: Place,
        attempt: &Attempt,
    ) -> Option<Checkout> {
        let stream = UpstreamStream::Call(Box::new(CallStream::new(desk, place)));
        let load = self.balancer.load(upstream, attempt);
        Some(Checkout { stream, open: OpenUpstream::nothing(), load, reused: false })
    }

    /// Waits until fewer calls wait for a process.
    async fn call_later(
        &self,
        upstream: usize,
        desk: &Rc<Desk>,
        attempt: &Attempt,
        limit: Option<Duration>,
    ) -> Result<Option<Checkout>, Error> {
        let place = desk.dispatchers.place();
        let place = match limit {
            Some(limit) => timeout(limit, place).await.map_err(|_| Error::ConnectTimeout)?,
            None => place.await,
        };
        let place = place.filter(|_| is_call(desk, attempt));
        Ok(place.and_then(|place| self.call(upstream, desk, place, attempt)))
    }

    async fn open(
        &self,
        upstream: usize,
        attempt: &Attempt,
        limit: Option<Duration>,
    ) -> Result<Checkout, Error> {
        let pool = self.balancer.pool(upstream);
        if let Some(desk) = &pool.calls
            && is_call(desk, attempt)
        {
            // Boxed, because every request has room for this, and few wait here.
            let called = Box::pin(self.call_later(upstream, desk, attempt, limit)).await?;
            if let Some(checkout) = called {
                return Ok(checkout);
            }
        }
        // Counts while connecting, so that other requests prefer another upstream.
        let load = self.balancer.load(upstream, attempt);
        let began = Instant::now();
        pool.health.attempt(began);
        match connect::open(pool, limit).await {
            Ok(stream) => {
                pool.health.succeeded();
                if pool.is_peer {
                    pool.note(&stream);
                }
                self.counters.upstream_connections_opened.add(1);
                let open = OpenUpstream::new(&self.counters);
                Ok(Checkout { stream, open, load, reused: false })
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

/// Whether a request is called in this VM.
#[inline(never)]
fn is_call(desk: &Desk, attempt: &Attempt) -> bool {
    !attempt.tunnel && !attempt.by_socket && !desk.dispatchers.have_ended()
}

impl Checkout {
    /// The id of the address, for [`Attempt::tried`].
    pub fn address_id(&self) -> u64 {
        self.load.pool.address.id
    }

    /// The upstream is the gateway of another node.
    pub fn is_peer(&self) -> bool {
        self.load.pool.is_peer
    }

    /// The request uses the socket of an endpoint whose requests are called in this VM.
    pub fn replaces_call(&self) -> bool {
        self.load.pool.calls.is_some() && !matches!(self.stream, UpstreamStream::Call(_))
    }

    /// The request as far as it was sent, if no process of this VM has taken it and none will. `Some(None)`: it is
    /// not whole.
    pub fn untaken_request(&self) -> Option<Option<Vec<u8>>> {
        match &self.stream {
            UpstreamStream::Call(call) => call.untaken_request(),
            _ => None,
        }
    }

    /// Waits until the peer is suspect.
    pub async fn suspected(&self) {
        let pool = &self.load.pool;
        let suspected = pool.suspected.notified();
        if !pool.is_suspect.get() {
            suspected.await;
        }
    }

    /// Waits until the peer becomes suspect once more.
    pub async fn suspected_again(&self) {
        self.load.pool.suspected.notified().await;
    }

    /// Returns the connection to its pool. A complete response must have been read, and nothing more.
    pub fn checkin(self, now: Instant) {
        self.load.pool.checkin(self.stream, self.open, now);
    }

    /// The request has become a tunnel.
    pub fn into_tunnel(self) -> (UpstreamStream, UpstreamTunnel) {
        (self.stream, UpstreamTunnel { _load: self.load, _open: self.open })
    }
}
