//! Sends the request to the endpoint.

use std::future::poll_fn;
use std::task::Poll;

use super::client::RequestBody;
use super::kept::KeptBody;
use super::state::ExchangeState;
use crate::config::Timeouts;
use crate::error::Error;
use crate::observe::ServiceCounters;
use crate::runtime::deadline;
use crate::transport::{Transport, write_now};

pub struct Uplink<'a, T, B> {
    pub state: &'a ExchangeState,
    pub counters: &'a ServiceCounters,
    pub timeouts: &'a Timeouts,
    pub upstream: &'a T,
    pub body: &'a mut B,
    /// Keeps what is sent to a peer.
    pub kept: Option<&'a KeptBody>,
}

enum Stop {
    Upstream,
    Failed(Error),
}

impl<T: Transport, B: RequestBody> Uplink<'_, T, B> {
    /// Returns the error that ends the exchange.
    pub async fn run(&mut self, head: &mut Vec<u8>) -> Error {
        match self.send(head).await {
            Ok(()) => self.body.watch(self.upstream.ends_with_client()).await,
            Err(Stop::Failed(error)) => return error,
            Err(Stop::Upstream) => {
                // The downlink finds the endpoint's response, if there is one.
                self.state.expect_response(deadline(self.timeouts.response));
                self.body.client_gone().await;
            }
        }
        Error::ClientGone
    }

    async fn send(&mut self, head: &mut Vec<u8>) -> Result<(), Stop> {
        let stopwatch = &self.state.stopwatch;
        // Body bytes that have arrived are written with the head. Only requests without a body are retried,
        // so the head stays unchanged for them.
        let mut part = 0;
        if !self.body.is_done() {
            let start = head.len();
            part = poll_fn(|cx| Poll::Ready(self.body.take_ready(cx, head))).await?;
            if let Some(kept) = self.kept {
                kept.add(part, [&head[start..], b""]);
            }
        }
        let whole = self.body.is_done();
        self.write(head).await?;
        let mut sent = stopwatch.head_sent(whole);
        if part > 0 {
            self.passed(part);
        }
        while !self.body.is_done() {
            if let Some(kept) = self.kept {
                if kept.is_full() {
                    self.wait_to_go_ahead().await?;
                }
                if self.state.goes_ahead.get() {
                    kept.go_ahead();
                }
            }
            head.clear();
            let part = poll_fn(|cx| {
                let part = self.body.poll_part(cx, head);
                if part.is_pending() && !self.state.body_may_pause.get() {
                    self.state.up.waiting();
                }
                part
            })
            .await?;
            // From here on the endpoint's time does not count against the client.
            self.state.up.moved(part);
            if let Some(kept) = self.kept {
                kept.add(part, [self.body.in_place(), head]);
            }
            self.write(self.body.in_place()).await?;
            self.write(head).await?;
            self.passed(part);
        }
        if !whole {
            sent = stopwatch.request_sent();
        }
        self.state.request_sent.set(true);
        let until = self.timeouts.response.and_then(|limit| sent.checked_add(limit));
        self.state.expect_response(until);
        Ok(())
    }

    fn passed(&mut self, part: usize) {
        self.state.received(self.counters, part);
        self.body.part_sent(part);
        if let Some(kept) = self.kept {
            kept.taken.set(0);
        }
    }

    /// Waits until the peer has found an endpoint.
    async fn wait_to_go_ahead(&self) -> Result<(), Stop> {
        self.state.expect_response(deadline(self.timeouts.response));
        let go = poll_fn(|_| {
            // The downlink, which reads it, polls this again.
            if self.state.goes_ahead.get() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            biased;
            () = go => {}
            () = self.body.client_gone() => return Err(Stop::Failed(Error::ClientGone)),
        }
        self.state.response_deadline.set(None);
        Ok(())
    }

    /// Writes to the endpoint while the client is connected.
    async fn write(&self, bytes: &[u8]) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = write_now(self.upstream, [bytes]).map_err(|_| Stop::Upstream)?;
        let rest = &bytes[written.unwrap_or(0)..];
        if rest.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            written = self.state.write(self.upstream, rest, self.timeouts.response) => {
                written.map_err(|_| Stop::Upstream)
            }
            () = self.body.client_gone() => Err(Stop::Failed(Error::ClientGone)),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}
