//! From the client to the endpoint: the frames of a stream become a body of HTTP/1.1. What the
//! endpoint has not taken, the client is not asked to send more of (RFC 9113 section 5.2).

use std::future::{pending, poll_fn};
use std::io::Write;
use std::task::{Context, Poll, ready};

use ::h2::RecvStream;
use http::HeaderMap;

use crate::config::Timeouts;
use crate::error::Error;
use crate::exchange::State;
use crate::http1::fields::{forbidden_in_trailer, is_token};
use crate::http1::request::{BodyLength, field};
use crate::io::Stream;
use crate::stats::ServiceCounters;
use crate::timer::{after, deadline};

/// How much of a body is gathered for one write.
const GATHER: usize = 64 * 1024;

pub struct Uplink<'a> {
    pub state: &'a State,
    pub counters: &'a ServiceCounters,
    pub timeouts: &'a Timeouts,
    pub most_body: Option<u64>,
    pub body: &'a mut RecvStream,
    pub length: BodyLength,
    pub upstream: &'a Stream,
    /// Body bytes read so far.
    pub read: u64,
}

impl Uplink<'_> {
    /// Ends only with an error that ends the exchange.
    pub async fn run(mut self, head: &mut Vec<u8>) -> Error {
        match self.send(head).await {
            // Whether the client is still there is watched over the whole exchange.
            Ok(()) => pending().await,
            Err(Stop::Failed(error)) => error,
            Err(Stop::Upstream) => {
                self.state.upstream_write_failed.set(true);
                // Its response, if there is one, is the downlink's to find.
                self.state.expect_response(deadline(self.timeouts.response));
                pending().await
            }
        }
    }

    async fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        let marks = &self.state.marks;
        let mut sent;
        if self.length == BodyLength::None {
            // As it stays: it may be sent a second time.
            self.write(out).await?;
            sent = marks.head_sent(true);
        } else {
            // What has come of the body goes with the head in one write.
            let mut is_last = self.pass_part(out).await?;
            sent = marks.head_sent(is_last);
            while !is_last {
                is_last = self.pass_part(out).await?;
                if is_last {
                    sent = marks.request_sent();
                }
            }
        }
        self.state.request_read.set(true);
        self.state.request_sent.set(true);
        let limit = self.timeouts.response;
        self.state.expect_response(limit.and_then(|limit| after(sent, limit)));
        Ok(())
    }

    async fn write(&self, bytes: &[u8]) -> Result<(), Stop> {
        let written = self.state.write(self.upstream, bytes, self.timeouts.response);
        written.await.map_err(|_| Stop::Upstream)
    }

    /// Writes what is in `out`, and behind it what has come of the body; whether that was all.
    async fn pass_part(&mut self, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let part = poll_fn(|cx| self.poll_part(cx, out)).await.map_err(Stop::Failed)?;
        self.write(out).await?;
        self.state.received(self.counters, part.bytes);
        // Fails only when the client is gone, which others notice.
        let _ = self.body.flow_control().release_capacity(part.bytes);
        out.clear();
        Ok(part.is_last)
    }

    /// Appends what has come of the body to `out`; waits only if there would be nothing to write.
    fn poll_part(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Part, Error>> {
        let mut part = Part { bytes: 0, is_last: false };
        while part.bytes < GATHER {
            match self.poll_frame(cx, &mut part, out) {
                Poll::Ready(Ok(())) if part.is_last => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if out.is_empty() => {
                    self.state.up.waiting();
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        if part.bytes > 0 {
            self.state.up.moved(part.bytes);
        }
        Poll::Ready(Ok(part))
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        part: &mut Part,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), Error>> {
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(data)) => {
                part.bytes += data.len();
                self.read += data.len() as u64;
                if self.most_body.is_some_and(|most| self.read > most) {
                    return Poll::Ready(Err(Error::BodyTooLong));
                }
                match self.length {
                    // An empty chunk would be the last one.
                    BodyLength::Chunked if !data.is_empty() => chunk(&data, out),
                    _ => out.extend_from_slice(&data),
                }
            }
            // An upload that is cut off must not look whole to the endpoint. One that differs from
            // its Content-Length is cut off by h2 (RFC 9113 section 8.1.1).
            Some(Err(_)) => return Poll::Ready(Err(Error::ClientGone)),
            None => {
                let trailers = ready!(self.body.poll_trailers(cx));
                let trailers = trailers.map_err(|_| Error::ClientGone)?;
                if self.length == BodyLength::Chunked {
                    last_chunk(trailers, out);
                }
                part.is_last = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What has been read at once.
struct Part {
    bytes: usize,
    is_last: bool,
}

/// Why sending ended early.
enum Stop {
    Upstream,
    Failed(Error),
}

fn chunk(data: &[u8], out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

fn last_chunk(trailers: Option<HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    let trailers = trailers.iter().flatten();
    let goes_on = |name: &str| is_token(name) && !forbidden_in_trailer(name);
    for (name, value) in trailers.filter(|(name, _)| goes_on(name.as_str())) {
        field(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
