//! Measures the phases of one request.
//!
//! Reads the clock four times if the request and the response fit in one write each, and once more for each
//! that does not.

use std::cell::Cell;

use mesh_wire::response::ServerTiming;
use tokio::time::Instant;

use super::counters::Latency;

pub struct Stopwatch {
    head_read: Instant,
    /// Nanoseconds since `head_read`; 0 means "not yet".
    head_sent: Cell<u64>,
    request_sent: Cell<u64>,
    response_head_read: Cell<u64>,
    response_head_sent: Cell<u64>,
    /// The response took more than one write.
    wrote_more: Cell<bool>,
}

/// Durations in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    pub total: u64,
    /// This and `gateway` are unknown for requests without a response.
    pub first_byte: Option<u64>,
    pub gateway: Option<u64>,
}

impl Stopwatch {
    pub fn new(head_read: Instant) -> Stopwatch {
        Stopwatch {
            head_read,
            head_sent: Cell::new(0),
            request_sent: Cell::new(0),
            response_head_read: Cell::new(0),
            response_head_sent: Cell::new(0),
            wrote_more: Cell::new(false),
        }
    }

    fn now(&self, mark: &Cell<u64>) -> Instant {
        let now = Instant::now();
        let nanos = (now - self.head_read).as_nanos();
        mark.set(u64::try_from(nanos).unwrap_or(u64::MAX).max(1));
        now
    }

    /// The head was sent to the endpoint; `whole`: the entire request was. Returns the time.
    pub fn head_sent(&self, whole: bool) -> Instant {
        let now = self.now(&self.head_sent);
        self.request_sent.set(if whole { self.head_sent.get() } else { 0 });
        now
    }

    pub fn request_sent(&self) -> Instant {
        self.now(&self.request_sent)
    }

    pub fn response_head_read(&self) {
        self.now(&self.response_head_read);
    }

    /// Whether a response head has arrived.
    pub fn has_response(&self) -> bool {
        self.response_head_read.get() != 0
    }

    /// Something was sent to the client.
    pub fn wrote(&self) {
        if self.response_head_sent.get() != 0 {
            self.wrote_more.set(true);
        } else if self.response_head_read.get() != 0 {
            self.now(&self.response_head_sent);
        }
    }

    /// The durations known when the response head is forwarded.
    pub fn timing(&self) -> ServerTiming {
        ServerTiming { gateway: self.head_sent.get(), upstream: self.upstream() }
    }

    /// An endpoint may answer before it has the whole request.
    fn upstream(&self) -> u64 {
        let sent = match self.request_sent.get() {
            0 => self.head_sent.get(),
            sent => sent,
        };
        self.response_head_read.get().saturating_sub(sent)
    }

    /// The durations of a finished request.
    pub fn timings(&self) -> Timings {
        let sent = self.response_head_sent.get();
        let total = Cell::new(sent);
        if sent == 0 || self.wrote_more.get() {
            self.now(&total);
        }
        let read = self.response_head_read.get();
        Timings {
            total: total.get(),
            first_byte: (read != 0).then(|| self.upstream()),
            gateway: (sent != 0).then(|| self.head_sent.get() + (sent - read)),
        }
    }
}

impl Timings {
    pub fn record(&self, latency: &Latency) {
        latency.total.record(self.total);
        if let Some(nanos) = self.first_byte {
            latency.first_byte.record(nanos);
        }
        if let Some(nanos) = self.gateway {
            latency.gateway.record(nanos);
        }
    }
}
