//! A stream as one side of a tunnel (RFC 8441 section 5): DATA frames are the bytes of the
//! WebSocket, END_STREAM is its orderly end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::h2::RecvStream;
use bytes::{Buf as _, Bytes};

use super::client::Client;
use super::exchange::Upgraded;
use crate::buffer::{Buf, BufferPool};
use crate::error::Error;
use crate::tunnel::{Side, join};
use crate::worker::Worker;

/// Runs until it is over, by the rules of every tunnel. What is not ended then, h2 resets.
pub async fn run(worker: &Rc<Worker>, client: &Client, upgraded: Upgraded) {
    let Upgraded { upstream, _counted, mut first_bytes, service, body } = upgraded;
    let incoming = RefCell::new(Incoming { body, frame: Bytes::new() });
    let stream = Stream { client, incoming };
    let mut nothing = Buf::new();
    join(worker, &service, (&stream, &mut nothing), (&upstream, &mut first_bytes)).await;
}

struct Stream<'a> {
    client: &'a Client,
    incoming: RefCell<Incoming>,
}

struct Incoming {
    body: RecvStream,
    /// What is left of the last frame.
    frame: Bytes,
}

impl Incoming {
    /// Moves bytes into `buf`, borrowing one only when there are some; 0 at the end of the stream.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut Buf,
        pool: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        while self.frame.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(frame)) => self.frame = frame,
                Some(Err(_)) => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
                None => return Poll::Ready(Ok(0)),
            }
        }
        buf.borrow_from(pool);
        let into = buf.spare_mut();
        let n = self.frame.len().min(into.len());
        self.frame.copy_to_slice(&mut into[..n]);
        buf.advance(n);
        // Fails only when the client is gone, which the next look tells.
        let _ = self.body.flow_control().release_capacity(n);
        Poll::Ready(Ok(n))
    }
}

impl Side for Stream<'_> {
    async fn fill(&self, buf: &mut Buf, pool: &BufferPool) -> io::Result<usize> {
        poll_fn(|cx| self.incoming.borrow_mut().poll_fill(cx, buf, pool)).await
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| self.client.poll_room(cx, bytes.len())).await.map_err(gone)?;
            let (now, later) = bytes.split_at(n);
            self.client.send(now, false).map_err(gone)?;
            bytes = later;
        }
        Ok(())
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        self.client.send(b"", true).map_err(gone)
    }
}

fn gone(_: Error) -> io::Error {
    ErrorKind::ConnectionReset.into()
}
