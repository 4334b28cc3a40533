//! One request and its response: two streams at once, over one upstream connection at a time. By
//! the same rules as in HTTP/1.1; only the client's side is another.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use ::h2::RecvStream;

use super::client::Client;
use super::downlink::{Downlink, Passed};
use super::request::Accepted;
use super::uplink::Uplink;
use crate::buffer::Buf;
use crate::error::Error;
use crate::exchange::{State, lend, recycle};
use crate::http1::request::BodyLength;
use crate::io::Stream;
use crate::timer::Timer;
use crate::upstream::{LocalService, OpenUpstream, Want};
use crate::worker::Worker;

pub struct Exchange<'a> {
    pub worker: &'a Rc<Worker>,
    pub client: &'a Client,
    pub body: RecvStream,
    pub accepted: Accepted,
    pub state: &'a State,
}

/// How an exchange ended that did not fail.
pub struct Finished {
    pub tunnel: Option<Upgraded>,
}

pub struct Upgraded {
    pub upstream: Stream,
    pub _counted: OpenUpstream,
    pub first_bytes: Buf,
    pub service: Rc<LocalService>,
    /// What the client sends.
    pub body: RecvStream,
}

impl Exchange<'_> {
    /// Runs until the response has been passed on, the client is gone, or somebody has been too
    /// slow.
    pub async fn run(self) -> Result<Finished, Error> {
        let (client, state) = (self.client, self.state);
        let mut timer = Timer::default();
        let mut work = pin!(self.work());
        poll_fn(|cx| {
            // First, so that what was given up at once costs the endpoint nothing.
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Error::ClientGone));
            }
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let Some((at, error)) = state.next_deadline() else { return Poll::Pending };
            timer.set_at(Some(at));
            timer.poll(cx).map(|()| Err(error()))
        })
        .await
    }

    async fn work(mut self) -> Result<Finished, Error> {
        let bodyless = self.accepted.body == BodyLength::None;
        let repeatable = self.accepted.method.is_idempotent() && bodyless;
        let mut want = if repeatable { Want::Any } else { Want::Probed };
        loop {
            let lent = lend(self.worker, &mut self.accepted.service, want).await?;
            let mut received = Buf::new();
            let result = self.forward(&lent.stream, &mut received).await;
            match result {
                // As in HTTP/1.1: an idle connection that was closed as it was taken up again.
                Err(Error::UpstreamClosed)
                    if lent.reused && repeatable && !self.state.upstream_spoke.get() =>
                {
                    self.accepted.service.counters.retries.add(1);
                    self.state.retry();
                    want = Want::New;
                }
                Err(error) => {
                    received.clear();
                    received.give_back(&self.worker.buffers);
                    return Err(error);
                }
                Ok(passed) if passed.is_tunnel => {
                    let tunnel = Upgraded {
                        upstream: lent.stream,
                        _counted: lent.counted,
                        first_bytes: received,
                        service: self.accepted.service,
                        body: self.body,
                    };
                    return Ok(Finished { tunnel: Some(tunnel) });
                }
                Ok(passed) => {
                    let reusable = passed.upstream_keep_alive && self.state.request_sent.get();
                    let service = &self.accepted.service;
                    recycle(self.worker, service, lent, received, reusable);
                    self.worker.give_head(self.accepted.head);
                    return Ok(Finished { tunnel: None });
                }
            }
        }
    }

    async fn forward(&mut self, stream: &Stream, received: &mut Buf) -> Result<Passed, Error> {
        let config = &self.worker.shared.config;
        let accepted = &mut self.accepted;
        let counters = &accepted.service.counters;
        let uplink = Uplink {
            state: self.state,
            counters,
            timeouts: &config.timeouts,
            most_body: config.limits.body_bytes,
            body: &mut self.body,
            length: accepted.body,
            upstream: stream,
            read: 0,
        };
        let downlink = Downlink {
            state: self.state,
            worker: self.worker,
            counters,
            method: accepted.method,
            websocket: accepted.websocket.as_ref(),
            upstream: stream,
            received,
            client: self.client,
            head: None,
        };
        let mut uplink = pin!(uplink.run(&mut accepted.head));
        let mut downlink = pin!(downlink.run());
        poll_fn(|cx| {
            if let Poll::Ready(error) = uplink.as_mut().poll(cx) {
                return Poll::Ready(Err(error));
            }
            downlink.as_mut().poll(cx)
        })
        .await
    }
}
