//! Passes responses from the endpoint to the client.

use std::future::poll_fn;
use std::task::{Poll, ready};

use mesh_wire::chunked::Decoder;
use mesh_wire::method::Method;
use mesh_wire::response::{ResponseInfo, ResponseLength};

use super::client::{Part, ResponseSink};
use super::read_head::read_head;
use super::state::ExchangeState;
use crate::config::Limits;
use crate::error::Error;
use crate::runtime::{Buf, BufferPool, SMALL};
use crate::transport::{Transport, fill, poll_fill, poll_fill_long};

const MAX_INTERIM: usize = 32;

pub struct Downlink<'a, T, S> {
    pub state: &'a ExchangeState,
    pub limits: &'a Limits,
    pub pool: &'a BufferPool,
    pub method: Method,
    pub upstream: &'a T,
    pub received: &'a mut Buf,
    pub sink: &'a mut S,
}

/// A response that was passed on completely.
pub struct Passed {
    /// The response was a 101: both connections belong to a tunnel now.
    pub upgraded: bool,
    pub upstream_keep_alive: bool,
}

impl<T: Transport, S: ResponseSink> Downlink<'_, T, S> {
    pub async fn run(&mut self) -> Result<Passed, Error> {
        let mut interim = 0;
        loop {
            let Some(info) = self.read_head().await? else {
                if self.state.goes_ahead.replace(true) {
                    return Err(Error::BadResponse("a peer goes ahead twice"));
                }
                continue;
            };
            match info.status {
                101 => {
                    self.sink.part(b"", Part::More).await?;
                    return Ok(Passed { upgraded: true, upstream_keep_alive: false });
                }
                100..=199 => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(Error::BadResponse("there are too many interim responses"));
                    }
                    self.sink.interim().await?;
                }
                _ => {
                    self.pass_body(&info).await?;
                    let upstream_keep_alive = info.keep_alive;
                    return Ok(Passed { upgraded: false, upstream_keep_alive });
                }
            }
        }
    }

    /// `None` is the word of a peer that the request goes ahead.
    async fn read_head(&mut self) -> Result<Option<ResponseInfo>, Error> {
        let Downlink { state, limits, pool, method, upstream, received, sink } = self;
        read_head(*upstream, received, (limits, pool), state, *method, |head| {
            if state.to_peer() && head.is_go_ahead_of_peer() {
                return Ok(None);
            }
            sink.head(head)?;
            Ok(Some(head.info))
        })
        .await
    }

    async fn pass_body(&mut self, info: &ResponseInfo) -> Result<(), Error> {
        match info.body {
            ResponseLength::None => self.sink.part(b"", Part::Last).await,
            ResponseLength::Length(length) => self.pass_length(length).await,
            ResponseLength::Chunked => self.pass_chunked(info.names_fields).await,
            ResponseLength::Close => self.pass_until_close().await,
        }
    }

    async fn pass_length(&mut self, mut left: u64) -> Result<(), Error> {
        loop {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.received.len());
            left -= n as u64;
            let part = if left == 0 { Part::Last } else { Part::More };
            self.pass_part(n, n, part).await?;
            if left == 0 {
                return Ok(());
            }
            if self.read_body(left > SMALL as u64).await? == 0 {
                return Err(Error::UpstreamClosed);
            }
        }
    }

    async fn pass_chunked(&mut self, names_fields: bool) -> Result<(), Error> {
        let decoder = Decoder::new(self.sink.output(), self.limits.head_bytes);
        let mut decoder = decoder.without_trailers_if(names_fields).with_padded_sizes();
        loop {
            let decoded = decoder.decode(self.received.filled_mut()).map_err(Error::BadResponse)?;
            let part = if decoded.done { Part::LastChunk(&decoder) } else { Part::More };
            self.pass_part(decoded.consumed, decoded.written, part).await?;
            if decoded.done {
                return Ok(());
            }
            if self.read_body(decoder.data > SMALL as u64).await? == 0 {
                return Err(Error::UpstreamClosed);
            }
        }
    }

    async fn pass_until_close(&mut self) -> Result<(), Error> {
        // An end that is known already goes with the head: a gRPC client takes nothing else for a response without
        // a message.
        if self.received.is_empty() && self.has_ended().await? {
            return self.sink.part(b"", Part::Last).await;
        }
        loop {
            let n = self.received.len();
            self.pass_part(n, n, Part::More).await?;
            if self.read_body(false).await? == 0 {
                return self.sink.part(b"", Part::Last).await;
            }
        }
    }

    /// Whether the response is known to have ended. What has arrived of it is read.
    async fn has_ended(&mut self) -> Result<bool, Error> {
        let Downlink { pool, upstream, received, .. } = self;
        let read = poll_fn(|cx| Poll::Ready(poll_fill(cx, *upstream, received, pool))).await;
        match read {
            Poll::Ready(Ok(n)) => Ok(n == 0),
            // The system tells of a reset once, and then of an end as of a whole response.
            Poll::Ready(Err(_)) => Err(Error::UpstreamClosed),
            Poll::Pending => Ok(false),
        }
    }

    async fn read_body(&mut self, long: bool) -> Result<usize, Error> {
        let Downlink { state, pool, upstream, received, sink, .. } = self;
        let read = if long && !S::QUEUES {
            poll_fn(|cx| poll_fill_long(cx, *upstream, received, pool)).await
        } else if !S::QUEUES {
            fill(*upstream, received, pool).await
        } else {
            poll_fn(|cx| {
                ready!(upstream.poll_read_ready(cx))?;
                let room = sink.poll_room(cx);
                if room.is_pending() {
                    state.down.waiting();
                }
                // A failed sink returns its error again for the next part.
                let _ = ready!(room);
                let read = poll_fill(cx, *upstream, received, pool);
                if read.is_pending() {
                    // Nothing arrived after all, for which the client is not to blame.
                    state.down.moved(0);
                }
                read
            })
            .await
        };
        read.map_err(|_| Error::UpstreamClosed)
    }

    /// Passes the first `written` received bytes on, and discards the first `consumed`.
    async fn pass_part(
        &mut self,
        consumed: usize,
        written: usize,
        part: Part<'_>,
    ) -> Result<(), Error> {
        self.sink.part(&self.received.filled()[..written], part).await?;
        self.received.consume(consumed);
        self.received.release(self.pool);
        Ok(())
    }
}
