//! One client connection: sends what it is told to and reads the answer to its end.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::backend::find;

pub struct Connection {
    stream: TcpStream,
    /// A request is under way, which was due at this moment.
    pub due: Option<Instant>,
    sent: usize,
    /// The start of an answer's head that has not come whole.
    head: Vec<u8>,
    /// Bytes still to come; `None` before the end of the head.
    left: Option<u64>,
    /// The handshake is over: an answer is an echo.
    pub tunnel: bool,
}

impl Connection {
    /// Many source addresses, so that closed connections never use up the ports.
    pub fn open(to: SocketAddr, number: usize) -> io::Result<Connection> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let from = Ipv4Addr::new(127, 0, 1, 1 + (number % 100) as u8);
        socket.bind(&SocketAddrV4::new(from, 0).into())?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(115) => return Err(error),
            _ => {}
        }
        Ok(Connection {
            stream: TcpStream::from_std(socket.into()),
            due: None,
            sent: 0,
            head: Vec::new(),
            left: None,
            tunnel: false,
        })
    }

    pub fn register(&mut self, registry: &Registry, token: usize) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.stream, Token(token), both)
    }

    pub fn begin(&mut self, due: Instant, message_size: usize) {
        self.due = Some(due);
        self.sent = 0;
        self.left = self.tunnel.then_some(message_size as u64);
    }

    /// Sends and reads as far as it goes. `true`: the answer is whole.
    pub fn drive(&mut self, out: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
        if self.due.is_none() {
            return Ok(false);
        }
        while self.sent < out.len() {
            match self.stream.write(&out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if is_not_yet(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
            if self.sent == out.len() {
                // Nothing can have come yet: the edge will tell.
                return Ok(false);
            }
        }
        loop {
            let n = match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if is_not_yet(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            if self.take(&buffer[..n])? {
                self.due = None;
                return Ok(true);
            }
            if n < buffer.len() {
                return Ok(false);
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let left = match self.left {
            Some(left) => left.checked_sub(bytes.len() as u64),
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = find(&self.head, b"\r\n\r\n") else { return Ok(false) };
                let length = length(&self.head[..end])?;
                self.tunnel = self.head.starts_with(b"HTTP/1.1 101");
                let body = (self.head.len() - end - 4) as u64;
                self.head.clear();
                length.checked_sub(body)
            }
        };
        // More than was promised.
        let left = left.ok_or(io::ErrorKind::InvalidData)?;
        self.left = Some(left);
        Ok(left == 0)
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// The length of the body after a head; anything but success is an error.
fn length(head: &[u8]) -> io::Result<u64> {
    if head.starts_with(b"HTTP/1.1 101") {
        return Ok(0);
    }
    if !head.starts_with(b"HTTP/1.1 200") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or(head);
        return Err(io::Error::other(String::from_utf8_lossy(line).into_owned()));
    }
    head.split(|byte| *byte == b'\n')
        .find_map(|line| {
            let value = line.get(15..)?;
            let named = line[..15].eq_ignore_ascii_case(b"content-length:");
            named.then(|| std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok())?
        })
        .ok_or_else(|| io::Error::other("an answer without a length"))
}
