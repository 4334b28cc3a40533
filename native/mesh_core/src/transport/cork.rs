//! Collects small writes of an HTTP/2 connection, so that the frames of many streams leave in one system call: h2
//! flushes after each DATA frame.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll, ready};

use super::byte_stream::Transport;

/// How much is collected. h2 buffers as much again.
const MAX_PENDING: usize = 16 * 1024;

#[derive(Default)]
pub struct Cork {
    pending: RefCell<Vec<u8>>,
    /// Flushing waits.
    is_in: Cell<bool>,
}

impl Cork {
    /// Lets `poll` write, then sends what it wrote. Ready with what `poll` returns, or with `None` if the stream
    /// has failed.
    pub fn poll_with<R>(
        &self,
        cx: &mut Context<'_>,
        to: &impl Transport,
        sent: impl Fn(usize),
        poll: impl FnOnce(&mut Context<'_>) -> Poll<R>,
    ) -> Poll<Option<R>> {
        self.is_in.set(true);
        let polled = poll(cx);
        self.is_in.set(false);
        let flushed = self.poll_send(cx, to, sent);
        match polled {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if matches!(flushed, Poll::Ready(Err(_))) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Drops the memory of a connection that is idle.
    pub fn rest(&self) {
        let mut pending = self.pending.borrow_mut();
        if pending.is_empty() {
            *pending = Vec::new();
        }
    }

    /// Takes all of `parts` if they are small, else what the stream accepts. `sent` is told of what has left.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        to: &impl Transport,
        sent: impl Fn(usize),
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let is_full = self.pending.borrow().len() + size > MAX_PENDING;
        if is_full {
            ready!(self.poll_send(cx, to, &sent))?;
        }
        if size > MAX_PENDING {
            let written = ready!(poll_write(cx, to, parts))?;
            sent(written);
            return Poll::Ready(Ok(written));
        }
        let mut pending = self.pending.borrow_mut();
        if pending.is_empty() {
            pending.reserve(MAX_PENDING);
        }
        parts.iter().for_each(|part| pending.extend_from_slice(part));
        Poll::Ready(Ok(size))
    }

    /// Sends what is collected, unless more is about to be written.
    pub fn poll_flush(
        &self,
        cx: &mut Context<'_>,
        to: &impl Transport,
        sent: impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        if self.is_in.get() { Poll::Ready(Ok(())) } else { self.poll_send(cx, to, sent) }
    }

    /// Sends what is collected.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        to: &impl Transport,
        sent: impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        let mut pending = self.pending.borrow_mut();
        while !pending.is_empty() {
            let written = ready!(poll_write(cx, to, &[IoSlice::new(&pending)]))?;
            sent(written);
            if written == pending.len() {
                pending.clear();
            } else {
                pending.drain(..written);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn poll_write(
    cx: &mut Context<'_>,
    to: &impl Transport,
    parts: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(to.poll_write_ready(cx))?;
        match to.try_write_vectored(parts) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    /// Writes parts of many sizes, as far as the stream accepts them. Returns what was written.
    async fn write(cork: &Cork, to: &UnixStream, sent: &Cell<usize>) -> Vec<u8> {
        let count = |n| sent.set(sent.get() + n);
        let mut written = Vec::new();
        for round in 0..200_usize {
            let part = vec![round as u8; [1, 900, MAX_PENDING, MAX_PENDING + 9][round % 4]];
            let mut rest = &part[..];
            while !rest.is_empty() {
                let parts =
                    [IoSlice::new(&rest[..rest.len() / 2]), IoSlice::new(&rest[rest.len() / 2..])];
                let n = poll_fn(|cx| cork.poll_write(cx, to, count, &parts)).await.unwrap();
                rest = &rest[n..];
            }
            written.extend(part);
        }
        poll_fn(|cx| cork.poll_flush(cx, to, count)).await.unwrap();
        written
    }

    #[tokio::test]
    async fn everything_arrives_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (cork, sent) = (Cork::default(), Cell::new(0));
        let writes = async {
            let written = write(&cork, &ours, &sent).await;
            drop(ours);
            written
        };
        let mut arrived = Vec::new();
        let (written, read) = tokio::join!(writes, theirs.read_to_end(&mut arrived));
        assert!(read.is_ok() && written == arrived, "{} of {}", arrived.len(), written.len());
        assert_eq!(sent.get(), written.len());
    }

    #[tokio::test]
    async fn what_is_flushed_meanwhile_leaves_at_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let cork = Cork::default();
        let write = |cx: &mut Context<'_>| {
            for part in [b"ab", b"cd"] {
                assert!(cork.poll_write(cx, &ours, |_| (), &[IoSlice::new(part)]).is_ready());
                assert!(cork.poll_flush(cx, &ours, |_| ()).is_ready());
                assert!(theirs.try_read(&mut [0; 9]).is_err(), "sent before the end");
            }
            Poll::Ready(())
        };
        poll_fn(|cx| cork.poll_with(cx, &ours, |_| (), write)).await;
        let mut all = [0; 4];
        theirs.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"abcd");
    }
}
