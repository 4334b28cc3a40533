//! A TLS connection as a [`Transport`].
//!
//! rustls is used without its buffers: bytes are decrypted when they are read and encrypted when they are
//! written, so an idle connection owns no buffer.
//!
//! Two rules keep readiness right. What has been decrypted is read before the socket is asked again. What has
//! been encrypted counts as written, and what the socket did not accept of it is sent by the next poll for
//! either direction.

mod buffers;
mod engine;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::byte_stream::Transport;
pub use engine::Side;
use engine::Tls;

pub struct TlsSocket {
    tcp: TcpStream,
    tls: RefCell<Tls>,
}

impl TlsSocket {
    pub fn new(tcp: TcpStream, side: Side) -> TlsSocket {
        TlsSocket { tcp, tls: RefCell::new(Tls::new(side)) }
    }

    /// Completes the handshake. Both sides have then proved that they have the keys they presented.
    pub async fn handshake(&self) -> io::Result<()> {
        loop {
            let (handshaking, alert) = {
                let mut tls = self.tls.borrow_mut();
                let stepped = tls.run(&mut []);
                (tls.is_handshaking(), stepped)
            };
            // Also an alert, which tells the peer what was wrong.
            std::future::poll_fn(|cx| self.poll_flush(cx)).await?;
            alert?;
            if !handshaking {
                return Ok(());
            }
            loop {
                std::future::poll_fn(|cx| self.tcp.poll_read_ready(cx)).await?;
                match self.tls.borrow_mut().receive(&self.tcp) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(_) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// The public key of the peer, once the handshake is complete.
    pub fn peer_key(&self) -> Option<Vec<u8>> {
        let tls = self.tls.borrow();
        let keys: Option<&[CertificateDer<'_>]> = match &tls.side {
            Side::Client(client) => client.peer_certificates(),
            Side::Server(server) => server.peer_certificates(),
        };
        keys.and_then(|keys| keys.first()).map(|key| key.to_vec())
    }

    pub fn protocol(&self) -> Option<Vec<u8>> {
        match &self.tls.borrow().side {
            Side::Client(client) => client.alpn_protocol(),
            Side::Server(server) => server.alpn_protocol(),
        }
        .map(<[u8]>::to_vec)
    }

    /// Ends both directions at once, and wakes the tasks that wait for the connection.
    pub fn abort(&self) {
        // Fails only if the connection has ended already.
        let _ = SockRef::from(&self.tcp).shutdown(std::net::Shutdown::Both);
    }
}

impl Transport for TlsSocket {
    const IS_PEER: bool = true;

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (waits_to_send, readable) = {
            let tls = self.tls.borrow();
            (!tls.outgoing.is_empty(), tls.more || !tls.plain.is_empty() || tls.ended || tls.failed)
        };
        if waits_to_send {
            // A failure shows when the peer's bytes end.
            let _ = self.poll_flush(cx);
        }
        if readable { Poll::Ready(Ok(())) } else { self.tcp.poll_read_ready(cx) }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.tcp.poll_write_ready(cx)
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        loop {
            let n = match tls.run(into) {
                Ok(n) => n,
                Err(error) => return Err(tls.send_alert(error, &self.tcp)),
            };
            if n > 0 || into.is_empty() {
                return Ok(n);
            }
            if tls.ended {
                return Ok(0);
            }
            if tls.receive(&self.tcp)? == 0 {
                // Without close_notify the end may be an attacker's (RFC 8446 section 6.1).
                tls.failed = true;
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        if !tls.flush(&self.tcp)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        tls.write(bytes, &self.tcp)
    }

    /// Ready once the socket has accepted all encrypted bytes.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.tls.borrow_mut().flush(&self.tcp)? {
                return Poll::Ready(Ok(()));
            }
            ready!(self.tcp.poll_write_ready(cx))?;
        }
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        let mut tls = self.tls.borrow_mut();
        tls.encrypt(None)?;
        tls.flush(&self.tcp).map(|_| ())
    }

    fn is_quiet(&self, probe: bool) -> bool {
        let tls = self.tls.borrow();
        let is_empty = tls.outgoing.is_empty() && tls.plain.is_empty() && tls.incoming.is_empty();
        is_empty && !tls.ended && !tls.failed && self.tcp.is_quiet(probe)
    }

    async fn failed(&self) {
        Transport::failed(&self.tcp).await;
    }

    fn set_keepalive(&self, keepalive: &TcpKeepalive) {
        Transport::set_keepalive(&self.tcp, keepalive);
    }

    fn reset_on_close(&self) {
        Transport::reset_on_close(&self.tcp);
    }
}
