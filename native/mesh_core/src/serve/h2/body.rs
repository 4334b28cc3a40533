//! Turns the DATA frames of a request into an HTTP/1.1 body.
//!
//! The client may send more only after the endpoint has accepted what it sent (RFC 9113 section 5.2).

use std::io::Write;
use std::task::{Context, Poll, ready};

use ::h2::{Reason, RecvStream};
use http::HeaderMap;
use mesh_wire::fields::{forbidden_in_trailer, is_token};
use mesh_wire::lines::field;
use mesh_wire::request::BodyLength;

use super::sender::Sender;
use crate::error::Error;
use crate::serve::exchange::RequestBody;

/// How many bytes to collect for one write.
const GATHER: usize = 64 * 1024;

pub struct H2Body<'a> {
    pub stream: RecvStream,
    pub sender: &'a Sender,
    pub length: BodyLength,
    pub max: Option<u64>,
    pub read: u64,
    pub is_done: bool,
}

impl RequestBody for H2Body<'_> {
    fn is_done(&self) -> bool {
        self.is_done
    }

    fn may_exceed(&self, most: u64) -> bool {
        match self.length {
            _ if self.is_done => false,
            BodyLength::None => false,
            BodyLength::Length(length) => length.saturating_sub(self.read) > most,
            BodyLength::Chunked => true,
        }
    }

    fn take_ready(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<usize, Error> {
        match self.poll_part(cx, out) {
            Poll::Ready(part) => part,
            Poll::Pending => Ok(0),
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<usize, Error>> {
        let mut bytes = 0;
        while bytes < GATHER && !self.is_done {
            match self.poll_frame(cx, out) {
                Poll::Ready(read) => bytes += read?,
                Poll::Pending if bytes == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(bytes))
    }

    fn part_sent(&mut self, bytes: usize) {
        // Fails only if the client is gone, which `client_gone` notices.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }

    fn is_gone(&self, cx: &mut Context<'_>) -> bool {
        self.sender.poll_gone(cx).is_ready()
    }

    fn reset_code(&self) -> u32 {
        self.sender.reset_code.get().unwrap_or(Reason::CANCEL).into()
    }

    async fn client_gone(&self) {
        std::future::poll_fn(|cx| self.sender.poll_gone(cx)).await;
    }
}

impl H2Body<'_> {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Poll<Result<usize, Error>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                self.read += data.len() as u64;
                if self.max.is_some_and(|max| self.read > max) {
                    return Poll::Ready(Err(Error::BodyTooLong));
                }
                match self.length {
                    // An empty chunk would end the body.
                    BodyLength::Chunked if !data.is_empty() => chunk(&data, out),
                    _ => out.extend_from_slice(&data),
                }
                Poll::Ready(Ok(data.len()))
            }
            // A truncated upload must not look complete to the endpoint. h2 cuts off bodies that differ
            // from their Content-Length (RFC 9113 section 8.1.1).
            Some(Err(error)) => {
                self.sender.reset_code.set(error.reason());
                Poll::Ready(Err(Error::ClientGone))
            }
            None => {
                let trailers = ready!(self.stream.poll_trailers(cx));
                let trailers = trailers.map_err(|_| Error::ClientGone)?;
                if self.length == BodyLength::Chunked {
                    last_chunk(trailers, out);
                }
                self.is_done = true;
                Poll::Ready(Ok(0))
            }
        }
    }
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
