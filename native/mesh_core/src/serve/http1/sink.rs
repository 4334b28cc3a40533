//! Sends responses to HTTP/1.1 and HTTP/1.0 clients.

use std::future::poll_fn;

use mesh_wire::chunked::Output;
use mesh_wire::mesh::GO_AHEAD_HEAD;
use mesh_wire::request::RequestInfo;
use mesh_wire::response::{ResponseHead, ResponseInfo, ResponseLength, ResponseOptions};

use crate::error::Error;
use crate::observe::{ServiceCounters, wall_clock};
use crate::runtime::SMALL;
use crate::serve::exchange::{ExchangeState, Part, ResponseSink};
use crate::serve::worker::Worker;
use crate::transport::{Transport, poll_write, write_now};

pub struct Http1Sink<'a, T> {
    pub state: &'a ExchangeState,
    pub worker: &'a Worker,
    pub counters: &'a ServiceCounters,
    pub request: RequestInfo,
    pub client: &'a T,
    /// The head, until it has been sent.
    pub head: Vec<u8>,
    pub status: u16,
    /// The body has no length and is chunked here, so that the client can tell its end from a broken
    /// connection.
    pub makes_chunks: bool,
    /// The client may send another request on its connection.
    pub keep_alive: bool,
    /// A peer waits for word that an endpoint has been found.
    pub asks_to_go: bool,
}

impl<T: Transport> ResponseSink for Http1Sink<'_, T> {
    const QUEUES: bool = false;

    fn head(&mut self, head: &ResponseHead<'_, '_>) -> Result<(), Error> {
        let info = head.info;
        if info.status == 101 && !(self.request.websocket && info.websocket) {
            return Err(Error::BadResponse("it switches to a protocol that was not requested"));
        }
        let to = self.downstream(&info);
        self.status = info.status;
        self.keep_alive = to.keep_alive;
        self.makes_chunks = to.chunked && info.body == ResponseLength::Close;
        self.head.clear();
        head.write(to, &mut self.head);
        Ok(())
    }

    const OF_PEER: bool = T::IS_PEER;

    async fn checked_out(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.asks_to_go) {
            return Ok(());
        }
        self.head.clear();
        self.head.extend_from_slice(GO_AHEAD_HEAD);
        self.write(b"", b"", b"").await?;
        self.state.response_started.set(None);
        Ok(())
    }

    async fn interim(&mut self) -> Result<(), Error> {
        // RFC 9110 section 15.2: an HTTP/1.0 client does not know interim responses.
        if self.request.minor > 0 {
            self.write(b"", b"", b"").await?;
            self.state.response_started.set(None);
        }
        Ok(())
    }

    async fn part(&mut self, data: &[u8], part: Part<'_>) -> Result<(), Error> {
        match part {
            Part::More if self.makes_chunks && !data.is_empty() => {
                let size = format!("{:x}\r\n", data.len());
                self.write(size.as_bytes(), data, b"\r\n").await
            }
            Part::Last if self.makes_chunks => self.write(b"", data, b"0\r\n\r\n").await,
            Part::More | Part::Last => self.write(b"", data, b"").await,
            Part::LastChunk(decoder) => self.write(b"", data, decoder.tail()).await,
        }
    }

    fn output(&self) -> Output {
        if self.request.minor > 0 { Output::Chunked } else { Output::Data }
    }
}

impl<T: Transport> Http1Sink<'_, T> {
    /// How to frame the response, and whether the client's connection persists.
    fn downstream(&self, info: &ResponseInfo) -> ResponseOptions {
        let minor = self.request.minor;
        let open_ended = matches!(info.body, ResponseLength::Chunked | ResponseLength::Close);
        ResponseOptions {
            minor,
            chunked: open_ended && minor > 0,
            keep_alive: self.request.keep_alive
                && !(open_ended && minor == 0)
                // The client still sends what the endpoint no longer reads.
                && self.state.request_sent.get()
                && !self.worker.lame_duck.is_raised(),
            timing: self.state.server_timing(),
            date: wall_clock::http_date,
        }
    }

    /// Writes the head, unless it has been sent, then `before`, `data` and `after`.
    async fn write(&mut self, before: &[u8], data: &[u8], after: &[u8]) -> Result<(), Error> {
        self.state.sent(self.counters, before.len() + data.len() + after.len());
        // Copying small parts is cheaper than gathering them.
        self.head.extend_from_slice(before);
        let parts = if data.len() <= SMALL {
            self.head.extend_from_slice(data);
            self.head.extend_from_slice(after);
            [&self.head[..], b"", b""]
        } else {
            [&self.head[..], data, after]
        };
        let rest = self.write_now(parts)?;
        if !is_empty(rest) {
            self.write_all(rest).await?;
        }
        if T::IS_PEER {
            self.flush().await?;
        }
        self.state.stopwatch.wrote();
        self.head.clear();
        Ok(())
    }

    /// Writes several slices, in one system call if the socket accepts them.
    async fn write_all(&self, mut parts: [&[u8]; 3]) -> Result<(), Error> {
        while !is_empty(parts) {
            let n = poll_fn(|cx| {
                let polled = poll_write(cx, self.client, parts);
                if polled.is_pending() {
                    self.state.down.waiting();
                }
                polled
            });
            parts = self.wrote(parts, n.await.map_err(|_| Error::ClientGone)?);
        }
        Ok(())
    }

    /// Waits for a client that encrypts to send what it has accepted.
    async fn flush(&self) -> Result<(), Error> {
        poll_fn(|cx| self.client.poll_flush(cx)).await.map_err(|_| Error::ClientGone)
    }

    /// Writes what the client accepts at once. Returns the rest.
    fn write_now<'p>(&self, parts: [&'p [u8]; 3]) -> Result<[&'p [u8]; 3], Error> {
        if is_empty(parts) {
            return Ok(parts);
        }
        let written = write_now(self.client, parts).map_err(|_| Error::ClientGone)?;
        Ok(written.map_or(parts, |n| self.wrote(parts, n)))
    }

    /// Records that the client accepted `n` bytes. Returns the rest.
    fn wrote<'p>(&self, mut parts: [&'p [u8]; 3], mut n: usize) -> [&'p [u8]; 3] {
        self.state.down.moved(n);
        self.state.response_started.set(Some(self.status));
        for part in &mut parts {
            let requests = n.min(part.len());
            *part = &part[requests..];
            n -= requests;
        }
        parts
    }
}

fn is_empty(parts: [&[u8]; 3]) -> bool {
    parts.iter().all(|part| part.is_empty())
}
