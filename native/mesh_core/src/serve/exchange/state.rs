//! What the two directions of an exchange tell each other.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use mesh_wire::response::ServerTiming;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::Error;
use crate::observe::{ServiceCounters, Stopwatch};
use crate::runtime::{MinRate, deadline};
use crate::serve::accounting::Ended;
use crate::upstream::transport::{Transport, poll_write};

pub struct State {
    /// The whole request has been sent to the endpoint.
    pub request_sent: Cell<bool>,
    /// The endpoint has sent something.
    pub upstream_spoke: Cell<bool>,
    /// The status of the response, once the client has been sent something of it: from then on
    /// nothing else can be said in its place. Of an interim one only until that is whole.
    pub response_started: Cell<Option<u16>>,
    /// How long to wait for a client that sends, and for one that takes.
    pub up: MinRate,
    pub down: MinRate,
    /// When waiting for the endpoint ends: for it to take the request, or to begin its response.
    pub response_deadline: Cell<Option<Instant>>,
    pub stopwatch: Stopwatch,
    /// Body bytes, framing included.
    received: Cell<u64>,
    sent: Cell<u64>,
    tells_timing: bool,
}

/// Makes the error of the side that was too slow. Mostly there is none.
type Late = fn() -> Error;

impl State {
    pub fn new(config: &Config, head_read: Instant) -> State {
        let min_rate = || MinRate::new(config.timeouts.idle, config.limits.body_rate);
        State {
            request_sent: Cell::new(false),
            upstream_spoke: Cell::new(false),
            response_started: Cell::new(None),
            up: min_rate(),
            down: min_rate(),
            response_deadline: Cell::new(None),
            stopwatch: Stopwatch::new(head_read),
            received: Cell::new(0),
            sent: Cell::new(0),
            tells_timing: config.server_timing,
        }
    }

    /// So many bytes of the request's body have come.
    pub fn received(&self, counters: &ServiceCounters, bytes: usize) {
        counters.request_body_bytes.add(bytes as u64);
        self.received.set(self.received.get() + bytes as u64);
    }

    /// So many bytes of the response's body have gone.
    pub fn sent(&self, counters: &ServiceCounters, bytes: usize) {
        counters.response_body_bytes.add(bytes as u64);
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// Everything is to be sent once more, on another connection.
    pub fn retry(&self) {
        self.request_sent.set(false);
    }

    /// From now on the endpoint is waited for, unless it has answered already.
    pub fn expect_response(&self, until: Option<Instant>) {
        if !self.stopwatch.has_response() {
            self.response_deadline.set(until);
        }
    }

    /// Writes to the endpoint. One that takes nothing has as much time as one that says nothing.
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

    /// Which wait ends first, and what it means when it does.
    pub fn next_deadline(&self) -> Option<(Instant, Late)> {
        let waits: [(_, Late); 3] = [
            (self.up.deadline(), || Error::BodyTimeout),
            (self.down.deadline(), || Error::ReaderTimeout),
            (self.response_deadline.get(), || Error::ResponseTimeout),
        ];
        let waits = waits.into_iter().filter_map(|(at, error)| Some((at?, error)));
        waits.min_by_key(|(at, _)| *at)
    }

    /// What `Server-Timing` is to say, if it is wanted.
    pub fn server_timing(&self) -> Option<ServerTiming> {
        self.tells_timing.then(|| self.stopwatch.timing())
    }

    /// What is known of the request when it is over. `minor` as in [`Ended`].
    pub fn ended(&self, minor: u8) -> Ended {
        Ended {
            timings: self.stopwatch.timings(),
            status: self.response_started.get().unwrap_or(0),
            minor,
            received: self.received.get(),
            sent: self.sent.get(),
            error: None,
        }
    }
}
