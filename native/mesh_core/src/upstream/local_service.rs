//! A service as one worker sees it: counters, and connections to its upstreams.

use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::h2::Reason;
use tokio::time::{Instant, timeout, timeout_at};

use super::balance::{Attempt, Balancer};
use super::connect;
use super::h2::{self, Failure, H2Connection, H2Connections, H2Stream, NotHttp2};
use super::open::OpenUpstream;
use super::pool::{Pool, UpstreamLoad, UpstreamTunnel};
use super::retry_budget::RetryBudget;
use super::stream::UpstreamStream;
use crate::calls::{CallStream, Desk, Place};
use crate::error::{Error, Side};
use crate::observe::ServiceCounters;
use crate::routing::Service;
use crate::runtime::deadline;

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
        if let Some(h2) = &pool.h2 {
            return self.stream_now(upstream, h2, attempt, reuse);
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

    /// A stream of a connection that is open. Streams that fail take their connection with them, so another one
    /// may be used at once.
    #[inline(never)]
    fn stream_now(
        &self,
        upstream: usize,
        h2: &H2Connections,
        attempt: &Attempt,
        reuse: Reuse,
    ) -> Option<Checkout> {
        let connection = h2.with_room(reuse == Reuse::Probed)?;
        if attempt.tunnel && !connection.takes_websockets() {
            return None;
        }
        Some(self.stream(upstream, &connection, attempt))
    }

    fn stream(
        &self,
        upstream: usize,
        connection: &Rc<H2Connection>,
        attempt: &Attempt,
    ) -> Checkout {
        let reused = connection.mark_used();
        if reused {
            self.counters.upstream_connections_reused.add(1);
        }
        let stream = UpstreamStream::H2(Box::new(H2Stream::new(connection)));
        let load = self.balancer.load(upstream, attempt);
        Checkout { stream, open: OpenUpstream::nothing(), load, reused }
    }

    /// Waits for a connection with room for a stream, or opens one. `None`: the request is a WebSocket, which the
    /// endpoint does not accept over HTTP/2.
    async fn stream_later(
        &self,
        upstream: usize,
        h2: &H2Connections,
        attempt: &Attempt,
        limit: Option<Duration>,
    ) -> Result<Option<Checkout>, Error> {
        let pool = self.balancer.pool(upstream);
        let began = Instant::now();
        let until = deadline(limit);
        loop {
            if attempt.tunnel && h2.take_websockets() == Some(false) {
                // The room for which it may have been woken is for another one.
                h2.room().notify_one();
                return Ok(None);
            }
            if let Some(connection) = h2.with_room(true) {
                return Ok(Some(self.stream(upstream, &connection, attempt)));
            }
            if pool.health.has_failed_since(began) {
                return Err(Error::Connect(ErrorKind::NotConnected.into()));
            }
            let Some(opening) = h2.begin_opening() else {
                wait(h2.wait(), until).await?;
                continue;
            };
            // Counts while connecting, so that other requests prefer another upstream.
            let _load = self.balancer.load(upstream, attempt);
            let began = Instant::now();
            pool.health.attempt(began);
            match self.begin_http2(pool, h2, limit).await {
                Ok(connection) => {
                    pool.health.succeeded();
                    self.counters.upstream_connections_opened.add(1);
                    let has_room = connection.room() > 0;
                    opening.opened(&connection);
                    if attempt.tunnel && !connection.takes_websockets() {
                        return Ok(None);
                    }
                    if has_room {
                        return Ok(Some(self.stream(upstream, &connection, attempt)));
                    }
                    // Another connection would have no room either.
                    wait(h2.wait(), until).await?;
                    if !connection.is_usable(false) {
                        // Nor would it live longer.
                        pool.health.failed(began, Instant::now());
                        return Err(Error::Connect(ErrorKind::NotConnected.into()));
                    }
                }
                Err(error) => {
                    if error.side() == Side::Upstream {
                        pool.health.failed(began, Instant::now());
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn begin_http2(
        &self,
        pool: &Pool,
        h2: &H2Connections,
        limit: Option<Duration>,
    ) -> Result<Rc<H2Connection>, Error> {
        let until = deadline(limit);
        let socket = connect::open_socket(pool, limit).await?;
        let begin = h2::begin(socket, h2.room(), OpenUpstream::new(&self.counters));
        let begun = match until {
            Some(until) => timeout_at(until, begin).await.map_err(|_| Error::ConnectTimeout)?,
            None => begin.await,
        };
        begun.map_err(|NotHttp2(what)| Error::NotHttp2(format!("{} {what}", pool.address.address)))
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
        if let Some(h2) = &pool.h2 {
            // Boxed, as above.
            let stream = Box::pin(self.stream_later(upstream, h2, attempt, limit)).await?;
            if let Some(checkout) = stream {
                return Ok(checkout);
            }
            // Most servers speak HTTP/1.1 on the same port.
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

/// Waits for room on a connection.
async fn wait(room: impl Future<Output = ()>, until: Option<Instant>) -> Result<(), Error> {
    match until {
        Some(until) => timeout_at(until, room).await.map_err(|_| Error::ConnectTimeout)?,
        None => room.await,
    }
    Ok(())
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

    /// The request as far as it was sent, if it has not run and may be sent again: no process of this VM has taken
    /// it and none will, or an HTTP/2 endpoint has not begun with it. `Some(None)`: it is not whole.
    pub fn unprocessed_request(&self, attempt: &Attempt) -> Option<Option<Vec<u8>>> {
        match &self.stream {
            UpstreamStream::Call(call) => call.untaken_request(),
            UpstreamStream::H2(stream) if !attempt.repeated => stream.unprocessed_request(),
            _ => None,
        }
    }

    /// Why the stream failed, where more is known than that it ended.
    #[cold]
    pub fn explain(&self) -> Error {
        let UpstreamStream::H2(stream) = &self.stream else { return Error::UpstreamClosed };
        match stream.failure() {
            // Some clients take it for the end of a whole response.
            Some(Failure::Reset(Reason::NO_ERROR)) => {
                Error::UpstreamReset(Reason::INTERNAL_ERROR.into())
            }
            Some(Failure::Reset(reason)) => Error::UpstreamReset(reason.into()),
            Some(Failure::Unprocessed) => Error::UpstreamReset(Reason::REFUSED_STREAM.into()),
            Some(Failure::Invalid) => Error::BadResponse("it violates HTTP/2"),
            Some(Failure::Request(why)) => Error::BadRequest(why),
            Some(Failure::Closed) | None => Error::UpstreamClosed,
        }
    }

    /// The error of a request that has not run and cannot be sent again.
    #[cold]
    pub fn explain_refusal(&self) -> Error {
        if self.is_h2() { self.explain() } else { Error::NotListening }
    }

    /// Whether the stream belongs to a connection with others.
    pub fn is_h2(&self) -> bool {
        matches!(self.stream, UpstreamStream::H2(_))
    }

    /// The request is a WebSocket over HTTP/1.1, to an endpoint that speaks HTTP/2.
    pub fn replaces_stream(&self) -> bool {
        self.load.pool.h2.is_some() && !self.is_h2()
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
