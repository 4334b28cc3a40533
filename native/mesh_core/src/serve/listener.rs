//! Binds the listening sockets before any worker runs, so that a bad port or address is an error value for
//! the caller.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// How many connections may wait to be accepted.
pub const BACKLOG: i32 = 4096;
/// How often to look for a port that is free on all addresses.
const PORT_TRIES: usize = 16;

/// Stops new connections from entering a socket's queue; handshakes that have begun still finish. Otherwise
/// the kernel could accept a connection between the last look at the queue and its end, and the connection
/// would be lost. A client that connects meanwhile repeats its SYN after a second and is refused. Linux
/// only.
pub fn reject_new(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    {
        use socket2::SockFilter;
        const FLAGS: u32 = 13;
        const SYN_ACK: u32 = 0x12;
        const SYN: u32 = 0x02;
        // BPF: load the TCP flags, mask them, and drop a SYN without an ACK.
        let no_syn = [
            SockFilter::new(0x30, 0, 0, FLAGS),
            SockFilter::new(0x54, 0, 0, SYN_ACK),
            SockFilter::new(0x15, 0, 1, SYN),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        // If filters are forbidden, a very small gap remains.
        let _ = SockRef::from(listener).attach_filter(&no_syn);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

#[derive(Debug)]
pub struct OpenError {
    pub address: SocketAddr,
    pub source: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.source)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Where a socket listens, and whether one of IPv6 accepts IPv4, too. The error says why it is none that a
/// gateway can use. Changes nothing, because others may use the socket.
pub fn listener_address(socket: BorrowedFd<'_>) -> Result<(SocketAddr, bool), String> {
    let socket = SockRef::from(&socket);
    let unreadable = |error: io::Error| format!("it cannot be read ({error})");
    let kind = socket.r#type().map_err(|error| format!("there is no such socket ({error})"))?;
    if kind != Type::STREAM {
        let kind = if kind == Type::DGRAM { "a datagram" } else { "another" };
        return Err(format!("it is {kind} socket, not a stream socket"));
    }
    #[cfg(target_os = "linux")]
    if !socket.is_listener().map_err(unreadable)? {
        return Err("it does not listen (in the unit: `Accept=no`)".into());
    }
    let address = socket.local_addr().map_err(unreadable)?.as_socket();
    let address = address.ok_or("its address family is neither IPv4 nor IPv6")?;
    let is_dual = address.is_ipv6() && !socket.only_v6().map_err(unreadable)?;
    Ok((address, is_dual))
}

/// Binds the addresses beside the sockets that listen already. Returns all. Port 0 is the port of those.
pub fn bind_rest(
    mut sockets: Vec<TcpListener>,
    ips: &[IpAddr],
    port: u16,
) -> Result<Vec<TcpListener>, OpenError> {
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let fail = |source| OpenError { address: unspecified, source };
    let addresses: io::Result<Vec<_>> = sockets
        .iter()
        .map(|socket| {
            socket.set_nonblocking(true)?;
            SockRef::from(socket).set_tcp_nodelay(true)?;
            socket.local_addr()
        })
        .collect();
    let addresses = addresses.map_err(fail)?;
    let port = addresses.first().map_or(port, SocketAddr::port);
    let all: Vec<_> = addresses.iter().map(SocketAddr::ip).chain(ips.iter().copied()).collect();
    for ip in ips {
        let address = SocketAddr::new(*ip, port);
        sockets.push(bind(address, &all).map_err(|source| OpenError { address, source })?);
    }
    Ok(sockets)
}

/// Binds one port on all addresses. Port 0: the system chooses it.
pub fn bind_all(ips: &[IpAddr], port: u16) -> Result<Vec<TcpListener>, OpenError> {
    let mut tries = if port == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_once(ips, port) {
            // Port 0: the port of the first address may be taken on the second.
            Err(error) if tries > 0 && error.source.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
}

fn bind_once(ips: &[IpAddr], mut port: u16) -> Result<Vec<TcpListener>, OpenError> {
    let mut listeners = Vec::with_capacity(ips.len());
    for ip in ips {
        let address = SocketAddr::new(*ip, port);
        let fail = |source| OpenError { address, source };
        let listener = bind(address, ips).map_err(fail)?;
        port = listener.local_addr().map_err(fail)?.port();
        listeners.push(listener);
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, ips: &[IpAddr]) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let IpAddr::V6(ip) = address.ip() {
        // `::` alone covers both families. Beside 0.0.0.0 it must leave IPv4 to that.
        let dual = ip.is_unspecified() && !ips.iter().any(IpAddr::is_ipv4);
        socket.set_only_v6(!dual)?;
    }
    // Allows binding while old connections are in TIME_WAIT. Does not allow two listeners.
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it, which saves a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
