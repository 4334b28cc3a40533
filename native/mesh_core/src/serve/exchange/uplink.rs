//! From the client to the endpoint.

use std::future::poll_fn;
use std::task::Poll;

use super::client::RequestBody;
use super::state::State;
use crate::config::Timeouts;
use crate::error::Error;
use crate::observe::ServiceCounters;
use crate::runtime::{after, deadline};
use crate::upstream::transport::{Transport, write_now};

pub struct Uplink<'a, T, B> {
    pub state: &'a State,
    pub counters: &'a ServiceCounters,
    pub timeouts: &'a Timeouts,
    pub upstream: &'a T,
    pub body: &'a mut B,
}

/// Why sending ended early.
enum Stop {
    Upstream,
    Failed(Error),
}

impl<T: Transport, B: RequestBody> Uplink<'_, T, B> {
    /// Ends only with an error that ends the exchange.
    pub async fn run(&mut self, head: &mut Vec<u8>) -> Error {
        match self.send(head).await {
            Ok(()) => self.body.watch().await,
            Err(Stop::Failed(error)) => return error,
            Err(Stop::Upstream) => {
                // Its response, if there is one, is found by the downlink.
                self.state.expect_response(deadline(self.timeouts.response));
                self.body.client_gone().await;
            }
        }
        Error::ClientGone
    }

    async fn send(&mut self, head: &mut Vec<u8>) -> Result<(), Stop> {
        let stopwatch = &self.state.stopwatch;
        // What has come of the body goes with the head in one write. Only a request without a body
        // is ever sent twice, so that its head stays as it is.
        let mut part = 0;
        if !self.body.is_done() {
            part = poll_fn(|cx| Poll::Ready(self.body.take_ready(cx, head))).await?;
        }
        let whole = self.body.is_done();
        self.write(head).await?;
        let mut sent = stopwatch.head_sent(whole);
        if part > 0 {
            self.passed(part);
        }
        while !self.body.is_done() {
            head.clear();
            let part = poll_fn(|cx| {
                let part = self.body.poll_part(cx, head);
                if part.is_pending() {
                    self.state.up.waiting();
                }
                part
            })
            .await?;
            self.write(self.body.in_place()).await?;
            self.write(head).await?;
            self.passed(part);
        }
        if !whole {
            sent = stopwatch.request_sent();
        }
        self.state.request_sent.set(true);
        let until = self.timeouts.response.and_then(|limit| after(sent, limit));
        self.state.expect_response(until);
        Ok(())
    }

    fn passed(&mut self, part: usize) {
        self.state.up.moved(part);
        self.state.received(self.counters, part);
        self.body.release(part);
    }

    /// Writes to the endpoint, for as long as the client is there.
    async fn write(&self, bytes: &[u8]) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = write_now(self.upstream, [bytes]).map_err(|_| Stop::Upstream)?;
        let rest = &bytes[written.unwrap_or(0)..];
        if rest.is_empty() {
            // As nearly always.
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
