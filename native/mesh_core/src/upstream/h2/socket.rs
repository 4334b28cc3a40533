//! The socket of a connection, as h2 uses it.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::heads::Heads;
use crate::transport::{Cork, KEEPALIVE, Transport};
use crate::upstream::local_ports::LocalPort;

/// How much of what the endpoint sends first tells which protocol it speaks: a frame's header.
const FIRST: usize = 9;
/// How much is read in one turn, until others have theirs: so many bytes, or a thousand frames.
const MAX_WORK: usize = 1024 * 1024;
const WORK_OF_FRAME: usize = 1024;
/// How much is read of a socket at once.
const READ_AHEAD: usize = 64 * 1024;
/// The type of a SETTINGS frame, which a server sends first (RFC 9113 section 3.4).
const SETTINGS: u8 = 4;

pub enum UpstreamSocket {
    /// The port is listed before anything is sent, and until the socket closes.
    Tcp(#[expect(dead_code, reason = "held for its drop")] LocalPort, TcpStream),
    Unix(UnixStream),
}

macro_rules! delegate {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            UpstreamSocket::Tcp(_, $stream) => $call,
            UpstreamSocket::Unix($stream) => $call,
        }
    };
}

impl UpstreamSocket {
    /// Whether the system knows of no end of the connection. Unread bytes may hide one.
    pub fn is_open(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match delegate!(self, stream => SockRef::from(stream).peek(&mut byte)) {
            Ok(n) => n > 0,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Finds a lost host, whatever the endpoint thinks of PING.
    pub fn set_keepalive(&self) {
        delegate!(self, stream => Transport::set_keepalive(stream, &KEEPALIVE));
    }

    /// Lets `poll` write to the cork, then sends what it wrote.
    pub fn poll_corked<R>(
        &self,
        cork: &Cork,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<R>,
    ) -> Poll<Option<R>> {
        delegate!(self, stream => cork.poll_with(cx, stream, |_| (), poll))
    }
}

/// What the socket has told.
#[derive(Default)]
pub struct Heard {
    first: RefCell<Vec<u8>>,
    /// How many bytes the endpoint has sent.
    size: Cell<usize>,
    /// What the driver has read in this turn, see [`MAX_WORK`].
    pub work: Cell<usize>,
    /// The endpoint has sent something since the last look.
    anything: Cell<bool>,
    pub heads: Heads,
}

impl Heard {
    /// Fails if the endpoint sends more than is kept.
    fn add(&self, bytes: &[u8]) -> io::Result<()> {
        self.anything.set(true);
        let frames = self.heads.frames.get();
        self.size.set(self.size.get().saturating_add(bytes.len()));
        let mut first = self.first.borrow_mut();
        let room = FIRST - first.len().min(FIRST);
        first.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let is_fair = self.heads.read(bytes);
        let more = self.heads.frames.get().wrapping_sub(frames) * WORK_OF_FRAME + bytes.len();
        self.work.set(self.work.get() + more);
        if is_fair { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    }

    pub fn take_anything(&self) -> bool {
        self.anything.replace(false)
    }

    /// Whether the endpoint speaks HTTP/2.
    fn is_http2(&self) -> bool {
        matches!(self.first.borrow()[..], [_, _, _, SETTINGS, 0, 0, 0, 0, 0])
    }

    /// Whether the endpoint speaks HTTP/2, and all of its first frame has come.
    pub fn has_settings(&self) -> bool {
        let size = match self.first.borrow()[..] {
            [a, b, c, ..] => u32::from_be_bytes([0, a, b, c]) as usize,
            _ => 0,
        };
        self.is_http2() && self.size.get() >= FIRST + size
    }

    /// What the endpoint does instead.
    pub fn explain(&self) -> &'static str {
        match self.first.borrow()[..] {
            [] => "closes the connection at the start of HTTP/2",
            [b'H', b'T', b'T', b'P', b'/', ..] => "answers in HTTP/1.1",
            [0x15 | 0x16, 3, ..] => "answers in TLS",
            _ if self.is_http2() => "ends the connection at once",
            _ => "does not answer in HTTP/2",
        }
    }
}

pub struct H2Socket {
    pub socket: Rc<UpstreamSocket>,
    pub cork: Rc<Cork>,
    pub heard: Rc<Heard>,
    pub ahead: ReadAhead,
}

/// What has been read of the socket for h2, which reads 8 KiB at once.
#[derive(Default)]
pub struct ReadAhead {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
}

impl ReadAhead {
    fn is_empty(&self) -> bool {
        self.at == self.end
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.at..self.end]
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Transport,
    ) -> Poll<io::Result<usize>> {
        self.bytes.resize(READ_AHEAD, 0);
        loop {
            ready!(Transport::poll_read_ready(from, cx))?;
            match Transport::try_read(from, &mut self.bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(n) => {
                    (self.at, self.end) = (0, n);
                    return Poll::Ready(Ok(n));
                }
            }
        }
    }
}

impl AsyncRead for H2Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, heard, ahead, .. } = self.get_mut();
        if ahead.is_empty() {
            if heard.work.get() >= MAX_WORK {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let n = ready!(delegate!(&**socket, stream => ahead.poll_fill(cx, stream)))?;
            heard.add(&ahead.filled()[..n])?;
        }
        let n = into.remaining().min(ahead.filled().len());
        into.put_slice(&ahead.filled()[..n]);
        ahead.at += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Socket {
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
        delegate!(&*self.socket, stream => self.cork.poll_write(cx, stream, |_| (), parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(&*self.socket, stream => self.cork.poll_flush(cx, stream, |_| ()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(delegate!(&*self.socket, stream => self.cork.poll_send(cx, stream, |_| ())))?;
        // Fails only if the endpoint is gone.
        let _ = delegate!(&*self.socket, stream => stream.shut_down_writing());
        Poll::Ready(Ok(()))
    }
}
