//! One request and its response: forwarded as two streams at once, so that early responses, slow
//! uploads and events all take their own time.
//!
//! The *uplink* sends the head and the body, then watches whether the client is still there. The
//! *downlink* reads responses and passes them on; when it is done, the exchange is.

mod downlink;
mod hold;
mod marks;
mod uplink;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::account::Ended;
use crate::buffer::Buf;
use crate::config::Config;
use crate::connection::{Accepted, Connection};
use crate::error::Error;
use crate::http1::chunked::{Decoder, Output};
use crate::http1::request::{BodyLength, RequestInfo};
use crate::io::{Stream, failed, poll_write};
use crate::stall::Stall;
use crate::stats::ServiceCounters;
use crate::timer::deadline;
use crate::upstream::{Lent, LocalService, OpenUpstream, Want};
use crate::worker::Worker;

use downlink::{Downlink, Passed};
pub use downlink::{MAX_INTERIM, read_head, timing};
pub use hold::lend;
use marks::Marks;
pub use marks::Took;
use uplink::{Body, Uplink};

pub struct Exchange<'c, 't> {
    connection: &'c mut Connection<'t>,
    info: RequestInfo,
    service: Rc<LocalService>,
    /// Head for the endpoint.
    head: Vec<u8>,
    /// Head for the client.
    reply: Vec<u8>,
    state: State,
}

/// What the two directions tell each other.
pub struct State {
    /// The whole request has been sent to the endpoint.
    pub request_sent: Cell<bool>,
    /// The whole request has been read from the client.
    pub request_read: Cell<bool>,
    /// The endpoint takes no more of the request. It may have answered all the same.
    pub upstream_write_failed: Cell<bool>,
    /// The endpoint has sent something.
    pub upstream_spoke: Cell<bool>,
    /// The status of the response, once the client has been sent something of it: from then on
    /// nothing else can be said in its place. Of an interim one only until that is whole.
    pub response_started: Cell<Option<u16>>,
    /// Body bytes, framing included.
    pub received: Cell<u64>,
    pub sent: Cell<u64>,
    /// Patience with a client that sends, and with one that takes.
    pub up: Stall,
    pub down: Stall,
    /// When waiting for the endpoint ends: for it to take the request, or to begin its response.
    pub response_deadline: Cell<Option<Instant>>,
    pub marks: Marks,
}

pub struct Finished {
    /// The client connection can take another request.
    pub keep_alive: bool,
    /// Nothing of this request is still to come.
    pub request_whole: bool,
    pub upgraded: Option<Upgraded>,
}

pub struct Upgraded {
    pub upstream: Stream,
    pub first_bytes: Buf,
    pub counted: OpenUpstream,
    pub service: Rc<LocalService>,
}

/// Makes the error of whoever was too slow: there is mostly nobody.
type Late = fn() -> Error;

/// What is known after a failure, too.
pub struct Outcome {
    pub ended: Ended,
    pub request_whole: bool,
}

impl<'c, 't> Exchange<'c, 't> {
    pub fn new(connection: &'c mut Connection<'t>, accepted: Accepted) -> Exchange<'c, 't> {
        let reply = connection.worker.take_head();
        let config = &connection.worker.shared.config;
        let state = State::new(config, accepted.info.body == BodyLength::None, accepted.head_read);
        Exchange {
            connection,
            info: accepted.info,
            service: accepted.service,
            head: accepted.head,
            reply,
            state,
        }
    }

    pub fn finish(self) -> Outcome {
        let worker = &self.connection.worker;
        worker.give_head(self.head);
        worker.give_head(self.reply);
        Outcome {
            ended: Ended::of(&self.state, self.info.minor),
            request_whole: self.state.request_read.get(),
        }
    }

    pub async fn run(&mut self) -> Result<Finished, Error> {
        let repeatable = self.info.method.is_idempotent() && self.info.body == BodyLength::None;
        let mut want = if repeatable { Want::Any } else { Want::Probed };
        loop {
            let worker = Rc::clone(&self.connection.worker);
            let lent = match self.service.lend_kept(want, worker.oldest_idle()) {
                Some(lent) => lent,
                None => tokio::select! {
                    biased;
                    lent = lend(&worker, &mut self.service, want) => lent?,
                    () = failed(&self.connection.client) => return Err(Error::ClientGone),
                },
            };
            let mut received = Buf::new();
            let result = self.forward(&lent.stream, &mut received).await;
            match result {
                // The endpoint closed an idle connection while we took it up again. Nothing of a
                // response has been seen, and the request may be sent again (RFC 9110 9.2.2).
                Err(Error::UpstreamClosed)
                    if lent.reused && repeatable && !self.state.upstream_spoke.get() =>
                {
                    self.service.counters.retries.add(1);
                    self.state.retry();
                    want = Want::New;
                }
                Err(error) => {
                    received.clear();
                    received.give_back(&self.connection.worker.buffers);
                    return Err(error);
                }
                Ok(passed) => return Ok(self.conclude(passed, lent, received)),
            }
        }
    }

    fn conclude(&self, passed: Passed, lent: Lent, received: Buf) -> Finished {
        let request_whole = self.state.request_sent.get();
        let mut finished = Finished {
            keep_alive: passed.keep_alive && request_whole,
            request_whole,
            upgraded: None,
        };
        if passed.status == 101 {
            finished.upgraded = Some(Upgraded {
                upstream: lent.stream,
                first_bytes: received,
                counted: lent.counted,
                service: Rc::clone(&self.service),
            });
            return finished;
        }
        let reusable = passed.upstream_keep_alive && request_whole;
        recycle(&self.connection.worker, &self.service, lent, received, reusable);
        finished
    }

    /// Sends the request and passes the response on, over one upstream connection.
    async fn forward(&mut self, stream: &Stream, received: &mut Buf) -> Result<Passed, Error> {
        let connection = &mut *self.connection;
        let worker = &*connection.worker;
        let config = &worker.shared.config;
        let state = &self.state;
        let body = match self.info.body {
            BodyLength::None => Body::Done,
            BodyLength::Length(length) => Body::Length(length),
            BodyLength::Chunked => {
                let decoder = Decoder::new(Output::Chunked, config.limits.head_bytes);
                Body::Chunked(Box::new(decoder.without_trailers_if(self.info.names_fields)))
            }
        };
        let client = &connection.client;
        let mut uplink = Uplink {
            state,
            pool: &worker.buffers,
            counters: &self.service.counters,
            timeouts: &config.timeouts,
            most_body: config.limits.body_bytes,
            client,
            input: &mut connection.input,
            upstream: stream,
            body,
        };
        let mut downlink = Downlink {
            state,
            worker,
            counters: &self.service.counters,
            info: self.info,
            upstream: stream,
            received,
            client,
            reply: &mut self.reply,
            status: 0,
        };
        let timer = &mut *connection.timer;
        let mut uplink = pin!(uplink.run(&mut self.head));
        let mut downlink = pin!(downlink.run());
        poll_fn(|cx| {
            // Once the request is sent it is the answer that wakes us. When that is whole, nobody
            // has had to ask about the client.
            let answer_first = state.request_sent.get();
            if answer_first && let Poll::Ready(result) = downlink.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if let Poll::Ready(error) = uplink.as_mut().poll(cx) {
                return Poll::Ready(Err(error));
            }
            if !answer_first && let Poll::Ready(result) = downlink.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let Some((at, error)) = state.next_deadline() else { return Poll::Pending };
            timer.set_at(Some(at));
            timer.poll(cx).map(|()| Err(error()))
        })
        .await
    }
}

/// Keeps an upstream connection for the next request, if it is fit for one.
pub fn recycle(
    worker: &Rc<Worker>,
    service: &LocalService,
    lent: Lent,
    mut received: Buf,
    reusable: bool,
) {
    // Bytes after the response belong to no request: the next one must not get them.
    let clean = received.is_empty();
    received.clear();
    received.give_back(&worker.buffers);
    if reusable && clean {
        worker.reap_later();
        service.give_back(lent, worker.now.get());
    }
}

impl State {
    pub fn new(config: &Config, request_read: bool, head_read: Instant) -> State {
        let stall = || Stall::new(config.timeouts.idle, config.limits.body_rate);
        State {
            request_sent: Cell::new(false),
            request_read: Cell::new(request_read),
            upstream_write_failed: Cell::new(false),
            upstream_spoke: Cell::new(false),
            response_started: Cell::new(None),
            received: Cell::new(0),
            sent: Cell::new(0),
            up: stall(),
            down: stall(),
            response_deadline: Cell::new(None),
            marks: Marks::new(head_read),
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
        self.upstream_write_failed.set(false);
    }

    /// From now on it is the endpoint's turn, unless it has answered already.
    pub fn expect_response(&self, until: Option<Instant>) {
        if !self.marks.has_response() {
            self.response_deadline.set(until);
        }
    }

    /// Writes to the endpoint. One that takes nothing is given as long as one that says nothing.
    pub async fn write(
        &self,
        upstream: &Stream,
        mut bytes: &[u8],
        patience: Option<Duration>,
    ) -> std::io::Result<()> {
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
}
