//! The byte streams on both sides of an exchange and of a tunnel: TCP and Unix sockets here, HTTP/2 streams
//! in `serve`.
//!
//! All methods take a shared reference, so both directions can use one stream at the same time. A read
//! waits for readiness before it borrows a buffer. A write waits only if the stream accepts nothing.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use crate::runtime::{Buf, BufferPool};

/// Keepalive for a peer that may stay silent: detects its loss within two minutes, with little enough
/// traffic for a phone's radio to sleep.
pub const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Keepalive for a peer that has closed its sending side. If the peer has left altogether, its system
/// resets the connection once it has forgotten it (after a minute on Linux).
pub const KEEPALIVE_HALF_CLOSED: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(15));

pub trait Transport {
    /// The other side is a gateway of this kind: only gateways speak TLS with each other.
    const IS_PEER: bool = false;

    /// Ready when [`try_read`](Self::try_read) is likely to return data.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads the available bytes. Returns 0 at the end of the stream, and `WouldBlock` if there is nothing yet.
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as the stream accepts. Returns `WouldBlock` if it accepts nothing.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes several slices. A stream without gather support writes only the first.
    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write(parts.iter().find(|part| !part.is_empty()).map_or(&[], |part| part))
    }

    /// Ready once the system has accepted all that was written: a stream may buffer what it encrypts.
    fn poll_flush(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Takes what has arrived while nothing is read, if it would be in the way of others.
    fn read_ahead(&self, _cx: &mut Context<'_>) {}

    /// Whether what is at the other end is to end as soon as the client closes its sending side.
    fn ends_with_client(&self) -> bool {
        false
    }

    /// Tells the peer that nothing more will be sent.
    fn shut_down_writing(&self) -> io::Result<()>;

    /// The code by which the other side has reset a stream of HTTP/2 (RFC 9113 section 7), other than that of no
    /// error.
    fn reset_code(&self) -> Option<u32> {
        None
    }

    /// Reads even if the event loop has not reported readiness yet.
    fn try_read_early(&self, into: &mut [u8]) -> io::Result<usize> {
        self.try_read(into)
    }

    /// Whether the connection is open and has no unexpected bytes. `probe` asks the system, which may know
    /// more than the event loop.
    fn is_quiet(&self, _probe: bool) -> bool {
        false
    }

    /// Waits until the connection has failed (usually by a reset), even with unread data.
    fn failed(&self) -> impl Future<Output = ()> {
        std::future::pending()
    }

    /// Makes the system probe a silent peer, so that a read fails once the peer is gone.
    fn set_keepalive(&self, _keepalive: &TcpKeepalive) {}

    /// Makes closing send RST instead of FIN, which tells the peer that its data is incomplete.
    fn reset_on_close(&self) {}
}

/// A transfer of fewer bytes than `wanted` has drained or filled the socket. Clearing readiness at once
/// saves the system call that would find nothing.
fn drained(moved: usize, wanted: usize) -> io::Result<usize> {
    if 0 < moved && moved < wanted { Err(ErrorKind::WouldBlock.into()) } else { Ok(moved) }
}

macro_rules! kernel_socket {
    ($kind:ty) => {
        impl Transport for $kind {
            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$kind>::poll_read_ready(self, cx)
            }

            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$kind>::poll_write_ready(self, cx)
            }

            fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
                let mut moved = 0;
                let result = self.try_io(Interest::READABLE, || {
                    moved = (&*SockRef::from(self)).read(into)?;
                    drained(moved, into.len())
                });
                if moved > 0 { Ok(moved) } else { result }
            }

            fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
                let mut moved = 0;
                let result = self.try_io(Interest::WRITABLE, || {
                    moved = (&*SockRef::from(self)).write(bytes)?;
                    drained(moved, bytes.len())
                });
                if moved > 0 { Ok(moved) } else { result }
            }

            fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
                let mut moved = 0;
                let wanted = parts.iter().map(|part| part.len()).sum();
                let result = self.try_io(Interest::WRITABLE, || {
                    moved = (&*SockRef::from(self)).write_vectored(parts)?;
                    drained(moved, wanted)
                });
                if moved > 0 { Ok(moved) } else { result }
            }

            fn shut_down_writing(&self) -> io::Result<()> {
                SockRef::from(self).shutdown(Shutdown::Write)
            }

            fn try_read_early(&self, into: &mut [u8]) -> io::Result<usize> {
                Transport::try_read(self, into).or_else(|_| (&*SockRef::from(self)).read(into))
            }

            fn is_quiet(&self, probe: bool) -> bool {
                let peek = || SockRef::from(self).peek(&mut [std::mem::MaybeUninit::uninit()]);
                let peeked = if probe { peek() } else { self.try_io(Interest::READABLE, peek) };
                matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
            }

            async fn failed(&self) {
                // Fails only if the event loop is gone.
                let _ = self.ready(Interest::ERROR).await;
            }

            fn set_keepalive(&self, keepalive: &TcpKeepalive) {
                // If this fails, as on a Unix socket, the connection lives until something is written to it.
                let _ = SockRef::from(self).set_tcp_keepalive(keepalive);
            }

            fn reset_on_close(&self) {
                // Fails only on a closed socket.
                let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
            }
        }
    };
}

kernel_socket!(TcpStream);
kernel_socket!(UnixStream);

/// Reads into `buf`, which must have room and borrows from `pool` only once there are bytes. Returns 0 at
/// the end of the stream.
pub fn poll_fill(
    cx: &mut Context<'_>,
    from: &impl Transport,
    buf: &mut Buf,
    pool: &BufferPool,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(from.poll_read_ready(cx))?;
        buf.borrow_from(pool);
        let read = from.try_read(buf.spare_mut());
        if let Ok(n) = read {
            buf.advance(n);
        }
        if buf.is_empty() {
            buf.release(pool);
        }
        match read {
            Err(error) if is_transient(&error) => {}
            read => return Poll::Ready(read),
        }
    }
}

/// Reads data that is likely to be long: into a large buffer, if the budget has one.
pub fn poll_fill_long(
    cx: &mut Context<'_>,
    from: &impl Transport,
    buf: &mut Buf,
    pool: &BufferPool,
) -> Poll<io::Result<usize>> {
    ready!(from.poll_read_ready(cx))?;
    buf.borrow_large(pool);
    poll_fill(cx, from, buf, pool)
}

/// Reads into an empty buffer before the event loop has reported readiness. The next read reports an end or
/// an error.
pub fn fill_early(from: &impl Transport, buf: &mut Buf, pool: &BufferPool) {
    buf.borrow_from(pool);
    let read = from.try_read_early(buf.spare_mut());
    buf.advance(read.unwrap_or(0));
    buf.release(pool);
}

pub async fn fill(from: &impl Transport, buf: &mut Buf, pool: &BufferPool) -> io::Result<usize> {
    poll_fn(|cx| poll_fill(cx, from, buf, pool)).await
}

/// Writes as much of the slices as the stream accepts.
pub fn poll_write<const N: usize>(
    cx: &mut Context<'_>,
    to: &impl Transport,
    parts: [&[u8]; N],
) -> Poll<io::Result<usize>> {
    loop {
        match write_now(to, parts)? {
            Some(written) => return Poll::Ready(Ok(written)),
            None => ready!(to.poll_write_ready(cx))?,
        }
    }
}

/// Writes without waiting. Returns `None` if the stream accepts nothing now.
pub fn write_now<const N: usize>(
    to: &impl Transport,
    parts: [&[u8]; N],
) -> io::Result<Option<usize>> {
    let written = match parts[..] {
        [only] => to.try_write(only),
        [only, ref rest @ ..] if rest.iter().all(|part| part.is_empty()) => to.try_write(only),
        _ => to.try_write_vectored(&parts.map(IoSlice::new)),
    };
    match written {
        Err(error) if is_transient(&error) => Ok(None),
        Ok(0) if parts.iter().any(|part| !part.is_empty()) => Err(ErrorKind::WriteZero.into()),
        written => written.map(Some),
    }
}

pub async fn write_all(to: &impl Transport, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| poll_write(cx, to, [bytes])).await?;
        bytes = &bytes[n..];
    }
    poll_fn(|cx| to.poll_flush(cx)).await
}

/// Tells the peer that nothing more will be sent. The stream may be dropped afterwards.
pub async fn finish(to: &impl Transport) -> io::Result<()> {
    to.shut_down_writing()?;
    poll_fn(|cx| to.poll_flush(cx)).await
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
