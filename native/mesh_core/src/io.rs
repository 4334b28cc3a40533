//! Sockets as the data plane uses them: a client is TCP, an upstream is TCP or a Unix socket, and
//! reading waits for readiness before it borrows a buffer.
//!
//! Everything works through a shared reference, so that both directions of an exchange can use one
//! socket, and asks the event loop no more often than it must: once before a read, and before a
//! write only if the socket takes nothing.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, Socket as RawSocket, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use crate::buffer::{Buf, BufferPool};
use crate::own::Own;

/// How often a peer that has closed its side is asked whether it is still there.
const PROBE: Duration = Duration::from_secs(15);

/// When a peer that may be silent is asked for the first time, how often if it does not answer, and
/// how many times. Two minutes in all, and no more traffic than a telephone's radio can sleep through.
const KEEP_ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// What every kind of socket here can do.
pub trait Socket {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    fn raw<T>(&self, operation: impl FnOnce(&RawSocket) -> T) -> T;

    /// Calls `operation` if the event loop has reported readiness and nothing has taken it back
    /// since; `WouldBlock` from it takes it back.
    fn try_io<T>(
        &self,
        interest: Interest,
        operation: impl FnOnce(&RawSocket) -> io::Result<T>,
    ) -> io::Result<T>;
}

/// A connection to an upstream. New kinds of upstream are new variants.
pub enum Stream {
    /// Listed as ours before it is anything, and until it is closed.
    Tcp(#[expect(dead_code, reason = "held for its drop")] Own, TcpStream),
    Unix(UnixStream),
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Stream::Tcp(_, $stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

/// Nothing has been reported about this connection: neither closed nor unasked bytes. Costs no
/// system call unless `probe` asks for one, which also sees what the event loop has not been told
/// yet.
pub fn is_quiet(socket: &impl Socket, probe: bool) -> bool {
    let peek = |socket: &RawSocket| socket.peek(&mut [std::mem::MaybeUninit::uninit()]);
    let peeked = if probe { socket.raw(peek) } else { socket.try_io(Interest::READABLE, peek) };
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

impl Socket for Stream {
    fn raw<T>(&self, operation: impl FnOnce(&RawSocket) -> T) -> T {
        delegate!(self, stream => operation(&SockRef::from(stream)))
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read_ready(cx))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_write_ready(cx))
    }

    fn try_io<T>(
        &self,
        interest: Interest,
        operation: impl FnOnce(&RawSocket) -> io::Result<T>,
    ) -> io::Result<T> {
        delegate!(self, stream => Socket::try_io(stream, interest, operation))
    }
}

macro_rules! socket {
    ($kind:ty) => {
        impl Socket for $kind {
            fn raw<T>(&self, operation: impl FnOnce(&RawSocket) -> T) -> T {
                operation(&SockRef::from(self))
            }

            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$kind>::poll_read_ready(self, cx)
            }

            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$kind>::poll_write_ready(self, cx)
            }

            fn try_io<T>(
                &self,
                interest: Interest,
                operation: impl FnOnce(&RawSocket) -> io::Result<T>,
            ) -> io::Result<T> {
                <$kind>::try_io(self, interest, || operation(&SockRef::from(self)))
            }
        }
    };
}

socket!(TcpStream);
socket!(UnixStream);

/// Reads or writes up to `wanted` bytes. Less than that has emptied the socket, or filled it: then
/// readiness is taken back at once, which saves the system call that would find nothing.
fn transfer(
    socket: &impl Socket,
    interest: Interest,
    wanted: usize,
    operation: impl FnOnce(&RawSocket) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = 0;
    let result = socket.try_io(interest, |socket| {
        moved = operation(socket)?;
        if 0 < moved && moved < wanted { Err(ErrorKind::WouldBlock.into()) } else { Ok(moved) }
    });
    if moved > 0 { Ok(moved) } else { result }
}

/// Reads what there is into `buf`, borrowing one from `pool` only once there is something.
/// The buffer must have room. 0 is the end of the stream.
pub fn poll_fill(
    cx: &mut Context<'_>,
    socket: &impl Socket,
    buf: &mut Buf,
    pool: &BufferPool,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        buf.borrow_from(pool);
        let into = buf.spare_mut();
        let read = transfer(socket, Interest::READABLE, into.len(), |mut from| from.read(into));
        if let Ok(n) = read {
            buf.advance(n);
        }
        if buf.is_empty() {
            buf.give_back(pool);
        }
        match read {
            Err(error) if is_passing(&error) => {}
            read => return Poll::Ready(read),
        }
    }
}

/// The same for what is likely to be long: into a large buffer, if there is one to be had.
pub fn poll_fill_long(
    cx: &mut Context<'_>,
    socket: &impl Socket,
    buf: &mut Buf,
    pool: &BufferPool,
) -> Poll<io::Result<usize>> {
    ready!(socket.poll_read_ready(cx))?;
    buf.borrow_large(pool);
    poll_fill(cx, socket, buf, pool)
}

/// Reads what there is into an empty buffer, whether or not the event loop has told of it yet. That
/// nothing more will come, or that reading fails, is left for the next read to find.
pub fn fill_now(socket: &impl Socket, buf: &mut Buf, pool: &BufferPool) {
    buf.borrow_from(pool);
    let into = buf.spare_mut();
    let told = transfer(socket, Interest::READABLE, into.len(), |mut from| from.read(into));
    let read = told.or_else(|_| socket.raw(|mut from| from.read(buf.spare_mut())));
    buf.advance(read.unwrap_or(0));
    buf.give_back(pool);
}

pub async fn fill(socket: &impl Socket, buf: &mut Buf, pool: &BufferPool) -> io::Result<usize> {
    poll_fn(|cx| poll_fill(cx, socket, buf, pool)).await
}

/// Writes what the socket takes of several slices, in one system call.
pub fn poll_write<const N: usize>(
    cx: &mut Context<'_>,
    socket: &impl Socket,
    parts: [&[u8]; N],
) -> Poll<io::Result<usize>> {
    loop {
        match write_now(socket, parts)? {
            Some(written) => return Poll::Ready(Ok(written)),
            None => ready!(socket.poll_write_ready(cx))?,
        }
    }
}

/// The same without waiting: `None` from a socket that takes nothing now.
pub fn write_now<const N: usize>(
    socket: &impl Socket,
    parts: [&[u8]; N],
) -> io::Result<Option<usize>> {
    let wanted = parts.iter().map(|part| part.len()).sum();
    let written = transfer(socket, Interest::WRITABLE, wanted, |mut to| match parts[..] {
        [only] => to.write(only),
        [only, ref rest @ ..] if rest.iter().all(|part| part.is_empty()) => to.write(only),
        _ => to.write_vectored(&parts.map(IoSlice::new)),
    });
    match written {
        Err(error) if is_passing(&error) => Ok(None),
        Ok(0) if wanted > 0 => Err(ErrorKind::WriteZero.into()),
        written => written.map(Some),
    }
}

pub async fn write_all(socket: &impl Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| poll_write(cx, socket, [bytes])).await?;
        bytes = &bytes[n..];
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Waits until the connection has failed (a reset, as a rule), however much of what came before is
/// still unread.
pub async fn failed(stream: &TcpStream) {
    // Fails itself only when the event loop is gone.
    let _ = stream.ready(Interest::ERROR).await;
}

/// Asks a peer that has closed its side, now and then, whether it is there at all. One that only
/// closed says so; one that has left altogether answers with a reset once its system has forgotten
/// the connection (after a minute on Linux).
pub fn probe(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(PROBE).with_interval(PROBE);
    // Without it the connection lives until something is written to it.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Turns on TCP keepalive, so that a read fails when a silent peer is gone. It has no effect on a Unix
/// socket, whose peer is on this machine.
pub fn keep_alive(socket: &impl Socket) {
    // Without it the connection lives until something is written to it.
    let _ = socket.raw(|raw| raw.set_tcp_keepalive(&KEEP_ALIVE));
}

/// Tells the peer that nothing more will come.
pub fn shut_down_writing(socket: &impl Socket) -> io::Result<()> {
    // Whatever the event loop thinks of it: this never waits.
    socket.raw(|raw| raw.shutdown(Shutdown::Write))
}

/// Makes closing tell the peer that what it got is not whole (RST instead of FIN).
pub fn reset_on_close(stream: &TcpStream) {
    // Fails only on a socket that is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
