//! One request to an endpoint: a byte stream of HTTP/1.1 to the exchange, a stream of HTTP/2 to the endpoint.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::h2::client::ResponseFuture;
use ::h2::{Error, Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Method};
use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::head::{HeadEnd, HeadScan};
use mesh_wire::request::BodyLength;

use super::connection::{H2Connection, Place};
use super::failure::Failure;
use super::request::Asked;
use super::response_bytes::ResponseBytes;
use super::{request, response};
use crate::transport::Transport;

/// How much of interim responses is collected for one read. Of a body it is the endpoint's window, and at most five
/// times as much for the framing of bytes that come one by one.
const GATHER: usize = 64 * 1024;
/// How much of a request is kept in case the endpoint does not begin with it. A longer one is not sent again.
const MAX_KEPT: usize = 64 * 1024;
/// Fits the head and the message of most calls.
const USUAL: usize = 2 * 1024;
/// The framing of a chunked body that is read beyond the endpoint's window.
const FRAMING: usize = 1024;

pub struct H2Stream {
    /// Declared before the place: the stream ends before its place is free.
    up: RefCell<Up>,
    down: RefCell<Down>,
    failure: Cell<Option<Failure>>,
    place: Place,
}

/// The request.
struct Up {
    /// `None` before the head has been sent.
    stream: Option<SendStream<Bytes>>,
    is_sent: bool,
    body: Body,
    /// The endpoint's window had room for a part of the body.
    has_begun_body: bool,
    /// It had room for a part of the last write.
    had_window: bool,
    /// What was written, until the endpoint has begun with the request.
    kept: Option<Vec<u8>>,
    /// The last part was not accepted whole.
    is_partial: bool,
    /// How many bytes the last write had no room for.
    wanted: usize,
    is_broken: bool,
}

enum Body {
    Ended,
    Length(u64),
    Chunked(Box<Decoder>),
    /// The bytes of a WebSocket, as they are.
    Tunnel,
}

/// The response.
struct Down {
    source: Source,
    out: ResponseBytes,
    /// Bytes of the body so far.
    data: u64,
    /// How many it has, where the head tells.
    length: Option<u64>,
    /// The exchange waits for the response.
    is_awaited: bool,
    is_head: bool,
    is_chunked: bool,
    /// The request asks for a WebSocket, see [`Asked`].
    accept: Option<String>,
    /// The task that waits for the response of a request that has not been sent.
    waits: Option<Waker>,
}

enum Source {
    NotSent,
    Head(ResponseFuture),
    Body(RecvStream),
    Ended,
}

impl H2Stream {
    pub fn new(connection: &Rc<H2Connection>) -> H2Stream {
        let up = Up {
            stream: None,
            is_sent: false,
            body: Body::Ended,
            has_begun_body: false,
            had_window: false,
            kept: Some(Vec::new()),
            is_partial: false,
            wanted: 1,
            is_broken: false,
        };
        let down = Down {
            source: Source::NotSent,
            out: ResponseBytes::default(),
            data: 0,
            length: None,
            is_awaited: false,
            is_head: false,
            is_chunked: false,
            accept: None,
            waits: None,
        };
        H2Stream {
            up: RefCell::new(up),
            down: RefCell::new(down),
            failure: Cell::new(None),
            place: Place::new(connection),
        }
    }

    /// Why the stream has failed.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get()
    }

    /// The request as far as it was written, if the endpoint has not begun with it. `Some(None)`: it is not whole.
    pub fn unprocessed_request(&self) -> Option<Option<Vec<u8>>> {
        if self.failure.get() != Some(Failure::Unprocessed) {
            return None;
        }
        let up = &mut *self.up.borrow_mut();
        Some(up.kept.take().filter(|_| !up.is_partial))
    }

    /// Resets the stream with the code of the client's reset.
    pub fn reset(&self, code: u32) {
        if let Some(stream) = &mut self.up.borrow_mut().stream {
            stream.send_reset(Reason::from(code));
        }
    }

    fn fail(&self, failure: Failure) {
        if self.failure.get().is_none() {
            self.failure.set(Some(failure));
        }
    }

    /// Sends the request whose head, and perhaps more, is in `bytes`. Returns the size of the head.
    fn begin(&self, bytes: &[u8], up: &mut Up) -> Result<usize, Failure> {
        let HeadEnd::Whole(size) = HeadScan::default().find(bytes) else {
            return Err(Failure::Request("the request head is malformed"));
        };
        let asked = request::read(&bytes[..size]).map_err(Failure::Request)?;
        let Asked { request, body, accept } = asked;
        up.body = match body {
            _ if accept.is_some() => Body::Tunnel,
            BodyLength::None | BodyLength::Length(0) => Body::Ended,
            BodyLength::Length(length) => Body::Length(length),
            // Its trailers were limited on the way here.
            BodyLength::Chunked => Body::Chunked(Box::new(Decoder::new(Output::Data, usize::MAX))),
        };
        let ends = matches!(up.body, Body::Ended);
        let is_head = request.method() == Method::HEAD;
        if response::is_grpc(request.headers()) {
            self.place.0.is_grpc.set(true);
        }
        let sent = self.place.0.requests.clone().send_request(request, ends);
        let (response, stream) = sent.map_err(|error| match error.reason() {
            // The connection has ended meanwhile.
            _ if error.is_go_away() || error.is_io() => Failure::Unprocessed,
            _ => Failure::of(&error),
        })?;
        self.place.opened(response.stream_id().as_u32());
        up.stream = Some(stream);
        let down = &mut *self.down.borrow_mut();
        (down.source, down.is_head) = (Source::Head(response), is_head);
        down.accept = accept;
        if let Some(waits) = down.waits.take() {
            waits.wake();
        }
        Ok(size)
    }

    /// Takes what has arrived of the response.
    fn gather(&self, cx: &mut Context<'_>, down: &mut Down) {
        loop {
            match &mut down.source {
                Source::Head(_) if down.out.len() >= GATHER => return,
                Source::NotSent => {
                    down.waits = Some(cx.waker().clone());
                    return;
                }
                Source::Head(future) => {
                    if let Poll::Ready(Some(Ok(head))) = future.poll_informational(cx) {
                        response::interim(&head, down.out.text());
                        continue;
                    }
                    match Pin::new(future).poll(cx) {
                        Poll::Pending => return,
                        Poll::Ready(Ok(head)) => self.head(down, head.into_parts()),
                        Poll::Ready(Err(error)) => self.ended(down, Some(&error)),
                    }
                }
                Source::Body(body) => match body.poll_data(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(data))) => {
                        down.data += data.len() as u64;
                        response::data(data, down.is_chunked, &mut down.out);
                    }
                    Poll::Ready(Some(Err(error))) => self.ended(down, Some(&error)),
                    Poll::Ready(None) => match body.poll_trailers(cx) {
                        Poll::Pending => return,
                        Poll::Ready(Ok(trailers)) => {
                            response::end(trailers.as_ref(), down.is_chunked, &mut down.out);
                            self.ended(down, None);
                        }
                        Poll::Ready(Err(error)) => self.ended(down, Some(&error)),
                    },
                },
                Source::Ended => return,
            }
        }
    }

    fn head(&self, down: &mut Down, (head, body): (http::response::Parts, RecvStream)) {
        let up = &mut *self.up.borrow_mut();
        up.kept = None;
        let ends = body.is_end_stream() || self.place.is_one_head();
        let all = &head.headers;
        down.length = response::length(head.status, all, down.is_head);
        match down.accept.take() {
            Some(accept) if head.status.is_success() => {
                response::switch(all, &accept, down.out.text());
            }
            refused => {
                if refused.is_some() {
                    // Fails only if the stream has ended.
                    let _ = up.close();
                }
                let out = down.out.text();
                down.is_chunked = response::head(head.status, all, down.is_head, ends, out);
            }
        }
        down.source = if ends { Source::Ended } else { Source::Body(body) };
    }

    fn ended(&self, down: &mut Down, error: Option<&Error>) {
        if let (Some(error), Source::Body(_)) = (error, &down.source)
            && Failure::of(error) == Failure::Closed
            && self.place.is_whole(down.data)
        {
            // The connection has ended after it.
            response::end(None, down.is_chunked, &mut down.out);
        } else if let Some(error) = error {
            let failure = match (Failure::of(error), &down.source) {
                (Failure::Reset(Reason::REFUSED_STREAM), Source::Head(_)) => Failure::Unprocessed,
                // A GOAWAY contradicts the response: a client must not hear that it may repeat the request.
                (Failure::Unprocessed, Source::Body(_)) => Failure::Invalid,
                // Another connection would fare no better.
                (Failure::Closed, _) if self.place.is_at_fault() => Failure::Invalid,
                (failure, _) => failure,
            };
            if failure == Failure::Invalid {
                self.place.0.note_malformed();
            }
            self.fail(failure);
        }
        down.source = Source::Ended;
    }
}

impl Drop for H2Stream {
    /// Counts a stream that h2 resets because it is dropped.
    fn drop(&mut self) {
        let (up, down) = (self.up.get_mut(), self.down.get_mut());
        let Some(stream) = up.stream.take() else { return };
        let connection = &self.place.0;
        let is_sent = matches!(up.body, Body::Ended);
        let is_reset =
            match (std::mem::replace(&mut down.source, Source::Ended), self.failure.get()) {
                (_, Some(failure)) => matches!(failure, Failure::Invalid | Failure::Request(_)),
                (Source::Ended, None) => !is_sent,
                (Source::Body(body), None) if is_sent && body.is_end_stream() => false,
                (Source::Body(body), None) if is_sent && down.length == Some(down.data) => {
                    !connection.let_end(body, stream)
                }
                _ => true,
            };
        if is_reset {
            connection.note_reset();
        }
    }
}

impl Transport for H2Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let down = &mut *self.down.borrow_mut();
        if down.out.is_empty() {
            self.gather(cx, down);
        }
        let is_over = matches!(down.source, Source::Ended) || self.failure.get().is_some();
        down.is_awaited = down.out.is_empty() && !is_over;
        if down.is_awaited { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// In h2 small frames take many times as much memory as here. A connection has a bound of that, which clients who
    /// do not read must not reach for others.
    fn read_ahead(&self, cx: &mut Context<'_>) {
        let down = &mut *self.down.borrow_mut();
        if !down.is_awaited {
            self.gather(cx, down);
        }
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let down = &mut *self.down.borrow_mut();
        if down.out.is_empty() && !into.is_empty() {
            return match (&down.source, self.failure.get()) {
                (_, Some(_)) => Err(ErrorKind::ConnectionReset.into()),
                (Source::Ended, None) => Ok(0),
                _ => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let (read, freed) = down.out.read(into);
        if let Source::Body(body) = &mut down.source
            && freed > 0
        {
            // Fails only if the stream has ended.
            let _ = body.flow_control().release_capacity(freed);
        }
        Ok(read)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let up = &mut *self.up.borrow_mut();
        let Some(stream) = &mut up.stream else { return Poll::Ready(Ok(())) };
        if up.is_broken || self.failure.get().is_some() {
            return Poll::Ready(Ok(()));
        }
        stream.reserve_capacity(up.wanted);
        while stream.capacity() == 0 {
            match stream.poll_capacity(cx) {
                Poll::Pending => {
                    if !up.has_begun_body {
                        self.place.0.window_is_missing();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(_))) => {}
                // The next write fails.
                Poll::Ready(_) => {
                    up.is_broken = true;
                    break;
                }
            }
        }
        if stream.capacity() > 0 {
            up.has_begun_body = true;
            self.place.0.window_has_come();
        }
        Poll::Ready(Ok(()))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let up = &mut *self.up.borrow_mut();
        if !std::mem::replace(&mut up.is_sent, true) {
            let size = match self.begin(bytes, up) {
                Ok(size) => size,
                Err(failure) => {
                    self.fail(failure);
                    up.keep(bytes);
                    // The response tells.
                    return Ok(bytes.len());
                }
            };
            up.keep(&bytes[..size]);
            let more = match &bytes[size..] {
                [] => 0,
                more => up.write(more).unwrap_or(0),
            };
            return Ok(size + more);
        }
        if self.failure.get().is_some() {
            up.is_partial = true;
            return Err(ErrorKind::BrokenPipe.into());
        }
        let written = up.write(bytes);
        if up.had_window {
            self.place.0.window_has_come();
        }
        written
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        self.up.borrow_mut().close()
    }

    fn reset_code(&self) -> Option<u32> {
        match self.failure.get() {
            Some(Failure::Reset(code)) if code != Reason::NO_ERROR => Some(code.into()),
            _ => None,
        }
    }
}

impl Up {
    /// Sends a part of the body.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.send(bytes);
        let n = *written.as_ref().unwrap_or(&0);
        self.is_partial = n < bytes.len();
        self.keep(&bytes[..n]);
        match written {
            Ok(0) if !bytes.is_empty() => {
                self.wanted = bytes.len();
                Err(ErrorKind::WouldBlock.into())
            }
            Err(_) => {
                self.is_broken = true;
                Err(ErrorKind::BrokenPipe.into())
            }
            written => written,
        }
    }

    /// Sends what the endpoint's window and the queue have room for. Returns how many of the bytes that took.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.is_broken) else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        stream.reserve_capacity(bytes.len());
        let room = stream.capacity().min(bytes.len());
        self.had_window = room > 0;
        self.has_begun_body |= self.had_window;
        let gone = |_: Error| io::Error::from(ErrorKind::BrokenPipe);
        match &mut self.body {
            // Nothing follows the end.
            Body::Ended => Err(ErrorKind::InvalidInput.into()),
            Body::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(room);
                if n > 0 {
                    *left -= n as u64;
                    let ends = *left == 0;
                    stream.send_data(Bytes::copy_from_slice(&bytes[..n]), ends).map_err(gone)?;
                    if ends {
                        self.body = Body::Ended;
                    }
                }
                Ok(n)
            }
            Body::Chunked(decoder) => {
                // The end of a body needs no window.
                let mut data = bytes[..bytes.len().min(room + FRAMING)].to_vec();
                let decoded = decoder.decode_up_to(&mut data, room);
                let decoded = decoded.map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
                data.truncate(decoded.written);
                let trailers = if decoded.done { trailers(decoder) } else { None };
                let ends = decoded.done && trailers.is_none();
                if ends || !data.is_empty() {
                    stream.send_data(data.into(), ends).map_err(gone)?;
                }
                if let Some(trailers) = trailers {
                    stream.send_trailers(trailers).map_err(gone)?;
                }
                if decoded.done {
                    self.body = Body::Ended;
                }
                Ok(decoded.consumed)
            }
            Body::Tunnel => {
                if room > 0 {
                    stream
                        .send_data(Bytes::copy_from_slice(&bytes[..room]), false)
                        .map_err(gone)?;
                }
                Ok(room)
            }
        }
    }

    /// Ends the client's side of a WebSocket. Other requests end with their body.
    fn close(&mut self) -> io::Result<()> {
        if let (Body::Tunnel, Some(stream)) = (&self.body, &mut self.stream) {
            let sent = stream.send_data(Bytes::new(), true);
            self.body = Body::Ended;
            sent.map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        match &mut self.kept {
            Some(kept) if kept.len() + bytes.len() <= MAX_KEPT => {
                if kept.is_empty() {
                    kept.reserve(USUAL.max(bytes.len()));
                }
                kept.extend_from_slice(bytes);
            }
            kept => *kept = None,
        }
    }
}

fn trailers(decoder: &Decoder) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for (name, value) in decoder.trailers() {
        // Those without a form in HTTP/2 may be dropped (RFC 9110 section 6.5.1).
        let _ = request::append(&mut fields, name, value);
    }
    Some(fields).filter(|fields| !fields.is_empty())
}
