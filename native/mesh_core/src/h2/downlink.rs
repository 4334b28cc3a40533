//! From the endpoint to the client: a response of HTTP/1.1 becomes the frames of a stream, read no
//! faster than the client takes them.

use std::future::poll_fn;
use std::task::ready;

use http::{HeaderMap, Response, StatusCode, header};

use super::client::Client;
use super::response;
use super::websocket::Key;
use crate::buffer::Buf;
use crate::error::Error;
use crate::exchange::{MAX_INTERIM, State, read_head, timing};
use crate::http1::chunked::{Decoder, Output};
use crate::http1::request::Method;
use crate::http1::response::{BodyLength, ResponseInfo};
use crate::io::{Socket as _, Stream, poll_fill};
use crate::stats::ServiceCounters;
use crate::worker::Worker;

pub struct Downlink<'a> {
    pub state: &'a State,
    pub worker: &'a Worker,
    pub counters: &'a ServiceCounters,
    pub method: Method,
    pub websocket: Option<&'a Key>,
    pub upstream: &'a Stream,
    pub received: &'a mut Buf,
    pub client: &'a Client,
    /// The head of the final response, until something is known of what follows it: until it has
    /// gone the client can still be told that the endpoint failed.
    pub head: Option<Response<()>>,
}

/// A response that was passed on whole.
pub struct Passed {
    pub upstream_keep_alive: bool,
    /// The stream and the upstream connection are a WebSocket's from now on.
    pub is_tunnel: bool,
}

impl Downlink<'_> {
    pub async fn run(mut self) -> Result<Passed, Error> {
        let mut interim = 0;
        loop {
            let (info, head) = self.read_head().await?;
            match info.status {
                101 => {
                    self.head = Some(head);
                    self.send_head(false)?;
                    return Ok(Passed { upstream_keep_alive: false, is_tunnel: true });
                }
                100..=199 => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(Error::BadResponse("there is no end of interim responses"));
                    }
                    self.client.inform(head)?;
                }
                _ => {
                    self.head = Some(head);
                    self.pass_body(&info).await?;
                    let upstream_keep_alive = info.keep_alive;
                    return Ok(Passed { upstream_keep_alive, is_tunnel: false });
                }
            }
        }
    }

    async fn read_head(&mut self) -> Result<(ResponseInfo, Response<()>), Error> {
        let Downlink { websocket: key, upstream, state, worker, method, .. } = *self;
        let taken = read_head(upstream, self.received, worker, state, method, |head| {
            let info = head.info;
            let mut response = response::head(head, timing(state, worker))?;
            match (info.status, key) {
                (101, Some(key)) => switch(key, info, &mut response)?,
                (101, None) => {
                    return Err(Error::BadResponse("it switches to a protocol nobody asked for"));
                }
                // RFC 8441 section 5: to the client it would be a WebSocket.
                (200..=299, Some(_)) => {
                    return Err(Error::BadResponse("it does not switch, and does not say why"));
                }
                _ => {}
            }
            Ok((info, response))
        });
        taken.await
    }

    async fn pass_body(&mut self, info: &ResponseInfo) -> Result<(), Error> {
        match info.body {
            BodyLength::None => self.send_head(true),
            BodyLength::Length(length) => self.pass_length(length).await,
            BodyLength::Chunked => self.pass_chunked(info.names_fields).await,
            BodyLength::Close => self.pass_until_close().await,
        }
    }

    async fn pass_length(&mut self, mut left: u64) -> Result<(), Error> {
        loop {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.received.len());
            left -= n as u64;
            self.pass_part(n, n, left == 0).await?;
            if left == 0 {
                return Ok(());
            }
            if self.read_body().await? == 0 {
                return Err(Error::UpstreamClosed);
            }
        }
    }

    async fn pass_chunked(&mut self, names_fields: bool) -> Result<(), Error> {
        let most = self.worker.shared.config.limits.head_bytes;
        let decoder = Decoder::new(Output::Data, most).without_trailers_if(names_fields);
        let mut decoder = decoder.with_padded_sizes();
        loop {
            let decoded = decoder.decode(self.received.filled_mut()).map_err(Error::BadResponse)?;
            let trailers =
                if decoded.done { response::trailers(&decoder)? } else { HeaderMap::new() };
            let end = decoded.done && trailers.is_empty();
            self.pass_part(decoded.consumed, decoded.written, end).await?;
            if decoded.done {
                return if end { Ok(()) } else { self.client.trailers(trailers) };
            }
            if self.read_body().await? == 0 {
                return Err(Error::UpstreamClosed);
            }
        }
    }

    async fn pass_until_close(&mut self) -> Result<(), Error> {
        loop {
            let n = self.received.len();
            self.pass_part(n, n, false).await?;
            if self.read_body().await? == 0 {
                return self.pass_part(0, 0, true).await;
            }
        }
    }

    /// What the client does not take stays with the endpoint: nothing is read before there is room.
    async fn read_body(&mut self) -> Result<usize, Error> {
        let Downlink { state, worker, upstream, received, client, .. } = self;
        poll_fn(|cx| {
            ready!(upstream.poll_read_ready(cx)).map_err(|_| Error::UpstreamClosed)?;
            let room = client.poll_room(cx, 1);
            if room.is_pending() {
                state.down.waiting();
            }
            ready!(room)?;
            let read = poll_fill(cx, *upstream, received, &worker.buffers);
            if read.is_pending() {
                // Nothing has come after all; the client is not to pay for that.
                state.down.moved(0);
            }
            read.map_err(|_| Error::UpstreamClosed)
        })
        .await
    }

    /// Sends the head, if that has not been done.
    fn send_head(&mut self, end: bool) -> Result<(), Error> {
        let Some(head) = self.head.take() else { return Ok(()) };
        let status = head.status().as_u16();
        self.client.head(head, end)?;
        self.state.response_started.set(Some(status));
        self.state.marks.wrote();
        Ok(())
    }

    /// Passes the first `written` received bytes on, and forgets the first `consumed`.
    async fn pass_part(&mut self, consumed: usize, written: usize, end: bool) -> Result<(), Error> {
        self.send_head(false)?;
        let part = &self.received.filled()[..written];
        if written > 0 || end {
            self.client.data(part, end, &self.state.down).await?;
            self.state.marks.wrote();
        }
        self.state.sent(self.counters, written);
        self.received.consume(consumed);
        self.received.give_back(&self.worker.buffers);
        Ok(())
    }
}

/// Turns an endpoint's 101 into what RFC 8441 section 5 has for it.
fn switch(key: &Key, info: ResponseInfo, response: &mut Response<()>) -> Result<(), Error> {
    // RFC 6455 section 4.1: all three, or it is no WebSocket.
    let accept = response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    let accepted = accept.is_some_and(|accept| key.is_accepted_by(accept.as_bytes()));
    if !info.websocket || !accepted {
        return Err(Error::BadResponse("it switches to a protocol nobody asked for"));
    }
    *response.status_mut() = StatusCode::OK;
    Ok(())
}
