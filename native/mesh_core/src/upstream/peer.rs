//! Connections to the gateway of another node.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_wire::mesh::{PING, PONG};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::mesh::{Peer, PeerState, is_protocol};
use crate::transport::{TlsSocket, Transport, write_all};

/// For the connection, the handshake and the first answer.
const CONNECT: Duration = Duration::from_secs(1);
/// After this time without a connection the next address is tried as well.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
const GREET_AGAIN: Duration = Duration::from_secs(10);
/// An idle tunnel's keepalive. Pings find a lost peer sooner; this one also finds a lost connection. No
/// TCP_USER_TIMEOUT: it also ends connections whose reader only pauses.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// An open connection to a peer.
pub struct PeerStream {
    pub tls: TlsSocket,
    peer: Arc<Peer>,
}

impl Drop for PeerStream {
    fn drop(&mut self) {
        self.peer.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens a connection to the peer, and waits for its first answer: the peer has then accepted this gateway's
/// key, and is not only a kernel that accepts for a process that has stopped.
pub async fn open(peer: &Arc<Peer>) -> io::Result<Rc<PeerStream>> {
    let mut addresses = peer.addresses().into_iter();
    let mut attempts = JoinSet::new();
    let mut failed = io::Error::other("it has no address");
    loop {
        let next = addresses.next();
        let waits = next.is_some();
        if let Some(address) = next {
            attempts.spawn_local(attempt(Arc::clone(peer), address));
        }
        let attempted = if waits && addresses.len() > 0 {
            tokio::select! {
                ended = attempts.join_next() => ended,
                () = sleep(NEXT_ADDRESS) => continue,
            }
        } else {
            attempts.join_next().await
        };
        match attempted {
            Some(Ok(Ok((stream, address)))) => {
                peer.answered_at(address);
                peer.set_state(PeerState::Up, None);
                return Ok(Rc::new(stream));
            }
            // What the peer itself has said says more than another address.
            Some(Ok(Err(why))) if !is_refusal(&failed) => failed = why,
            Some(Ok(Err(_))) => {}
            // A panic is counted where it happened.
            Some(Err(_)) => {}
            None if addresses.len() == 0 => break,
            None => {}
        }
    }
    // The watch says what has become of a peer that has answered before.
    if matches!(peer.state(), PeerState::Unknown | PeerState::Unreachable) {
        peer.set_state(PeerState::Unreachable, Some(failed.to_string()));
    }
    Err(failed)
}

/// Tries a peer that has become an upstream, so that one that cannot be reached is known before it is needed.
pub async fn greet(peer: Arc<Peer>) {
    while !peer.is_gone() && matches!(peer.state(), PeerState::Unknown | PeerState::Unreachable) {
        if open(&peer).await.is_err() {
            sleep(GREET_AGAIN).await;
        }
    }
}

/// The peer is there, but refuses this gateway: it stops, or does not know it.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn refused(why: String) -> io::Error {
    io::Error::other(Refused(why))
}

/// Whether the peer has refused this gateway, and so is there.
pub fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Refused>())
}

async fn attempt(peer: Arc<Peer>, address: SocketAddr) -> io::Result<(PeerStream, SocketAddr)> {
    let opened = timeout(CONNECT, open_at(peer, address)).await;
    let opened = opened.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    opened.map(|stream| (stream, address)).map_err(|error| {
        let why = format!("{address}: {}", explain(&error));
        if is_refusal(&error) { refused(why) } else { io::Error::other(why) }
    })
}

async fn open_at(peer: Arc<Peer>, address: SocketAddr) -> io::Result<PeerStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    SockRef::from(&tcp).set_tcp_keepalive(&KEEPALIVE)?;
    let side = peer.connect()?;
    peer.connections.fetch_add(1, Ordering::Relaxed);
    let stream = PeerStream { tls: TlsSocket::new(tcp, side), peer };
    stream.tls.handshake().await?;
    if !is_protocol(stream.tls.protocol().as_deref()) {
        return Err(io::Error::other("it speaks another protocol"));
    }
    match ping(&stream).await {
        Ok(()) => Ok(stream),
        // The peer has proved its key, so the alert is its own.
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(refused(format!("the peer refuses this node: {error}")))
        }
        Err(error) => Err(error),
    }
}

/// Asks the peer for an answer, and waits for it.
pub async fn ping(stream: &PeerStream) -> io::Result<()> {
    write_all(&stream.tls, PING).await?;
    let mut answer = [0; PONG.len()];
    let mut read = 0;
    while read < answer.len() {
        std::future::poll_fn(|cx| stream.tls.poll_read_ready(cx)).await?;
        match stream.tls.try_read(&mut answer[read..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => read += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if answer == *PONG { Ok(()) } else { Err(refused("the peer refuses requests".into())) }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "no answer within 1 second".into(),
        ErrorKind::UnexpectedEof => "the peer closed the connection".into(),
        ErrorKind::InvalidData => format!("the peer is another one, or TLS failed: {error}"),
        _ => error.to_string(),
    }
}
