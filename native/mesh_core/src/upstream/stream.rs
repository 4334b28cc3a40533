//! A connection to an upstream. A new kind of upstream is a new variant.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll};

use socket2::TcpKeepalive;
use tokio::net::{TcpStream, UnixStream};

use super::h2::H2Stream;
use super::local_ports::LocalPort;
use super::peer::PeerStream;
use crate::calls::CallStream;
use crate::transport::Transport;

pub enum UpstreamStream {
    /// The port is listed before anything is sent, and until the socket closes.
    Tcp(LocalPort, TcpStream),
    Unix(UnixStream),
    /// Shared with the watch of its peer, which ends it when the peer is lost.
    Peer(Rc<PeerStream>),
    /// Used for one request. Boxed, because every request has room for it.
    Call(Box<CallStream>),
    /// One stream of a connection. Used for one request, too.
    H2(Box<H2Stream>),
}

impl UpstreamStream {
    /// The client has reset its request with this code.
    pub fn reset(&self, code: u32) {
        if let UpstreamStream::H2(stream) = self {
            stream.reset(code);
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            UpstreamStream::Tcp(_, $stream) => $call,
            UpstreamStream::Unix($stream) => $call,
            UpstreamStream::Peer(peer) => {
                let $stream = &peer.tls;
                $call
            }
            UpstreamStream::Call(call) => {
                let $stream = &**call;
                $call
            }
            UpstreamStream::H2(stream) => {
                let $stream = &**stream;
                $call
            }
        }
    };
}

impl Transport for UpstreamStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Transport::poll_read_ready(stream, cx))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Transport::poll_write_ready(stream, cx))
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        delegate!(self, stream => Transport::try_read(stream, into))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        delegate!(self, stream => Transport::try_write(stream, bytes))
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        delegate!(self, stream => Transport::try_write_vectored(stream, parts))
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Transport::poll_flush(stream, cx))
    }

    fn read_ahead(&self, cx: &mut Context<'_>) {
        if let UpstreamStream::H2(stream) = self {
            stream.read_ahead(cx);
        }
    }

    fn ends_with_client(&self) -> bool {
        delegate!(self, stream => stream.ends_with_client())
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        delegate!(self, stream => stream.shut_down_writing())
    }

    fn reset_code(&self) -> Option<u32> {
        if let UpstreamStream::H2(stream) = self { stream.reset_code() } else { None }
    }

    fn is_quiet(&self, probe: bool) -> bool {
        delegate!(self, stream => stream.is_quiet(probe))
    }

    async fn failed(&self) {
        delegate!(self, stream => stream.failed().await);
    }

    fn set_keepalive(&self, keepalive: &TcpKeepalive) {
        delegate!(self, stream => stream.set_keepalive(keepalive));
    }

    fn reset_on_close(&self) {
        delegate!(self, stream => stream.reset_on_close());
    }
}
