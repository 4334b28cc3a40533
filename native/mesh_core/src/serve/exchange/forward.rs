//! Forwards one request: chooses the upstream connection, and decides whether to retry.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use mesh_wire::method::Method;

use super::client::{RequestBody, ResponseSink};
use super::downlink::{Downlink, Passed};
use super::state::ExchangeState;
use super::uplink::Uplink;
use crate::config::Config;
use crate::error::Error;
use crate::runtime::{Buf, Timer};
use crate::serve::accounting::{RequestEnd, RequestInFlight};
use crate::serve::checkout::checkout;
use crate::serve::worker::Worker;
use crate::upstream::{
    Attempt, Checkout, LocalService, Reuse, Transport, UpstreamStream, UpstreamTunnel,
};

pub struct Exchange<'a, B, S> {
    pub worker: &'a Rc<Worker>,
    pub config: &'a Config,
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

pub struct Outcome {
    pub result: Result<Finished, Error>,
    pub ended: RequestEnd,
}

impl<B: RequestBody, S: ResponseSink> Exchange<'_, B, S> {
    /// Forwards the request and counts it. `minor` as in [`RequestEnd`].
    pub async fn run(&mut self, minor: u8) -> Outcome {
        // Holding may replace the service. The original one counts the request.
        let service = Rc::clone(&self.service);
        let in_flight = RequestInFlight::new(&service, self.method);
        let result = self.forward().await;
        self.worker.release_head(std::mem::take(&mut self.head));
        let ended = self.state.request_end(minor);
        ended.timings.record(&service.counters.latency);
        drop(in_flight);
        if ended.status > 0 {
            service.counters.response(ended.status);
        }
        if let Err(error) = &result {
            self.worker.failed(&service, error);
        }
        Outcome { result, ended }
    }

    async fn forward(&mut self) -> Result<Finished, Error> {
        let repeatable = self.method.is_idempotent() && self.body.is_done();
        let mut reuse = if repeatable { Reuse::Any } else { Reuse::Probed };
        let attempt = Attempt { tunnel: self.wants_tunnel, ..Attempt::default() };
        loop {
            let Exchange { worker, service, body, .. } = self;
            // A request that was given up at once must cost the endpoint nothing.
            if poll_fn(|cx| Poll::Ready(body.is_gone(cx))).await {
                return Err(Error::ClientGone);
            }
            let checkout = match service.checkout_idle(&attempt, reuse, worker.oldest_idle()) {
                Some(checkout) => checkout,
                None => tokio::select! {
                    biased;
                    () = body.client_gone() => return Err(Error::ClientGone),
                    checkout = checkout(worker, service, &attempt, reuse, self.config.timeouts.hold) => checkout?,
                },
            };
            self.state.checked_out.set(true);
            self.sink.checked_out().await?;
            let mut received = Buf::new();
            match self.pass(&checkout.stream, &mut received).await {
                // The endpoint closed an idle connection while it was checked out. No response has arrived,
                // so the request may be sent again (RFC 9110 section 9.2.2).
                Err(Error::UpstreamClosed)
                    if checkout.reused && repeatable && !self.state.upstream_spoke.get() =>
                {
                    self.service.counters.retries.add(1);
                    self.state.request_sent.set(false);
                    reuse = Reuse::Never;
                }
                Err(error) => {
                    received.clear();
                    received.release(&self.worker.buffers);
                    return Err(error);
                }
                Ok(passed) => return Ok(self.conclude(&passed, checkout, received)),
            }
        }
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
        }
        Finished::Responded
    }

    /// Sends the request and passes the response on, over one upstream connection.
    async fn pass(
        &mut self,
        upstream: &impl Transport,
        received: &mut Buf,
    ) -> Result<Passed, Error> {
        let Exchange { worker, config, service, method, head, body, sink, state, timer, .. } = self;
        let mut uplink = Uplink {
            state,
            counters: &service.counters,
            timeouts: &config.timeouts,
            upstream,
            body,
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
            let Some((at, error)) = state.next_deadline() else { return Poll::Pending };
            timer.set_at(Some(at));
            timer.poll(cx).map(|()| Err(error()))
        })
        .await
    }
}
