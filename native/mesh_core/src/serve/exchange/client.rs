//! The client's side of an exchange, whatever protocol it uses.

use std::task::{Context, Poll};

use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::response::ResponseHead;

use crate::error::Error;

/// The body of a request, as the client sends it and as the endpoint gets it.
pub trait RequestBody {
    /// All of it has been read.
    fn is_done(&self) -> bool;

    /// Appends what has come already to `out`, which the request head is in. Returns how many bytes of the
    /// client's that was, framing included.
    fn take_ready(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<usize, Error>;

    /// Waits for more. What the endpoint is to get is then in [`in_place`](Self::in_place), followed by `out`.
    fn poll_part(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<usize, Error>>;

    /// The bytes of the last part that need no copy.
    fn in_place(&self) -> &[u8] {
        b""
    }

    /// The endpoint has taken a part of so many bytes of the client's.
    fn release(&mut self, bytes: usize);

    /// Waits until the client has gone, whatever of its request has not been read.
    fn client_gone(&self) -> impl Future<Output = ()>;

    /// The same once the whole request has been read.
    fn watch(&mut self) -> impl Future<Output = ()> {
        self.client_gone()
    }
}

/// What a part of a response body is followed by.
pub enum Part<'a> {
    More,
    /// The end, known by the body's length or by the end of the connection.
    Last,
    /// The end of a chunked body, with its trailers.
    LastChunk(&'a Decoder),
}

/// Where a response goes.
pub trait ResponseSink {
    /// The sink queues what the client does not take. Then nothing is read from the endpoint before there is
    /// room; a sink that does not queue waits for the client in [`part`](Self::part).
    const QUEUES: bool;

    /// Prepares a head to be sent. An error says that the response must not be passed on.
    fn head(&mut self, head: &ResponseHead<'_, '_>) -> Result<(), Error>;

    /// Sends an interim head (1xx).
    fn interim(&mut self) -> impl Future<Output = Result<(), Error>>;

    /// Sends the head, if that has not been done, and some of the body.
    fn part(&mut self, data: &[u8], part: Part<'_>) -> impl Future<Output = Result<(), Error>>;

    /// The form in which a chunked body is wanted.
    fn output(&self) -> Output;

    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}
