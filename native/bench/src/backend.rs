//! The endpoint behind every proxy: as cheap as can be, so that the proxies are what is measured.
//! `/N` answers N bytes; a request body is discarded; a WebSocket is echoed. With `--delay MS` it waits that long
//! before each of these.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};

use crate::args::Args;

const TCP: Token = Token(0);
const UNIX: Token = Token(1);
const FIRST: usize = 2;
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(into),
            Socket::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }
}

struct Connection {
    socket: Socket,
    /// The start of a head that has not come whole.
    head: Vec<u8>,
    /// Bytes of a request body still to be discarded.
    body: u64,
    answer: Rc<Vec<u8>>,
    sent: usize,
    close: bool,
    echo: bool,
}

pub fn run(args: &Args) -> io::Result<()> {
    let address = format!("127.0.0.1:{}", args.word(0)).parse().map_err(io::Error::other)?;
    let mut poll = Poll::new()?;
    let mut tcp = TcpListener::bind(address)?;
    // The default backlog of 1024 overflows when thousands connect at once.
    socket2::SockRef::from(&tcp).listen(16 * 1024)?;
    poll.registry().register(&mut tcp, TCP, Interest::READABLE)?;
    let path = args.word(1);
    let mut unix = if path.is_empty() {
        None
    } else {
        let _ = std::fs::remove_file(path);
        let mut unix = UnixListener::bind(path)?;
        socket2::SockRef::from(&unix).listen(16 * 1024)?;
        poll.registry().register(&mut unix, UNIX, Interest::READABLE)?;
        Some(unix)
    };
    let mut answers = Answers::default();
    let mut connections: HashMap<usize, Connection> = HashMap::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 256 * 1024];
    let delay = Duration::from_millis(args.number("delay", 0));
    // Connections with something to do, the first one first.
    let mut due: VecDeque<(Instant, usize)> = VecDeque::new();
    loop {
        let pause = due.front().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        poll.poll(&mut events, pause)?;
        for event in &events {
            match event.token() {
                TCP => {
                    while let Ok((stream, _)) = tcp.accept() {
                        stream.set_nodelay(true)?;
                        admit(&poll, &mut connections, Socket::Tcp(stream))?;
                    }
                }
                UNIX => {
                    while let Some(Ok((stream, _))) = unix.as_mut().map(|unix| unix.accept()) {
                        admit(&poll, &mut connections, Socket::Unix(stream))?;
                    }
                }
                Token(token) if delay.is_zero() || !event.is_readable() => {
                    drive(&mut connections, token, &mut buffer, &mut answers);
                }
                Token(token) => due.push_back((Instant::now() + delay, token)),
            }
        }
        while let Some((at, token)) = due.front().copied()
            && at <= Instant::now()
        {
            due.pop_front();
            drive(&mut connections, token, &mut buffer, &mut answers);
        }
    }
}

fn drive(
    connections: &mut HashMap<usize, Connection>,
    token: usize,
    buffer: &mut [u8],
    answers: &mut Answers,
) {
    let Some(connection) = connections.get_mut(&token) else { return };
    if connection.drive(buffer, answers).is_err() {
        connections.remove(&token);
    }
}

fn admit(
    poll: &Poll,
    connections: &mut HashMap<usize, Connection>,
    mut socket: Socket,
) -> io::Result<()> {
    let both = Interest::READABLE | Interest::WRITABLE;
    let token = match &mut socket {
        Socket::Tcp(stream) => {
            let token = FIRST + stream.as_raw_fd() as usize;
            poll.registry().register(stream, Token(token), both)?;
            token
        }
        Socket::Unix(stream) => {
            let token = FIRST + stream.as_raw_fd() as usize;
            poll.registry().register(stream, Token(token), both)?;
            token
        }
    };
    let connection = Connection {
        socket,
        head: Vec::new(),
        body: 0,
        answer: Rc::default(),
        sent: 0,
        close: false,
        echo: false,
    };
    connections.insert(token, connection);
    Ok(())
}

impl Connection {
    /// Goes on until the socket has nothing more to give or to take. An error ends the connection.
    fn drive(&mut self, buffer: &mut [u8], answers: &mut Answers) -> io::Result<()> {
        loop {
            if !self.flush()? {
                return Ok(());
            }
            let n = match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.take(&buffer[..n], answers)?;
            self.flush()?;
            // A short read has emptied the socket: the edge will tell of more.
            if n < buffer.len() && self.sent == self.answer.len() {
                return Ok(());
            }
        }
    }

    /// `false`: the peer takes no more for now.
    fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.answer.len() {
            match self.socket.write(&self.answer[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if self.close && !self.answer.is_empty() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(true)
    }

    fn take(&mut self, mut bytes: &[u8], answers: &mut Answers) -> io::Result<()> {
        if self.echo {
            self.answer = Rc::new(bytes.to_vec());
            self.sent = 0;
            return Ok(());
        }
        if self.body > 0 {
            let n = self.body.min(bytes.len() as u64);
            self.body -= n;
            if self.body > 0 {
                return Ok(());
            }
            bytes = &bytes[n as usize..];
            self.sent = 0;
            self.answer = answers.of(2);
            if bytes.is_empty() {
                return Ok(());
            }
        }
        let whole = if self.head.is_empty() {
            bytes
        } else {
            self.head.extend_from_slice(bytes);
            &self.head
        };
        let Some(end) = find(whole, b"\r\n\r\n") else {
            if self.head.is_empty() {
                self.head.extend_from_slice(bytes);
            }
            return Ok(());
        };
        let request = Request::read(&whole[..end])?;
        let rest = (whole.len() - end - 4) as u64;
        self.close = request.close;
        self.echo = request.upgrade;
        self.sent = 0;
        self.body = request.length.saturating_sub(rest);
        self.answer = if request.upgrade {
            answers.switching()
        } else if self.body > 0 {
            Rc::default()
        } else {
            answers.of(if request.length > 0 { 2 } else { request.wanted })
        };
        self.head = Vec::new();
        Ok(())
    }
}

struct Request {
    wanted: usize,
    length: u64,
    close: bool,
    upgrade: bool,
}

impl Request {
    fn read(head: &[u8]) -> io::Result<Request> {
        let bad = || io::Error::other("not a request");
        let mut lines = head.split(|byte| *byte == b'\n');
        let line = lines.next().ok_or_else(bad)?;
        let path = line.split(|byte| *byte == b' ').nth(1).ok_or_else(bad)?;
        let wanted = std::str::from_utf8(path.strip_prefix(b"/").ok_or_else(bad)?)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0);
        let mut request = Request { wanted, length: 0, close: false, upgrade: false };
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let value = line[colon + 1..].trim_ascii();
            let name = &line[..colon];
            if name.eq_ignore_ascii_case(b"content-length") {
                let digits = std::str::from_utf8(value).map_err(io::Error::other)?;
                request.length = digits.parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case(b"connection") {
                request.close = value.eq_ignore_ascii_case(b"close");
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                request.upgrade = true;
            }
        }
        Ok(request)
    }
}

/// Whole answers, made once.
#[derive(Default)]
struct Answers {
    by_size: HashMap<usize, Rc<Vec<u8>>>,
    switching: Option<Rc<Vec<u8>>>,
}

impl Answers {
    fn of(&mut self, size: usize) -> Rc<Vec<u8>> {
        let answer = self.by_size.entry(size).or_insert_with(|| {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: {size}\r\n\
                 content-type: text/plain; charset=utf-8\r\n\
                 cache-control: max-age=0, private, must-revalidate\r\n\
                 x-request-id: GFc1xQ2Jq0lXnLkAAAZB\r\n\r\n"
            )
            .into_bytes();
            answer.resize(answer.len() + size, b'x');
            Rc::new(answer)
        });
        Rc::clone(answer)
    }

    fn switching(&mut self) -> Rc<Vec<u8>> {
        Rc::clone(self.switching.get_or_insert_with(|| Rc::new(SWITCHING.to_vec())))
    }
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
