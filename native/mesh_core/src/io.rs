//! Sockets as the data plane uses them: a client is TCP, an upstream is TCP or a Unix socket, and
//! reading waits for readiness before it borrows a buffer.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use crate::buffer::{Buf, BufferPool};

/// A connection to an upstream. New kinds of upstream are new variants.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Stream::Tcp(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Stream::Unix(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }

    /// Nothing has been reported about this idle connection: neither closed nor unasked bytes.
    /// Costs no system call unless `probe` asks for one, which also sees what the event loop has
    /// not been told yet.
    pub fn is_quiet(&self, probe: bool) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let reported = match self {
            Stream::Tcp(stream) => stream.poll_read_ready(&mut cx).is_ready(),
            Stream::Unix(stream) => stream.poll_read_ready(&mut cx).is_ready(),
        };
        if !reported && !probe {
            return true;
        }
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Stream::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            Stream::Unix(stream) => SockRef::from(stream).peek(&mut byte),
        };
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

pub enum ReadHalf<'a> {
    Tcp(tcp::ReadHalf<'a>),
    Unix(unix::ReadHalf<'a>),
}

pub enum WriteHalf<'a> {
    Tcp(tcp::WriteHalf<'a>),
    Unix(unix::WriteHalf<'a>),
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadHalf::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            ReadHalf::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WriteHalf::Tcp(half) => Pin::new(half).poll_write(cx, bytes),
            WriteHalf::Unix(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            WriteHalf::Unix(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}

/// Something to read from whose readiness can be awaited without a buffer at hand.
pub trait ReadReady: AsyncRead + Unpin {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl ReadReady for tcp::ReadHalf<'_> {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_ref().poll_read_ready(cx)
    }
}

impl ReadReady for ReadHalf<'_> {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            ReadHalf::Tcp(half) => half.as_ref().poll_read_ready(cx),
            ReadHalf::Unix(half) => half.as_ref().poll_read_ready(cx),
        }
    }
}

impl ReadReady for TcpStream {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

/// Reads what there is into `buf`, borrowing one from `pool` only once there is something.
/// The buffer must have room. 0 is the end of the stream.
pub fn poll_fill<R: ReadReady>(
    cx: &mut Context<'_>,
    reader: &mut R,
    buf: &mut Buf,
    pool: &BufferPool,
) -> Poll<io::Result<usize>> {
    ready!(reader.poll_ready(cx))?;
    buf.borrow_from(pool);
    let mut into = ReadBuf::new(buf.spare_mut());
    let polled = Pin::new(reader).poll_read(cx, &mut into);
    let n = into.filled().len();
    buf.advance(n);
    if n == 0 {
        buf.give_back(pool);
    }
    polled.map_ok(|()| n)
}

pub async fn fill<R: ReadReady>(
    reader: &mut R,
    buf: &mut Buf,
    pool: &BufferPool,
) -> io::Result<usize> {
    poll_fn(|cx| poll_fill(cx, reader, buf, pool)).await
}

/// Makes closing tell the peer that what it got is not whole (RST instead of FIN).
pub fn reset_on_close(stream: &TcpStream) {
    // Fails only on a socket that is gone already.
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}
