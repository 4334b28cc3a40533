//! Reads the body of an HTTP/1.1 request. It passes unchanged, except for chunk extensions and forbidden
//! trailers.

use std::task::{Context, Poll, ready};

use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::request::{BodyLength, RequestInfo};

use crate::config::Limits;
use crate::error::Error;
use crate::runtime::{Buf, BufferPool, SMALL};
use crate::serve::exchange::RequestBody;
use crate::transport::{KEEPALIVE_HALF_CLOSED, Transport, poll_fill, poll_fill_long};

pub struct Http1Body<'a, T> {
    client: &'a T,
    /// Received bytes that have not been processed.
    input: &'a mut Buf,
    pool: &'a BufferPool,
    left: Left,
    max: Option<u64>,
    /// How many bytes at the front of `input` to pass on.
    ready: usize,
    /// Bytes of `input` that belong to the last part, until it is dropped.
    taken: usize,
}

enum Left {
    Nothing,
    Length(u64),
    Chunked(Box<Decoder>),
}

impl<'a, T: Transport> Http1Body<'a, T> {
    pub fn new(
        info: &RequestInfo,
        limits: &Limits,
        client: &'a T,
        input: &'a mut Buf,
        pool: &'a BufferPool,
    ) -> Http1Body<'a, T> {
        let left = match info.body {
            BodyLength::None => Left::Nothing,
            BodyLength::Length(length) => Left::Length(length),
            BodyLength::Chunked => {
                let decoder = Decoder::new(Output::Chunked, limits.head_bytes);
                Left::Chunked(Box::new(decoder.without_trailers_if(info.names_fields)))
            }
        };
        Http1Body { client, input, pool, left, max: limits.body_bytes, ready: 0, taken: 0 }
    }

    /// Whether the whole body has been read and has left the input: what comes next is another request.
    pub fn is_read(&self) -> bool {
        self.is_done() && self.taken == 0
    }

    /// Drops the part that was taken last.
    fn drop_part(&mut self) {
        self.ready = 0;
        self.input.consume(std::mem::take(&mut self.taken));
        // The next part reuses the buffer that was used last, which is in the cache.
        self.input.release(self.pool);
    }

    /// Processes the received bytes of the body, and writes its end to `tail`. Returns how many bytes of
    /// the input these are.
    fn take(&mut self, tail: &mut Vec<u8>) -> Result<usize, Error> {
        let (consumed, done);
        match &mut self.left {
            Left::Nothing => return Ok(0),
            Left::Length(left) => {
                consumed = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                self.ready = consumed;
                *left -= consumed as u64;
                done = *left == 0;
            }
            Left::Chunked(decoder) => {
                let decoded = decoder.decode(self.input.filled_mut()).map_err(Error::BadRequest)?;
                if self.max.is_some_and(|max| decoder.data > max) {
                    return Err(Error::BodyTooLong);
                }
                (consumed, self.ready, done) = (decoded.consumed, decoded.written, decoded.done);
                if done {
                    tail.extend_from_slice(decoder.tail());
                }
            }
        }
        if done {
            self.left = Left::Nothing;
        }
        self.taken = consumed;
        Ok(consumed)
    }
}

impl<T: Transport> RequestBody for Http1Body<'_, T> {
    fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    fn may_exceed(&self, most: u64) -> bool {
        match self.left {
            Left::Nothing => false,
            Left::Length(left) => left > most,
            Left::Chunked(_) => true,
        }
    }

    fn take_ready(&mut self, _: &mut Context<'_>, out: &mut Vec<u8>) -> Result<usize, Error> {
        if self.input.is_empty() {
            return Ok(0);
        }
        let mut tail = Vec::new();
        let consumed = self.take(&mut tail)?;
        out.extend_from_slice(self.in_place());
        out.extend_from_slice(&tail);
        self.drop_part();
        Ok(consumed)
    }

    fn poll_part(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<usize, Error>> {
        let long = match &self.left {
            Left::Nothing => false,
            Left::Length(left) => *left > SMALL as u64,
            // The length is unknown: a large buffer once a small one has been filled.
            Left::Chunked(decoder) => decoder.data > SMALL as u64,
        };
        let read = if long {
            ready!(poll_fill_long(cx, self.client, self.input, self.pool))
        } else {
            ready!(poll_fill(cx, self.client, self.input, self.pool))
        };
        Poll::Ready(match read {
            Ok(n) if n > 0 => self.take(out),
            // A truncated upload must not look complete to the endpoint.
            _ => Err(Error::ClientGone),
        })
    }

    fn in_place(&self) -> &[u8] {
        &self.input.filled()[..self.ready]
    }

    fn part_sent(&mut self, _: usize) {
        self.drop_part();
    }

    async fn client_gone(&self) {
        self.client.failed().await;
    }

    /// Reads what the client sends next while there is room, to notice when it leaves. A client that only
    /// closed its sending side still gets its response, unless `or_closed`.
    async fn watch(&mut self, or_closed: bool) {
        while self.input.is_empty() || self.input.has_room() {
            let read = std::future::poll_fn(|cx| poll_fill(cx, self.client, self.input, self.pool));
            match read.await {
                Ok(0) if or_closed => return,
                Ok(0) => {
                    self.client.set_keepalive(&KEEPALIVE_HALF_CLOSED);
                    break;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
        self.client_gone().await;
    }
}
