//! A client that sends what it is told, byte by byte, and reads with a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::second_reading;
use super::socket::Socket;
use super::wire::{self, Length, Response};

/// How a connection ended, as the reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
    /// It has not ended: nothing more came in time.
    Silent,
}

/// How a response failed to come, and what came of it.
pub type Broken = (End, Option<Box<Response>>);

/// The bytes of a final response and its interim ones, and what has been read in them.
#[derive(Default)]
struct Taken {
    raw: Vec<u8>,
    to_head: bool,
    responses: Vec<Response>,
}

pub struct Client {
    socket: Socket,
    /// Received and not yet taken.
    pub buffer: Vec<u8>,
    taken: Taken,
    patience: Duration,
}

fn new_socket(address: SocketAddr) -> socket2::Socket {
    let domain = socket2::Domain::for_address(address);
    socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket")
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(new_socket(address), address)
    }

    /// From an address of one's own on this machine: everything below 127.0.0.0/8 is.
    pub fn connect_from(ip: IpAddr, address: SocketAddr) -> Client {
        let socket = new_socket(address);
        socket.bind(&SocketAddr::new(ip, 0).into()).expect("an address of this machine");
        Client::over(socket, address)
    }

    /// With a receive buffer so small that a slow reader is soon felt.
    pub fn connect_small(address: SocketAddr) -> Client {
        let socket = new_socket(address);
        socket.set_recv_buffer_size(4096).expect("buffer size");
        Client::over(socket, address)
    }

    fn over(socket: socket2::Socket, address: SocketAddr) -> Client {
        socket.connect_timeout(&address.into(), PATIENCE).expect("cannot connect");
        let stream: TcpStream = socket.into();
        stream.set_nodelay(true).expect("nodelay");
        let socket = Socket::Tcp(stream);
        socket.set_timeouts(PATIENCE);
        Client { socket, buffer: Vec::new(), taken: Taken::default(), patience: PATIENCE }
    }

    pub fn patience(mut self, patience: Duration) -> Client {
        self.patience = patience;
        self.socket.set_timeouts(patience);
        self
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.try_send(bytes.as_ref()).expect("cannot send");
        self
    }

    /// Closes the sending side only.
    pub fn fin(&mut self) {
        self.socket.shutdown(Shutdown::Write);
    }

    /// Closes both sides, for all handles of this connection.
    pub fn hang_up(self) {
        self.socket.shutdown(Shutdown::Both);
    }

    pub fn reset(self) {
        self.socket.reset_on_close();
    }

    /// The port that the connection comes from.
    pub fn port(&self) -> u16 {
        self.socket.port()
    }

    /// Sends on a second handle while this one reads.
    pub fn sender(&self) -> Socket {
        self.socket.try_clone().expect("clone")
    }

    fn fill(&mut self, until: Instant) -> Result<(), End> {
        let mut piece = [0; 64 * 1024];
        loop {
            if Instant::now() >= until {
                return Err(End::Silent);
            }
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(End::Closed),
                Ok(n) => {
                    self.buffer.extend_from_slice(&piece[..n]);
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(End::Silent);
                }
                Err(_) => return Err(End::Reset),
            }
        }
    }

    fn until(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// One response, interim ones included; what has come of it where it is not whole.
    pub fn try_response(&mut self, to_head: bool) -> Result<Response, Broken> {
        let until = self.until();
        let size = loop {
            if let Some(size) = wire::head_size(&self.buffer) {
                break size;
            }
            self.fill(until).map_err(|end| (end, None))?;
        };
        let parsed = wire::response(&self.buffer[..size], to_head);
        let Ok((mut response, length)) = parsed else {
            // Left in the buffer for whoever judges.
            return Err((End::Silent, None));
        };
        let head = self.buffer.drain(..size).collect();
        loop {
            let Ok(progress) = wire::body(&self.buffer, length) else {
                return Err((End::Silent, Some(Box::new(response))));
            };
            response.body = progress.body;
            response.trailers = progress.trailers;
            response.whole = progress.done;
            if progress.done {
                let body = self.buffer.drain(..progress.used).collect();
                return Ok(self.taken(head, body, to_head, response));
            }
            if let Err(end) = self.fill(until) {
                if length == Length::UntilClose && end == End::Closed {
                    response.whole = true;
                    let body = std::mem::take(&mut self.buffer);
                    return Ok(self.taken(head, body, to_head, response));
                }
                return Err((end, Some(Box::new(response))));
            }
        }
    }

    fn taken(
        &mut self,
        head: Vec<u8>,
        body: Vec<u8>,
        to_head: bool,
        response: Response,
    ) -> Response {
        if self.taken.responses.last().is_some_and(Response::is_final) {
            self.taken = Taken::default();
        }
        self.taken.raw.extend([head, body].concat());
        self.taken.to_head = to_head;
        self.taken.responses.push(response.clone());
        response
    }

    /// Compares what was read of the last response with what hyper's client reads.
    pub fn read_again(&self) -> Result<(), String> {
        let Taken { raw, to_head, responses } = &self.taken;
        if responses.last().is_some_and(Response::is_final) {
            second_reading::of_responses(raw, *to_head, responses)?;
        }
        Ok(())
    }

    pub fn response(&mut self) -> Response {
        match self.try_response(false) {
            Ok(response) => {
                self.read_again().expect("another reading");
                response
            }
            Err(why) => panic!("no response: {why:?}; {:?}", self.buffer.escape_ascii()),
        }
    }

    /// Sends a request and reads its response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request).response()
    }

    /// Reads until `bytes` have come.
    pub fn read_until(&mut self, bytes: &[u8]) -> Result<(), End> {
        let until = self.until();
        while !self.buffer.windows(bytes.len().max(1)).any(|w| w == bytes) {
            self.fill(until)?;
        }
        Ok(())
    }

    /// Exactly `n` bytes, taken out of the buffer.
    pub fn read_exact(&mut self, n: usize) -> Result<Vec<u8>, End> {
        let until = self.until();
        while self.buffer.len() < n {
            self.fill(until)?;
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Reads to the end, however it comes.
    pub fn read_to_end(&mut self) -> End {
        let until = self.until();
        loop {
            if let Err(end) = self.fill(until) {
                return end;
            }
        }
    }
}

/// `GET /` with these field lines (each ending in CRLF).
pub fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
}

/// `POST /` with these field lines, and whatever follows the head.
pub fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
}

/// A GET for one target.
pub fn get_target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}
