//! Forwards one request: chooses the upstream connection, and decides whether to retry.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mesh_wire::head::{HeadEnd, HeadScan};
use mesh_wire::mesh;
use mesh_wire::method::Method;
use tokio::time::Instant;

use super::client::{RequestBody, ResponseSink};
use super::downlink::{Downlink, Passed};
use super::kept::KeptBody;
use super::state::ExchangeState;
use super::uplink::Uplink;
use crate::error::Error;
use crate::observe::Timings;
use crate::runtime::{Buf, Timer};
use crate::serve::accounting::RequestInFlight;
use crate::serve::checkout::checkout;
use crate::serve::worker::Worker;
use crate::upstream::{
    Attempt, Checkout, LocalService, Reuse, Transport, UpstreamStream, UpstreamTunnel,
};

pub struct Exchange<'a, B, S> {
    pub worker: &'a Rc<Worker>,
    pub service: Rc<LocalService>,
    pub method: Method,
    /// The request asks for a WebSocket.
    pub wants_tunnel: bool,
    /// The head for the endpoint.
    pub head: Vec<u8>,
    pub body: B,
    pub sink: S,
    pub state: &'a ExchangeState,
    pub timer: &'a mut Timer,
}

pub enum Finished {
    Responded,
    /// Boxed, because every request moves this enum and few are upgraded.
    Upgraded(Box<Upgraded>),
}

/// The upstream side of a tunnel.
pub struct Upgraded {
    pub upstream: UpstreamStream,
    pub first_bytes: Buf,
    pub counted: UpstreamTunnel,
    pub service: Rc<LocalService>,
}

/// Returns when a request leaves its upstream for another one.
type Leaving<'e> = Pin<Box<dyn Future<Output = ()> + 'e>>;

/// What makes one attempt of such a request different from others.
struct Keeping<'e> {
    kept: &'e KeptBody,
    leaving: Leaving<'e>,
}

/// What a request needs to go to another upstream than the one that was tried.
struct Elsewhere {
    /// The head for an endpoint.
    head: Vec<u8>,
    kept: KeptBody,
    /// Why the last upstream did not serve it.
    failed: Option<Error>,
}

impl Elsewhere {
    /// How long a request may wait for an upstream. What peers have refused has reached no endpoint, so it may
    /// wait as if it had not been sent; of what a peer failed to serve that is not known.
    #[cold]
    fn hold(&self, hold: Option<Duration>) -> Option<Duration> {
        match self.failed {
            None | Some(Error::RefusedByPeer) => hold,
            Some(_) => Some(Duration::ZERO),
        }
    }

    /// The error of a request for which no upstream is left: what went wrong before says more.
    #[cold]
    fn explain(elsewhere: &mut Option<Box<Elsewhere>>, error: Error) -> Error {
        match (elsewhere, error) {
            (Some(before), Error::NotListening) => {
                before.failed.take().unwrap_or(Error::NotListening)
            }
            (_, error) => error,
        }
    }
}

pub struct Outcome {
    pub result: Result<Finished, Error>,
    pub timings: Timings,
}

impl<'a, B: RequestBody, S: ResponseSink> Exchange<'a, B, S> {
    /// Forwards the request and counts it.
    pub async fn run(&mut self) -> Outcome {
        // Holding may replace the service. The original one counts the request.
        let service = Rc::clone(&self.service);
        let in_flight = RequestInFlight::new(&service, self.method);
        let result = self.forward().await;
        self.worker.release_head(std::mem::take(&mut self.head));
        let timings = self.state.stopwatch.timings();
        timings.record(&service.counters.latency);
        drop(in_flight);
        if let Some(status) = self.state.response_started.get() {
            service.counters.response(status);
        }
        match &result {
            Ok(_) if self.state.to_peer() => service.counters.sent_to_peers.add(1),
            Ok(_) => {}
            Err(error) => self.worker.failed(&service, error),
        }
        Outcome { result, timings }
    }

    async fn forward(&mut self) -> Result<Finished, Error> {
        let repeatable = self.method.is_idempotent() && self.body.is_done();
        let mut reuse = if repeatable { Reuse::Any } else { Reuse::Probed };
        let mut attempt = Attempt { tunnel: self.wants_tunnel, ..Attempt::default() };
        let mut elsewhere: Option<Box<Elsewhere>> = None;
        loop {
            let Exchange { worker, service, body, .. } = self;
            // A request that was given up at once must cost the endpoint nothing.
            if poll_fn(|cx| Poll::Ready(body.is_gone(cx))).await {
                return Err(Error::ClientGone);
            }
            let checkout = match service.checkout_idle(&attempt, reuse, worker.oldest_idle()) {
                Some(checkout) => checkout,
                None => {
                    let hold = worker.shared.config_for(S::OF_PEER).timeouts.hold;
                    let hold = elsewhere.as_ref().map_or(hold, |before| before.hold(hold));
                    let checkout = tokio::select! {
                        biased;
                        () = body.client_gone() => return Err(Error::ClientGone),
                        checkout = checkout(worker, service, &mut attempt, reuse, hold) => checkout,
                    };
                    checkout.map_err(|error| Elsewhere::explain(&mut elsewhere, error))?
                }
            };
            if S::OF_PEER {
                self.state.checked_out.set(true);
                self.sink.checked_out().await?;
            }
            if self.state.body_may_pause.get() && !checkout.is_h2() && !checkout.is_peer() {
                // What the client says of its body must not hold a connection of an HTTP/1.1 endpoint for ever.
                self.state.body_may_pause.set(false);
            }
            let mut received = Buf::new();
            let mut keeping = None;
            if checkout.is_peer() || elsewhere.is_some() {
                let before = elsewhere.get_or_insert_with(|| self.elsewhere());
                let leaving = self.prepare(&checkout, before, &attempt);
                keeping = Some(Keeping { kept: &before.kept, leaving });
            }
            // By reference: with a box among its arguments, LLVM copies the whole future.
            let passed = self.pass(&checkout.stream, &mut received, keeping.as_mut()).await;
            drop(keeping);
            let mut error = match passed {
                Ok(passed) => return Ok(self.conclude(&passed, checkout, received)),
                Err(error) => error,
            };
            let is_http1 = received.filled().starts_with(b"HTTP/");
            received.clear();
            received.release(&self.worker.buffers);
            match error {
                Error::UpstreamClosed | Error::BadResponse(_)
                    if checkout.replaces_stream()
                        && !is_http1
                        && !self.state.stopwatch.has_response() =>
                {
                    error = Error::NotImplemented("the service accepts no WebSockets");
                }
                Error::UpstreamClosed => {
                    if let Some(request) = checkout.unprocessed_request(&attempt) {
                        let request = request.ok_or_else(|| checkout.explain_refusal())?;
                        attempt.by_socket = true;
                        attempt.repeated = checkout.is_h2();
                        self.repeat(request, &mut elsewhere);
                        continue;
                    }
                    error = checkout.explain();
                }
                Error::ClientGone => checkout.stream.reset(self.body.reset_code()),
                _ => {}
            }
            // The upstream closed an idle connection while it was checked out. No response has arrived, so the
            // request may be sent again (RFC 9110 section 9.2.2). An endpoint that stops ends its dispatchers
            // first, and its socket closes the connections that it has not accepted. Once only: requests that share a
            // new connection to an endpoint that closes each of them would repeat each other for ever.
            let is_stale = matches!(error, Error::UpstreamClosed)
                && repeatable
                && !self.state.upstream_spoke.get()
                && (checkout.reused && reuse != Reuse::Never
                    || checkout.replaces_call() && !std::mem::replace(&mut attempt.again, true));
            // A peer closes no idle connection while it lives, so another upstream comes first.
            let stays =
                is_stale && !(checkout.is_peer() && self.service.has_another(&attempt, &checkout));
            if stays {
                reuse = Reuse::Never;
            } else if let Some(before) = &mut elsewhere
                && checkout.is_peer()
                && (is_stale || self.may_go_elsewhere(&error, &before.kept))
            {
                if matches!(error, Error::RefusedByPeer) {
                    self.service.refused(&checkout);
                }
                self.drop_taken(&before.kept);
                attempt.tried.push(checkout.address_id());
                before.failed = Some(error);
            } else {
                return Err(error);
            }
            self.service.counters.retries.add(1);
            self.state.restart();
        }
    }

    /// Prepares a request that was sent and has not run: it goes to the socket of an endpoint of this VM, or to an
    /// HTTP/2 endpoint once more.
    #[cold]
    fn repeat(&mut self, mut request: Vec<u8>, elsewhere: &mut Option<Box<Elsewhere>>) {
        let size = match HeadScan::default().find(&request) {
            HeadEnd::Whole(size) => size,
            _ => request.len(),
        };
        let kept = KeptBody::of(request.split_off(size));
        let failed = elsewhere.take().and_then(|before| before.failed);
        *elsewhere = Some(Box::new(Elsewhere { head: request, kept, failed }));
        self.service.counters.retries.add(1);
        self.state.restart();
    }

    #[inline(never)]
    fn elsewhere(&self) -> Box<Elsewhere> {
        Box::new(Elsewhere { head: self.head.clone(), kept: KeptBody::default(), failed: None })
    }

    /// Whether a request that a peer has not served may go to another upstream.
    #[inline(never)]
    fn may_go_elsewhere(&self, error: &Error, kept: &KeptBody) -> bool {
        if !kept.is_whole() {
            return false;
        }
        match error {
            // Nothing of it has reached an endpoint.
            Error::RefusedByPeer => true,
            Error::UpstreamClosed => {
                self.method.is_idempotent()
                    && !self.state.upstream_spoke.get()
                    && self.service.withdraw_retry(Instant::now())
            }
            _ => false,
        }
    }

    /// Counts the part that was being sent: it is kept.
    #[inline(never)]
    fn drop_taken(&mut self, kept: &KeptBody) {
        let taken = kept.taken.take();
        self.state.received(&self.service.counters, taken);
        self.body.part_sent(taken);
    }

    /// Prepares the head of a request that may have to go elsewhere, or that comes from there. Returns when a
    /// request that can be repeated leaves a peer that has become suspect.
    #[inline(never)]
    fn prepare<'e>(
        &mut self,
        checkout: &'e Checkout,
        elsewhere: &'e Elsewhere,
        attempt: &'e Attempt,
    ) -> Leaving<'e>
    where
        'a: 'e,
    {
        let kept = &elsewhere.kept;
        let head = &mut self.head;
        head.clear();
        head.extend_from_slice(&elsewhere.head);
        if checkout.is_peer() {
            self.state.set_to_peer(true);
            let asks_to_go = self.body.may_exceed(kept.room());
            kept.asked.set(asks_to_go);
            mesh::address(head, &self.service.service.name, asks_to_go);
        }
        kept.append_to(head);
        if !checkout.is_peer() {
            kept.go_ahead();
        }
        let (service, state) = (Rc::clone(&self.service), self.state);
        let may_leave = self.method.is_idempotent() && checkout.is_peer();
        Box::pin(async move {
            checkout.suspected().await;
            // Otherwise the peer may still answer.
            while !may_leave
                || state.upstream_spoke.get()
                || !kept.is_whole()
                || !service.has_another(attempt, checkout)
            {
                checkout.suspected_again().await;
            }
        })
    }

    fn conclude(&self, passed: &Passed, checkout: Checkout, mut received: Buf) -> Finished {
        if passed.upgraded {
            let (upstream, counted) = checkout.into_tunnel();
            return Finished::Upgraded(Box::new(Upgraded {
                upstream,
                first_bytes: received,
                counted,
                service: Rc::clone(&self.service),
            }));
        }
        // Bytes after the response belong to no request: the connection must not be reused.
        let clean = received.is_empty();
        received.clear();
        received.release(&self.worker.buffers);
        if clean && passed.upstream_keep_alive && self.state.request_sent.get() {
            self.worker.reap_later();
            checkout.checkin(self.worker.coarse_now());
        } else if checkout.is_h2() {
            self.worker.reap_later();
        }
        Finished::Responded
    }

    /// Sends the request and passes the response on, over one upstream connection.
    async fn pass(
        &mut self,
        upstream: &impl Transport,
        received: &mut Buf,
        mut keeping: Option<&mut Keeping<'_>>,
    ) -> Result<Passed, Error> {
        let kept = keeping.as_ref().map(|keeping| keeping.kept);
        let Exchange { worker, service, method, head, body, sink, state, timer, .. } = self;
        let config = worker.shared.config_for(S::OF_PEER);
        let mut uplink = Uplink {
            state,
            counters: &service.counters,
            timeouts: &config.timeouts,
            upstream,
            body,
            kept,
        };
        let mut downlink = Downlink {
            state,
            limits: &config.limits,
            pool: &worker.buffers,
            method: *method,
            upstream,
            received,
            sink,
        };
        let mut uplink = pin!(uplink.run(head));
        let mut downlink = pin!(downlink.run());
        let mut waits_no_longer = false;
        poll_fn(|cx| {
            // Once the request is sent, the response wakes this task. If the response is complete, the
            // state of the client does not matter.
            let response_first = state.request_sent.get();
            if response_first && let Poll::Ready(result) = downlink.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if let Poll::Ready(error) = uplink.as_mut().poll(cx) {
                return Poll::Ready(Err(error));
            }
            if !response_first && let Poll::Ready(result) = downlink.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if let Some(keeping) = &mut keeping {
                if !waits_no_longer && state.goes_ahead.get() {
                    waits_no_longer = true;
                    if let Poll::Ready(error) = uplink.as_mut().poll(cx) {
                        return Poll::Ready(Err(error));
                    }
                    // The peer's connection has not been polled since the uplink wrote to it. A failure shows
                    // when the peer's bytes end.
                    let _ = upstream.poll_flush(cx);
                }
                if keeping.leaving.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Error::UpstreamClosed));
                }
            }
            upstream.read_ahead(cx);
            let Some((at, error)) = state.next_deadline() else { return Poll::Pending };
            timer.set_at(Some(at));
            timer.poll(cx).map(|()| Err(error()))
        })
        .await
    }
}
