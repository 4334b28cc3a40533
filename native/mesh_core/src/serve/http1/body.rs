//! The body of a request over HTTP/1.1: it passes as it came, but for chunk extensions and some trailers.

use std::task::{Context, Poll, ready};

use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::request::{BodyLength, RequestInfo};

use crate::config::Limits;
use crate::error::Error;
use crate::runtime::{Buf, BufferPool, SMALL};
use crate::serve::exchange::RequestBody;
use crate::upstream::transport::{HALF_CLOSED, Transport, poll_fill, poll_fill_long};

pub struct Body<'a, T> {
    client: &'a T,
    /// What the client has sent and nothing has taken yet.
    input: &'a mut Buf,
    pool: &'a BufferPool,
    left: Left,
    most: Option<u64>,
    /// Bytes at the front of `input` that are to be passed on.
    ready: usize,
}

/// What is still to come.
enum Left {
    Nothing,
    Length(u64),
    Chunked(Box<Decoder>),
}

impl<'a, T: Transport> Body<'a, T> {
    pub fn new(
        info: &RequestInfo,
        limits: &Limits,
        client: &'a T,
        input: &'a mut Buf,
        pool: &'a BufferPool,
    ) -> Body<'a, T> {
        let left = match info.body {
            BodyLength::None => Left::Nothing,
            BodyLength::Length(length) => Left::Length(length),
            BodyLength::Chunked => {
                let decoder = Decoder::new(Output::Chunked, limits.head_bytes);
                Left::Chunked(Box::new(decoder.without_trailers_if(info.names_fields)))
            }
        };
        Body { client, input, pool, left, most: limits.body_bytes, ready: 0 }
    }

    /// Takes what has come of the body; how many bytes of the input that is. What ends it goes to `tail`.
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
                if self.most.is_some_and(|most| decoder.data > most) {
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
        Ok(consumed)
    }
}

impl<T: Transport> RequestBody for Body<'_, T> {
    fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    fn take_ready(&mut self, _: &mut Context<'_>, out: &mut Vec<u8>) -> Result<usize, Error> {
        if self.input.is_empty() {
            return Ok(0);
        }
        let mut tail = Vec::new();
        let consumed = self.take(&mut tail)?;
        out.extend_from_slice(self.in_place());
        out.extend_from_slice(&tail);
        self.ready = 0;
        Ok(consumed)
    }

    fn poll_part(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<usize, Error>> {
        let long = match &self.left {
            Left::Nothing => false,
            Left::Length(left) => *left > SMALL as u64,
            // Unknown: a large buffer once a small one has been filled.
            Left::Chunked(decoder) => decoder.data > SMALL as u64,
        };
        let read = if long {
            ready!(poll_fill_long(cx, self.client, self.input, self.pool))
        } else {
            ready!(poll_fill(cx, self.client, self.input, self.pool))
        };
        Poll::Ready(match read {
            Ok(n) if n > 0 => self.take(out),
            // An upload that is cut off must not look whole to the endpoint.
            _ => Err(Error::ClientGone),
        })
    }

    fn in_place(&self) -> &[u8] {
        &self.input.filled()[..self.ready]
    }

    fn release(&mut self, bytes: usize) {
        self.ready = 0;
        self.input.consume(bytes);
        // The next part goes through the buffer that was used last, which is in the cache.
        self.input.give_back(self.pool);
    }

    async fn client_gone(&self) {
        self.client.failed().await;
    }

    /// Takes what the client sends next as long as there is room, and notices when it is gone. A client that
    /// only closed its side (half-close) still gets its response.
    async fn watch(&mut self) {
        while self.input.is_empty() || self.input.has_room() {
            let read = std::future::poll_fn(|cx| poll_fill(cx, self.client, self.input, self.pool));
            match read.await {
                Ok(0) => {
                    self.client.keep_alive(&HALF_CLOSED);
                    break;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
        self.client_gone().await;
    }
}
