//! Adapts an HTTP/2 stream as one side of a tunnel (RFC 8441 section 5): DATA frames carry the WebSocket's
//! bytes, and END_STREAM closes it.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};

use ::h2::RecvStream;
use bytes::{Buf as _, Bytes};

use super::sender::Sender;
use crate::error::Error;
use crate::upstream::Transport;

pub struct TunnelStream<'a> {
    sender: &'a Sender,
    incoming: RefCell<Incoming>,
    /// How many bytes the last write had no room for. Waiting for fewer could end without room for them.
    wanted: Cell<usize>,
}

struct Incoming {
    frames: RecvStream,
    /// The rest of the last frame.
    frame: Bytes,
    /// There are no more frames. There may be trailers, which a tunnel ignores.
    ended: bool,
}

impl<'a> TunnelStream<'a> {
    pub fn new(sender: &'a Sender, frames: RecvStream) -> TunnelStream<'a> {
        let incoming = Incoming { frames, frame: Bytes::new(), ended: false };
        TunnelStream { sender, incoming: RefCell::new(incoming), wanted: Cell::new(1) }
    }
}

impl Transport for TunnelStream<'_> {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let incoming = &mut *self.incoming.borrow_mut();
        while incoming.frame.is_empty() && !incoming.ended {
            match ready!(incoming.frames.poll_data(cx)) {
                Some(Ok(frame)) => incoming.frame = frame,
                Some(Err(_)) => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
                None => incoming.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let Incoming { frames, frame, ended } = &mut *self.incoming.borrow_mut();
        let n = frame.len().min(into.len());
        frame.copy_to_slice(&mut into[..n]);
        // Fails only if the client is gone, which the next read reports.
        let _ = frames.flow_control().release_capacity(n);
        if n > 0 || *ended { Ok(n) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.poll_room(cx, self.wanted.get()).map(|room| room.map(drop).map_err(gone))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.sender.room_now(bytes.len()).map_err(gone)?;
        if n == 0 && !bytes.is_empty() {
            self.wanted.set(bytes.len());
            return Err(ErrorKind::WouldBlock.into());
        }
        self.sender.send(&bytes[..n], false).map_err(gone)?;
        Ok(n)
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        self.sender.send(b"", true).map_err(gone)
    }
}

fn gone(_: Error) -> io::Error {
    ErrorKind::ConnectionReset.into()
}
