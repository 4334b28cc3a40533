//! Adapts the client's stream for h2.
//!
//! Returns the bytes first that were read before the protocol was known. The stream stays usable after h2
//! is done with it.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::settings::CONNECTION_WINDOW;
use crate::runtime::{Buf, MinRate};
use crate::serve::worker::Worker;
use crate::transport::Cork;
use crate::upstream::Transport;

/// How long a closed connection is drained, so that a reset does not discard the last frames. Reads no more
/// than an honest client may have had on its way.
const LINGER: Duration = Duration::from_secs(2);

pub struct Socket<T> {
    pub stream: Rc<T>,
    pub cork: Rc<Cork>,
    pub first: Buf,
    pub worker: Rc<Worker>,
    /// Limits the client's time once the connection is closing.
    pub closing: Rc<MinRate>,
}

impl<T: Transport> AsyncRead for Socket<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let n = into.remaining().min(this.first.len());
            into.put_slice(&this.first.filled()[..n]);
            this.first.consume(n);
            this.first.release(&this.worker.buffers);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            match this.stream.try_read(into.initialize_unfilled()) {
                Ok(n) => {
                    into.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<T: Transport> AsyncWrite for Socket<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cork.poll_write(cx, &*self.stream, |n| self.closing.moved(n), parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cork.poll_flush(cx, &*self.stream, |n| self.closing.moved(n))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.cork.poll_send(cx, &*self.stream, |n| self.closing.moved(n)))?;
        // Fails only if the client is gone.
        let _ = self.stream.shut_down_writing();
        Poll::Ready(Ok(()))
    }
}

/// Closes the sending side, and drains for a moment.
pub async fn linger(stream: &impl Transport) {
    if stream.shut_down_writing().is_err() {
        return;
    }
    let drained = async {
        let mut nowhere = [0; 4096];
        let mut left = CONNECTION_WINDOW as usize;
        while left > 0 && std::future::poll_fn(|cx| stream.poll_read_ready(cx)).await.is_ok() {
            match stream.try_read(&mut nowhere) {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    };
    let _ = timeout(LINGER, drained).await;
}
