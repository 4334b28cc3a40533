//! Sends a response on a stream, as fast as the client accepts it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::h2::server::SendResponse;
use ::h2::{Reason, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Response};

use super::queue::Queue;
use crate::error::Error;
use crate::runtime::MinRate;
/// Shared by the task that sends and the one that watches for the client to leave. Borrowed only while polled.
pub struct Sender {
    half: RefCell<SendHalf>,
    queue: Arc<Queue>,
    /// The code of the client's reset.
    pub reset_code: Cell<Option<Reason>>,
}

struct SendHalf {
    respond: SendResponse<Bytes>,
    /// Set once the final head has been sent.
    stream: Option<SendStream<Bytes>>,
}

impl Sender {
    pub fn new(respond: SendResponse<Bytes>, queue: &Arc<Queue>) -> Sender {
        Sender {
            half: RefCell::new(SendHalf { respond, stream: None }),
            queue: Arc::clone(queue),
            reset_code: Cell::new(None),
        }
    }

    /// Ready once the client has reset the stream or left.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let half = &mut *self.half.borrow_mut();
        let reset = ready!(match &mut half.stream {
            Some(stream) => stream.poll_reset(cx),
            None => half.respond.poll_reset(cx),
        });
        self.reset_code.set(reset.ok());
        Poll::Ready(())
    }

    /// Sends an interim response (RFC 9113 section 8.1).
    pub fn send_interim(&self, head: Response<()>) -> Result<(), Error> {
        self.half.borrow_mut().respond.send_informational(head).map_err(|_| Error::ClientGone)
    }

    pub fn head(&self, head: Response<()>, end: bool) -> Result<(), Error> {
        let half = &mut *self.half.borrow_mut();
        let sent = half.respond.send_response(head, end);
        half.stream = Some(sent.map_err(|_| Error::ClientGone)?);
        Ok(())
    }

    /// Sends a head and a body that is short enough not to wait for the client's window.
    pub fn answer(&self, head: Response<()>, body: String) -> Result<(), Error> {
        self.head(head, body.is_empty())?;
        if body.is_empty() { Ok(()) } else { self.send(body.as_bytes(), true) }
    }

    /// Waits until the client accepts some of `max` bytes. Returns how many.
    pub fn poll_room(&self, cx: &mut Context<'_>, max: usize) -> Poll<Result<usize, Error>> {
        let half = &mut *self.half.borrow_mut();
        let Some(stream) = &mut half.stream else { return Poll::Ready(Err(Error::ClientGone)) };
        stream.reserve_capacity(max);
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Error::ClientGone)),
            }
        }
        let room = stream.capacity().min(max);
        ready!(self.queue.poll_room(cx, room));
        Poll::Ready(Ok(room))
    }

    /// How many of `max` bytes the client accepts now.
    pub fn room_now(&self, max: usize) -> Result<usize, Error> {
        let half = &mut *self.half.borrow_mut();
        let stream = half.stream.as_mut().ok_or(Error::ClientGone)?;
        stream.reserve_capacity(max);
        let room = stream.capacity().min(max);
        Ok(if self.queue.has_room(room) { room } else { 0 })
    }

    pub fn send(&self, data: &[u8], end: bool) -> Result<(), Error> {
        let half = &mut *self.half.borrow_mut();
        let stream = half.stream.as_mut().ok_or(Error::ClientGone)?;
        stream.send_data(self.queue.hold(data), end).map_err(|_| Error::ClientGone)
    }

    /// Sends all of `data`, and waits for the client as needed.
    pub async fn data(&self, mut data: &[u8], end: bool, rate: &MinRate) -> Result<(), Error> {
        while !data.is_empty() {
            let n = poll_fn(|cx| {
                let room = self.poll_room(cx, data.len());
                if room.is_pending() {
                    rate.waiting();
                }
                room
            })
            .await?;
            rate.moved(n);
            let (now, later) = data.split_at(n);
            self.send(now, end && later.is_empty())?;
            data = later;
            if end && data.is_empty() {
                return Ok(());
            }
        }
        if end { self.send(b"", true) } else { Ok(()) }
    }

    pub fn trailers(&self, trailers: HeaderMap) -> Result<(), Error> {
        let half = &mut *self.half.borrow_mut();
        let stream = half.stream.as_mut().ok_or(Error::ClientGone)?;
        stream.send_trailers(trailers).map_err(|_| Error::ClientGone)
    }

    /// Resets the stream, so that the client can tell that its response is incomplete (RFC 9113 section 8.1.1).
    pub fn reset(&self, reason: Reason) {
        let half = &mut *self.half.borrow_mut();
        match &mut half.stream {
            Some(stream) => stream.send_reset(reason),
            None => half.respond.send_reset(reason),
        }
    }
}
