//! A client of HTTP/1.1 that finds out what became of its requests.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::gateway::MOST_FIELDS;
use crate::model::{self, Framing};
use crate::reader::{self, Read, ResponseHead};

/// Nothing here takes long, and what does has lost its way.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Client {
    pub socket: TcpStream,
    pub received: Vec<u8>,
    pub end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

impl Client {
    /// To a gateway on this port.
    pub fn connect(port: u16) -> Client {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Client { socket, received: Vec::new(), end: None }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the gateway has promised to go on");
    }

    /// Reads what is there without waiting for more.
    pub fn listen_now(&mut self) {
        self.socket.set_nonblocking(true).expect("a socket");
        self.listen();
        self.socket.set_nonblocking(false).expect("a socket");
        thread::yield_now();
    }

    /// `false` if nothing came.
    fn listen(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let mut piece = [0; 64 * 1024];
        match self.socket.read(&mut piece) {
            Ok(0) => self.end = Some(End::Closed),
            Ok(n) => {
                self.received.extend_from_slice(&piece[..n]);
                return true;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.end = Some(End::Reset),
        }
        false
    }

    /// Reads more, or the end.
    pub fn more(&mut self) -> bool {
        let came = self.listen();
        assert!(came || self.end.is_some(), "the gateway neither answers nor closes");
        came
    }

    pub fn head(&mut self) -> Option<ResponseHead> {
        loop {
            match reader::response_head(&self.received, MOST_FIELDS + 64) {
                Read::Whole(head) => {
                    self.received.drain(..head.size);
                    return Some(head);
                }
                Read::Wrong(why) => panic!("{why}: \"{}\"", self.received.escape_ascii()),
                Read::Partial if !self.more() => return None,
                Read::Partial => {}
            }
        }
    }

    /// A response that is whole.
    pub fn response(&mut self, to_head: bool) -> Option<(ResponseHead, Vec<u8>)> {
        let head = self.head()?;
        let response = model::response(head, to_head).expect("a good head");
        let (body, whole) = self.body(response.framing);
        whole.then_some((response.head, body))
    }

    /// The body as far as it came, and whether it is whole.
    pub fn body(&mut self, framing: Framing) -> (Vec<u8>, bool) {
        match framing {
            Framing::None => (Vec::new(), true),
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                while self.received.len() < length && self.more() {}
                let n = length.min(self.received.len());
                (self.received.drain(..n).collect(), n == length)
            }
            Framing::Close => {
                while self.more() {}
                (std::mem::take(&mut self.received), self.end == Some(End::Closed))
            }
            Framing::Chunked => loop {
                match reader::chunked(&self.received, false) {
                    Read::Whole(body) => {
                        self.received.drain(..body.size);
                        return (body.data, true);
                    }
                    Read::Wrong(why) => panic!("{why}: \"{}\"", self.received.escape_ascii()),
                    Read::Partial if !self.more() => return (data_of(&self.received), false),
                    Read::Partial => {}
                }
            },
        }
    }
}

/// The data of chunks that break off.
fn data_of(chunks: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut rest = chunks;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = std::str::from_utf8(&rest[..end]).expect("a chunk size");
        let size = usize::from_str_radix(line, 16).expect("a chunk size");
        let from = &rest[end + 2..];
        data.extend_from_slice(&from[..size.min(from.len())]);
        rest = from.get(size + 2..).unwrap_or_default();
    }
    data
}
