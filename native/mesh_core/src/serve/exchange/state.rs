//! The state that both directions of an exchange share.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use mesh_wire::response::ServerTiming;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::Error;
use crate::observe::{Hop, ServiceCounters, Stopwatch, Timings};
use crate::runtime::{MinRate, deadline};
use crate::serve::accounting::RequestEnd;
use crate::transport::{Transport, poll_write};

pub struct ExchangeState {
    /// A connection to the endpoint has been found. Until then nothing of the request can have been executed, or
    /// it may be executed again.
    pub checked_out: Cell<bool>,
    pub hop: Cell<Option<Hop>>,
    /// The peer has said that an endpoint has been found.
    pub goes_ahead: Cell<bool>,
    /// The whole request has been sent to the endpoint.
    pub request_sent: Cell<bool>,
    /// The endpoint has sent something.
    pub upstream_spoke: Cell<bool>,
    /// The status of the response, once part of it was sent to the client: no other answer is possible
    /// then. Reset after an interim response.
    pub response_started: Cell<Option<u16>>,
    /// Limits the wait for a client that sends, and for one that receives.
    pub up: MinRate,
    pub down: MinRate,
    /// When the wait for the endpoint ends: for it to accept the request, or to begin its response.
    pub response_deadline: Cell<Option<Instant>>,
    pub stopwatch: Stopwatch,
    /// The status of a gRPC call, which its response has told.
    pub grpc_status: Cell<Option<u16>>,
    /// The client may be silent for any time while it sends its body: a gRPC stream to an endpoint that speaks
    /// HTTP/2, as a WebSocket.
    pub body_may_pause: Cell<bool>,
    /// Body bytes, framing included.
    received: Cell<u64>,
    sent: Cell<u64>,
    wants_server_timing: bool,
}

/// Creates the error of the side that was too slow, only when it is needed.
type Late = fn() -> Error;

impl ExchangeState {
    pub fn new(config: &Config, head_read: Instant) -> ExchangeState {
        let min_rate = || MinRate::new(config.timeouts.idle, config.limits.body_rate);
        ExchangeState {
            checked_out: Cell::new(false),
            hop: Cell::new(None),
            goes_ahead: Cell::new(false),
            request_sent: Cell::new(false),
            upstream_spoke: Cell::new(false),
            response_started: Cell::new(None),
            up: min_rate(),
            down: min_rate(),
            response_deadline: Cell::new(None),
            stopwatch: Stopwatch::new(head_read),
            grpc_status: Cell::new(None),
            body_may_pause: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
            wants_server_timing: config.server_timing,
        }
    }

    /// Whether the request goes to a peer, which may refuse it. One that came from a peer does not.
    pub fn to_peer(&self) -> bool {
        self.hop.get() == Some(Hop::Out)
    }

    pub fn set_to_peer(&self, to_peer: bool) {
        if to_peer {
            self.hop.set(Some(Hop::Out));
        } else if self.to_peer() {
            self.hop.set(None);
        }
    }

    /// Begins again: the request is sent once more.
    pub fn restart(&self) {
        self.checked_out.set(false);
        self.request_sent.set(false);
        self.upstream_spoke.set(false);
        self.response_deadline.set(None);
        self.set_to_peer(false);
        self.goes_ahead.set(false);
    }

    pub fn received(&self, counters: &ServiceCounters, bytes: usize) {
        counters.request_body_bytes.add(bytes as u64);
        self.received.set(self.received.get() + bytes as u64);
    }

    pub fn sent(&self, counters: &ServiceCounters, bytes: usize) {
        counters.response_body_bytes.add(bytes as u64);
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// Starts the wait for the endpoint, unless it has answered already.
    pub fn expect_response(&self, until: Option<Instant>) {
        if !self.stopwatch.has_response() {
            self.response_deadline.set(until);
        }
    }

    /// Writes to the endpoint. An endpoint that accepts nothing has as much time as one that does not respond.
    pub async fn write(
        &self,
        upstream: &impl Transport,
        mut bytes: &[u8],
        patience: Option<Duration>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut waits = false;
            let written = poll_fn(|cx| {
                let written = poll_write(cx, upstream, [bytes]);
                if written.is_pending() && !std::mem::replace(&mut waits, true) {
                    self.expect_response(deadline(patience));
                }
                written
            });
            bytes = &bytes[written.await?..];
            self.response_deadline.set(None);
        }
        Ok(())
    }

    /// The first deadline, and its error.
    pub fn next_deadline(&self) -> Option<(Instant, Late)> {
        let waits: [(_, Late); 3] = [
            (self.up.deadline(), || Error::BodyTimeout),
            (self.down.deadline(), || Error::ReaderTimeout),
            (self.response_deadline.get(), || Error::ResponseTimeout),
        ];
        let waits = waits.into_iter().filter_map(|(at, error)| Some((at?, error)));
        waits.min_by_key(|(at, _)| *at)
    }

    /// The value of `Server-Timing`, if it is enabled.
    pub fn server_timing(&self) -> Option<ServerTiming> {
        self.wants_server_timing.then(|| self.stopwatch.timing())
    }

    /// The summary of a finished request. `minor` as in [`RequestEnd`].
    pub fn request_end(&self, timings: Timings, minor: u8) -> RequestEnd {
        RequestEnd {
            timings,
            status: self.response_started.get().unwrap_or(0),
            minor,
            received: self.received.get(),
            sent: self.sent.get(),
            error: None,
            hop: self.hop.get(),
            grpc_status: self.grpc_status.get(),
        }
    }
}
