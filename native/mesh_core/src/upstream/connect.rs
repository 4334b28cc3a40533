//! Opens a connection to an address, and classifies failures.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::h2::UpstreamSocket;
use super::local_ports::LocalPort;
use super::peer;
use super::pool::Pool;
use super::stream::UpstreamStream;
use crate::error::Error;
use crate::mesh::Peer;
use crate::routing::UpstreamAddr;

/// Longest pause between attempts while a Unix socket's queue is full.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// This machine has no source address or no route.
const UNREACHABLE: [i32; 6] = [
    libc::EADDRNOTAVAIL,
    libc::EAFNOSUPPORT,
    libc::ENETUNREACH,
    libc::ENETDOWN,
    libc::EHOSTUNREACH,
    libc::EHOSTDOWN,
];
const FORBIDDEN: [i32; 2] = [libc::EACCES, libc::EPERM];
/// The gateway has run out of sockets.
const OUT_OF_SOCKETS: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];

/// Opens a connection. `limit` applies to each address that is tried.
pub async fn open(pool: &Pool, limit: Option<Duration>) -> Result<UpstreamStream, Error> {
    match pool.address.address.socket() {
        UpstreamAddr::Tcp(address) => tcp(*address, limit).await,
        UpstreamAddr::Loopback(port) => loopback(pool, *port, limit).await,
        UpstreamAddr::Unix(path) => {
            let connected = within(limit, unix(path)).await?;
            connected
                .map(UpstreamStream::Unix)
                .map_err(|error| failure(error, &path.display(), None))
        }
        // Boxed, because every request has room for this, and few open a connection to a peer.
        UpstreamAddr::Peer(it) => Box::pin(open_peer(pool, &it.0)).await,
        // These have a socket, which is another one.
        UpstreamAddr::Vm(_) | UpstreamAddr::Http2(_) => Err(Error::NotListening),
    }
}

/// Opens a socket for HTTP/2.
pub async fn open_socket(pool: &Pool, limit: Option<Duration>) -> Result<UpstreamSocket, Error> {
    match open(pool, limit).await? {
        UpstreamStream::Tcp(port, stream) => Ok(UpstreamSocket::Tcp(port, stream)),
        UpstreamStream::Unix(stream) => Ok(UpstreamSocket::Unix(stream)),
        _ => Err(Error::NotListening),
    }
}

async fn open_peer(pool: &Pool, peer: &Arc<Peer>) -> Result<UpstreamStream, Error> {
    let began = Instant::now();
    // A burst of WebSockets needs a connection each, and all handshakes at once would take too long. The
    // semaphore is never closed.
    let _place = pool.handshakes.acquire().await;
    if pool.health.has_failed_since(began) {
        return Err(Error::ConnectTimeout);
    }
    peer::open(peer).await.map(UpstreamStream::Peer).map_err(Error::Connect)
}

/// IPv6 first: while the endpoint is bound to `::`, no other process can have the port there.
async fn loopback(
    pool: &Pool,
    port: u16,
    limit: Option<Duration>,
) -> Result<UpstreamStream, Error> {
    let prefers_ipv4 = pool.prefers_ipv4.get();
    let address = |ipv4| -> IpAddr {
        if ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
    };
    let first = match tcp((address(prefers_ipv4), port).into(), limit).await {
        Err(Error::OutOfSockets(error)) => return Err(Error::OutOfSockets(error)),
        Err(error) => error,
        opened => return opened,
    };
    match tcp((address(!prefers_ipv4), port).into(), limit).await {
        Ok(stream) => {
            pool.prefers_ipv4.set(!prefers_ipv4);
            Ok(stream)
        }
        // The endpoint's refusal is more useful than a missing IPv6.
        Err(Error::Unreachable(_)) => Err(first),
        Err(second) => Err(second),
    }
}

async fn tcp(address: SocketAddr, limit: Option<Duration>) -> Result<UpstreamStream, Error> {
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let port = LocalPort::new(stream.local_addr()?);
        Ok(UpstreamStream::Tcp(port, stream))
    };
    within(limit, connect).await?.map_err(|error| failure(error, &address, Some(address)))
}

async fn within<T>(
    limit: Option<Duration>,
    connecting: impl Future<Output = io::Result<T>>,
) -> Result<io::Result<T>, Error> {
    match limit {
        Some(limit) => timeout(limit, connecting).await.map_err(|_| Error::ConnectTimeout),
        None => Ok(connecting.await),
    }
}

/// Connects to a Unix socket and waits while its queue is full. The kernel makes TCP wait but refuses a Unix
/// socket at once, which would fail requests to an endpoint that is only busy.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
            connected => return connected,
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn failure(error: io::Error, to: &dyn std::fmt::Display, address: Option<SocketAddr>) -> Error {
    let Some(code) = error.raw_os_error() else { return Error::Connect(error) };
    let out_of_ports = || code == libc::EADDRNOTAVAIL && address.is_some_and(has_source_for);
    if OUT_OF_SOCKETS.contains(&code) || out_of_ports() {
        Error::OutOfSockets(error)
    } else if UNREACHABLE.contains(&code) || FORBIDDEN.contains(&code) {
        let ipv6 = address.is_some_and(|address| address.is_ipv6()) && !FORBIDDEN.contains(&code);
        let hint = if ipv6 { ". Is IPv6 switched off on this machine?" } else { "" };
        Error::Unreachable(format!("{to}: {error}{hint}"))
    } else if code == libc::ETIMEDOUT {
        Error::ConnectTimeout
    } else {
        Error::Connect(error)
    }
}

/// Whether this machine has a source address for `to`. EADDRNOTAVAIL means that it has none, or that no TCP
/// port is left. Connecting a datagram socket tells the two apart: it needs no TCP port.
fn has_source_for(to: SocketAddr) -> bool {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(to));
    let code = connected.err().and_then(|error| error.raw_os_error());
    !code.is_some_and(|code| UNREACHABLE.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: i32, address: &str) -> Error {
        let address: SocketAddr = address.parse().unwrap();
        failure(io::Error::from_raw_os_error(code), &address, Some(address))
    }

    #[test]
    fn system_errors_are_classified() {
        let here = "127.0.0.1:1";
        for code in OUT_OF_SOCKETS {
            assert!(matches!(failed(code, here), Error::OutOfSockets(_)), "{code}");
        }
        // The address exists, so the ports must have run out.
        assert!(matches!(failed(libc::EADDRNOTAVAIL, here), Error::OutOfSockets(_)));
        for code in [libc::ECONNREFUSED, libc::ECONNRESET, libc::ENOENT] {
            assert!(matches!(failed(code, here), Error::Connect(_)), "{code}");
        }
        assert!(matches!(failed(libc::ETIMEDOUT, here), Error::ConnectTimeout));
        for code in [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EAFNOSUPPORT, libc::EACCES] {
            let Error::Unreachable(why) = failed(code, "[::1]:4001") else { panic!("{code}") };
            assert!(why.starts_with("[::1]:4001: "), "{why}");
            assert_eq!(why.contains("IPv6"), code != libc::EACCES, "{why}");
        }
    }
}
