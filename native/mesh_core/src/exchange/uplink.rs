//! From the client to the endpoint.

use std::future::poll_fn;

use tokio::net::TcpStream;

use super::State;
use crate::buffer::{Buf, BufferPool, SMALL};
use crate::config::Timeouts;
use crate::error::Error;
use crate::http1::chunked::Decoder;
use crate::io::{self, Stream, poll_fill, poll_fill_long};
use crate::stats::ServiceCounters;
use crate::timer::{after, deadline};

/// What is still to come of the request body.
pub enum Body {
    Done,
    Length(u64),
    Chunked(Box<Decoder>),
}

pub struct Uplink<'a> {
    pub state: &'a State,
    pub pool: &'a BufferPool,
    pub counters: &'a ServiceCounters,
    pub timeouts: &'a Timeouts,
    pub most_body: Option<u64>,
    pub client: &'a TcpStream,
    pub input: &'a mut Buf,
    pub upstream: &'a Stream,
    pub body: Body,
}

impl Uplink<'_> {
    /// Ends only with an error that ends the exchange.
    pub async fn run(&mut self, head: &mut Vec<u8>) -> Error {
        match self.send(head).await {
            Ok(()) => self.watch().await,
            Err(Stop::Failed(error)) => error,
            Err(Stop::Upstream) => {
                self.state.upstream_write_failed.set(true);
                // Its response, if there is one, is the downlink's to find.
                self.state.expect_response(deadline(self.timeouts.response));
                self.client_gone().await
            }
        }
    }

    async fn send(&mut self, head: &mut Vec<u8>) -> Result<(), Stop> {
        // What has come of the body goes with the head in one write. Only a request without a body
        // is ever sent twice, so that its head stays as it is.
        if !self.input.is_empty() && !matches!(self.body, Body::Done) {
            self.take_body(head)?;
        }
        let whole = matches!(self.body, Body::Done);
        self.write(head).await?;
        let mut sent = self.state.marks.head_sent(whole);
        while !matches!(self.body, Body::Done) {
            self.read_body().await?;
            head.clear();
            self.pass_body(head).await?;
        }
        if !whole {
            sent = self.state.marks.request_sent();
        }
        self.state.request_sent.set(true);
        let until = self.timeouts.response.and_then(|limit| after(sent, limit));
        self.state.expect_response(until);
        Ok(())
    }

    /// Writes to the endpoint, for as long as somebody is there who wants that.
    async fn write(&self, bytes: &[u8]) -> Result<(), Stop> {
        let written = io::write_now(self.upstream, [bytes]).map_err(|_| Stop::Upstream)?;
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
            error = self.client_gone() => Err(Stop::Failed(error)),
        }
    }

    /// Waits until the client has reset the connection, whatever of it has not been read.
    async fn client_gone(&self) -> Error {
        io::failed(self.client).await;
        Error::ClientGone
    }

    /// Moves what has come of the body behind the head.
    fn take_body(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        let (consumed, written) = self.next_part()?;
        out.extend_from_slice(&self.input.filled()[..written]);
        self.after_part(consumed, out);
        Ok(())
    }

    /// Writes what has come of the body; `tail` is scratch space.
    async fn pass_body(&mut self, tail: &mut Vec<u8>) -> Result<(), Stop> {
        let (consumed, written) = self.next_part()?;
        let part = &self.input.filled()[..written];
        self.write(part).await?;
        self.after_part(consumed, tail);
        if !tail.is_empty() {
            self.write(tail).await?;
        }
        Ok(())
    }

    /// How many of the bytes at hand are of this body, and how many of them (at the front of the
    /// buffer, by now) are to be passed on.
    fn next_part(&mut self) -> Result<(usize, usize), Stop> {
        match &mut self.body {
            Body::Done => Ok((0, 0)),
            Body::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                *left -= n as u64;
                Ok((n, n))
            }
            Body::Chunked(decoder) => {
                let decoded = decoder
                    .decode(self.input.filled_mut())
                    .map_err(|why| Stop::Failed(Error::BadRequest(why)))?;
                if self.most_body.is_some_and(|most| decoder.data > most) {
                    return Err(Stop::Failed(Error::BodyTooLong));
                }
                Ok((decoded.consumed, decoded.written))
            }
        }
    }

    /// Drops what has been passed on and appends the tail, if this was the end.
    fn after_part(&mut self, consumed: usize, out: &mut Vec<u8>) {
        self.state.received(self.counters, consumed);
        self.input.consume(consumed);
        // The next part goes through the buffer that was used last, by whomever: it is in the cache.
        self.input.give_back(self.pool);
        let done = match &self.body {
            Body::Done => return,
            Body::Length(left) => *left == 0,
            Body::Chunked(decoder) => {
                if decoder.is_done() {
                    out.extend_from_slice(decoder.tail());
                }
                decoder.is_done()
            }
        };
        if done {
            self.body = Body::Done;
            self.state.request_read.set(true);
        }
    }

    async fn read_body(&mut self) -> Result<(), Stop> {
        let long = match &self.body {
            Body::Length(left) => *left > SMALL as u64,
            // Unknown: a large buffer once a small one has been filled.
            Body::Chunked(decoder) => decoder.data > SMALL as u64,
            Body::Done => false,
        };
        let state = self.state;
        let read = poll_fn(|cx| {
            let filled = if long {
                poll_fill_long(cx, self.client, self.input, self.pool)
            } else {
                poll_fill(cx, self.client, self.input, self.pool)
            };
            if filled.is_pending() {
                state.up.waiting();
            }
            filled
        })
        .await;
        match read {
            Ok(n) if n > 0 => {
                state.up.moved(n);
                Ok(())
            }
            // An upload that is cut off must not look whole to the endpoint.
            _ => Err(Stop::Failed(Error::ClientGone)),
        }
    }

    /// The request is sent. Takes what the client sends next as long as there is room, and notices
    /// when it is gone. A client that only closed its side (half-close) is still owed a response.
    async fn watch(&mut self) -> Error {
        while self.input.is_empty() || self.input.has_room() {
            let read = poll_fn(|cx| poll_fill(cx, self.client, self.input, self.pool));
            match read.await {
                Ok(0) => {
                    io::probe(self.client);
                    break;
                }
                Ok(_) => {}
                Err(_) => return Error::ClientGone,
            }
        }
        self.client_gone().await
    }
}

/// Why sending ended early.
enum Stop {
    Upstream,
    Failed(Error),
}
