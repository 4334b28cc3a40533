//! From the endpoint to the client.

use std::future::poll_fn;

use tokio::net::TcpStream;

use super::State;
use crate::buffer::{Buf, SMALL};
use crate::error::Error;
use crate::http1::chunked::{Decoder, Output};
use crate::http1::head::{self, Found, HeadScan};
use crate::http1::request::{Method, RequestInfo};
use crate::http1::response::{self, BodyLength, Downstream, ResponseHead, ResponseInfo, Timing};
use crate::io::{Stream, fill, poll_fill_long, poll_write, write_now};
use crate::stats::ServiceCounters;
use crate::worker::Worker;

/// More interim responses than this to one request are a flood.
pub const MAX_INTERIM: usize = 32;

pub struct Downlink<'a> {
    pub state: &'a State,
    pub worker: &'a Worker,
    pub counters: &'a ServiceCounters,
    pub info: RequestInfo,
    pub upstream: &'a Stream,
    pub received: &'a mut Buf,
    pub client: &'a TcpStream,
    pub reply: &'a mut Vec<u8>,
    /// Of the response that is being passed on.
    pub status: u16,
}

/// A response that was passed on whole.
pub struct Passed {
    pub status: u16,
    pub upstream_keep_alive: bool,
    /// The client may send another request on its connection.
    pub keep_alive: bool,
}

impl Downlink<'_> {
    pub async fn run(&mut self) -> Result<Passed, Error> {
        let mut interim = 0;
        loop {
            self.reply.clear();
            let (info, to) = self.read_head().await?;
            self.status = info.status;
            match info.status {
                101 => {
                    self.write_reply().await?;
                    return Ok(Passed {
                        status: 101,
                        upstream_keep_alive: false,
                        keep_alive: false,
                    });
                }
                100..=199 => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(Error::BadResponse("there is no end of interim responses"));
                    }
                    // RFC 9110 section 15.2: an HTTP/1.0 client knows none of them.
                    if self.info.minor > 0 {
                        self.write_reply().await?;
                        self.state.response_started.set(None);
                    }
                }
                status => {
                    self.pass_body(&info).await?;
                    return Ok(Passed {
                        status,
                        upstream_keep_alive: info.keep_alive,
                        keep_alive: to.keep_alive,
                    });
                }
            }
        }
    }

    /// Reads a head and writes it into `reply`.
    async fn read_head(&mut self) -> Result<(ResponseInfo, Downstream), Error> {
        let Downlink { state, worker, info: request, upstream, received, reply, .. } = self;
        let (state, worker, request) = (*state, *worker, *request);
        let taken = read_head(upstream, received, worker, state, request.method, |head| {
            let info = head.info;
            if info.status == 101 && !(request.websocket && info.websocket) {
                return Err(Error::BadResponse("it switches to a protocol nobody asked for"));
            }
            let to = downstream(&request, &info, state, worker);
            head.write(to, reply);
            Ok((info, to))
        });
        taken.await
    }

    async fn pass_body(&mut self, info: &ResponseInfo) -> Result<(), Error> {
        match info.body {
            BodyLength::None => self.write_reply().await,
            BodyLength::Length(length) => self.pass_length(length).await,
            BodyLength::Chunked => self.pass_chunked(info.names_fields).await,
            BodyLength::Close => self.pass_until_close().await,
        }
    }

    async fn pass_length(&mut self, mut left: u64) -> Result<(), Error> {
        loop {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.received.len());
            left -= n as u64;
            self.write_part(n, n, b"", b"").await?;
            if left == 0 {
                return Ok(());
            }
            if self.read_body(left > SMALL as u64).await? == 0 {
                return Err(Error::UpstreamClosed);
            }
        }
    }

    async fn pass_chunked(&mut self, names_fields: bool) -> Result<(), Error> {
        let output = if self.info.minor > 0 { Output::Chunked } else { Output::Data };
        let decoder = Decoder::new(output, self.worker.shared.config.limits.head_bytes);
        let mut decoder = decoder.without_trailers_if(names_fields).with_padded_sizes();
        loop {
            let decoded = decoder.decode(self.received.filled_mut()).map_err(Error::BadResponse)?;
            let tail = if decoded.done { decoder.tail() } else { b"" };
            self.write_part(decoded.consumed, decoded.written, b"", tail).await?;
            if decoded.done {
                return Ok(());
            }
            if self.read_body(decoder.data > SMALL as u64).await? == 0 {
                return Err(Error::UpstreamClosed);
            }
        }
    }

    /// A body without a length of its own becomes a chunked one, so that the client can tell its
    /// end from a broken connection.
    async fn pass_until_close(&mut self) -> Result<(), Error> {
        let chunked = self.info.minor > 0;
        loop {
            let n = self.received.len();
            if chunked && n > 0 {
                let size = format!("{n:x}\r\n");
                self.write_part(n, n, size.as_bytes(), b"\r\n").await?;
            } else {
                self.write_part(n, n, b"", b"").await?;
            }
            if self.read_body(false).await? == 0 {
                let end: &[u8] = if chunked { b"0\r\n\r\n" } else { b"" };
                return self.write_part(0, 0, b"", end).await;
            }
        }
    }

    async fn read_body(&mut self, long: bool) -> Result<usize, Error> {
        let pool = &self.worker.buffers;
        let read = if long {
            poll_fn(|cx| poll_fill_long(cx, self.upstream, self.received, pool)).await
        } else {
            fill(self.upstream, self.received, pool).await
        };
        read.map_err(|_| Error::UpstreamClosed)
    }

    async fn write_reply(&mut self) -> Result<(), Error> {
        self.write_part(0, 0, b"", b"").await
    }

    /// Writes what is in `reply`, then `before`, the first `written` received bytes, and `after`;
    /// then forgets the first `consumed` received bytes.
    async fn write_part(
        &mut self,
        consumed: usize,
        written: usize,
        before: &[u8],
        after: &[u8],
    ) -> Result<(), Error> {
        let part = &self.received.filled()[..written];
        self.state.sent(self.counters, before.len() + written + after.len());
        // Small parts are cheaper to copy than to gather.
        self.reply.extend_from_slice(before);
        let parts = if written <= SMALL {
            self.reply.extend_from_slice(part);
            self.reply.extend_from_slice(after);
            [&self.reply[..], b"", b""]
        } else {
            [&self.reply[..], part, after]
        };
        let rest = self.write_now(parts)?;
        if !is_empty(rest) {
            self.write_all(rest).await?;
        }
        self.state.marks.wrote();
        self.reply.clear();
        self.received.consume(consumed);
        self.received.give_back(&self.worker.buffers);
        Ok(())
    }

    /// Writes several slices, in one system call where the socket takes them.
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

    /// Writes what the client takes at once; what is left of it.
    fn write_now<'p>(&self, parts: [&'p [u8]; 3]) -> Result<[&'p [u8]; 3], Error> {
        if is_empty(parts) {
            return Ok(parts);
        }
        let written = write_now(self.client, parts).map_err(|_| Error::ClientGone)?;
        Ok(written.map_or(parts, |n| self.wrote(parts, n)))
    }

    /// The client has taken so many bytes; what is left.
    fn wrote<'p>(&self, mut parts: [&'p [u8]; 3], mut n: usize) -> [&'p [u8]; 3] {
        self.state.down.moved(n);
        self.state.response_started.set(Some(self.status));
        for part in &mut parts {
            let taken = n.min(part.len());
            *part = &part[taken..];
            n -= taken;
        }
        parts
    }
}

fn is_empty(parts: [&[u8]; 3]) -> bool {
    parts.iter().all(|part| part.is_empty())
}

/// Reads until there is a whole head, and hands it to `take`, once.
pub async fn read_head<T>(
    upstream: &Stream,
    received: &mut Buf,
    worker: &Worker,
    state: &State,
    method: Method,
    mut take: impl FnMut(&ResponseHead<'_, '_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let limits = &worker.shared.config.limits;
    let most = limits.head_bytes;
    // Endpoints are granted more fields than clients, within reason.
    let most_fields = limits.header_count.max(256);
    let mut look = |received: &mut Buf| {
        let mut storage = head::storage();
        let parsed = response::parse(received.filled(), &mut storage, most_fields, method)?;
        let Some(head) = parsed else { return Ok(None) };
        if head.info.status >= 200 || head.info.status == 101 {
            state.marks.response_head_read();
        }
        let taken = take(&head)?;
        if head.info.status >= 200 {
            state.response_deadline.set(None);
        }
        let size = head.size();
        received.consume(size);
        Ok(Some(taken))
    };
    let mut scan = HeadScan::default();
    let mut looked = false;
    loop {
        if !received.is_empty() {
            // Mostly a head comes whole, and the parser finds its end.
            if !looked && let Some(taken) = look(received)? {
                return Ok(taken);
            }
            looked = true;
            match scan.find(received.filled()) {
                Found::BareLf => return Err(Error::BadResponse("a line does not end with CRLF")),
                Found::Whole(_) => {
                    return look(received)?.ok_or(Error::BadResponse("the head is malformed"));
                }
                // Nobody is to wait for the rest of a response that is wrong already.
                Found::Partial { new_line: true } => {
                    let mut storage = head::storage();
                    response::parse(received.filled(), &mut storage, most_fields, method)?;
                }
                Found::Partial { new_line: false } => {}
            }
            if received.len() >= most || !received.make_room(most) {
                return Err(Error::BadResponse("the head is too long"));
            }
        }
        match fill(upstream, received, &worker.buffers).await {
            Ok(n) if n > 0 => state.upstream_spoke.set(true),
            _ => return Err(Error::UpstreamClosed),
        }
    }
}

/// What `Server-Timing` is to say, if it is wanted.
pub fn timing(state: &State, worker: &Worker) -> Option<Timing> {
    worker.shared.config.server_timing.then(|| state.marks.timing())
}

/// How the response is framed for the client, and whether its connection goes on.
fn downstream(
    request: &RequestInfo,
    info: &ResponseInfo,
    state: &State,
    worker: &Worker,
) -> Downstream {
    let minor = request.minor;
    let open_ended = matches!(info.body, BodyLength::Chunked | BodyLength::Close);
    Downstream {
        minor,
        chunked: open_ended && minor > 0,
        keep_alive: request.keep_alive
            && !(open_ended && minor == 0)
            // The client is still sending what the endpoint no longer waits for.
            && state.request_sent.get()
            && !worker.retiring.get(),
        timing: timing(state, worker),
    }
}
