//! Defines the client's side of an exchange, for any protocol.

use std::task::{Context, Poll};

use mesh_wire::chunked::{Decoder, Output};
use mesh_wire::response::ResponseHead;

use crate::error::Error;

/// RFC 9113 section 7: the stream is no longer needed.
const CANCEL: u32 = 8;

/// The body of a request: read from the client, and framed for the endpoint.
pub trait RequestBody {
    fn is_done(&self) -> bool;

    /// Whether more than `most` bytes may come, framing not included.
    fn may_exceed(&self, most: u64) -> bool;

    /// Appends the bytes that have arrived to `out`, which contains the request head. Returns how many
    /// bytes of the client's body these are, including framing.
    fn take_ready(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<usize, Error>;

    /// Waits for more of the body. The endpoint gets [`in_place`](Self::in_place), then `out`. Returns as
    /// `take_ready`.
    fn poll_part(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<usize, Error>>;

    /// The part of the last read that needs no copy.
    fn in_place(&self) -> &[u8] {
        b""
    }

    /// The endpoint has accepted a part of this many bytes of the client's body.
    fn part_sent(&mut self, bytes: usize);

    /// Waits until the client is gone, even with unread data.
    fn client_gone(&self) -> impl Future<Output = ()>;

    /// Whether the client is known to be gone. Asked before the endpoint is.
    fn is_gone(&self, _cx: &mut Context<'_>) -> bool {
        false
    }

    /// The code of the reset by which the client has left (RFC 9113 section 7).
    fn reset_code(&self) -> u32 {
        CANCEL
    }

    /// As `client_gone`, once the whole request has been read. `or_closed`: a client that has closed its sending
    /// side is gone, too.
    fn watch(&mut self, _or_closed: bool) -> impl Future<Output = ()> {
        self.client_gone()
    }
}

/// What follows a part of a response body.
pub enum Part<'a> {
    More,
    /// The end, by length or by the end of the connection.
    Last,
    /// The end of a chunked body, with its trailers.
    LastChunk(&'a Decoder),
}

/// Sends a response to the client.
pub trait ResponseSink {
    /// The sink queues what the client does not accept; the endpoint is read only while there is room. A
    /// sink that does not queue waits for the client in [`part`](Self::part).
    const QUEUES: bool;

    /// Prepares a head. An error means that the response must not be passed on.
    fn head(&mut self, head: &ResponseHead<'_, '_>) -> Result<(), Error>;

    /// The client is the gateway of another node, which may wait for [`checked_out`](Self::checked_out).
    const OF_PEER: bool = false;

    /// A connection to an endpoint has been found.
    async fn checked_out(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Sends an interim head (1xx).
    fn interim(&mut self) -> impl Future<Output = Result<(), Error>>;

    /// Sends the head, unless it has been sent, and a part of the body.
    fn part(&mut self, data: &[u8], part: Part<'_>) -> impl Future<Output = Result<(), Error>>;

    /// The form in which the sink needs a chunked body.
    fn output(&self) -> Output;

    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}
