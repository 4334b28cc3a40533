//! A TLS connection as a [`Transport`].
//!
//! rustls is used without its buffers: bytes are decrypted when they are read and encrypted when they are
//! written, so an idle connection owns no buffer.
//!
//! Two rules keep readiness right. What has been decrypted is read before the socket is asked again. What has
//! been encrypted counts as written, and what the socket did not accept of it is sent by the next poll for
//! either direction.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::byte_stream::Transport;

/// Received records: the longest one (RFC 8446 section 5.2) fits several times.
const INCOMING: usize = 64 * 1024;
/// How much is encrypted at once.
const OUTGOING: usize = 64 * 1024;
/// A record's header, its content type and its authentication tag, and room to spare.
const OVERHEAD: usize = 64;
const RECORD: usize = 16 * 1024;
/// How many spare buffers each thread keeps.
const SPARE: usize = 16;

thread_local! {
    static INCOMING_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub struct TlsSocket {
    tcp: TcpStream,
    tls: RefCell<Tls>,
}

struct Tls {
    side: Side,
    incoming: Incoming,
    /// Decrypted bytes that the last reader had no room for, from `plain_from` on.
    plain: Vec<u8>,
    plain_from: usize,
    /// `incoming` may have more whole records.
    more: bool,
    /// rustls has nothing to do until more bytes arrive.
    starved: bool,
    /// Encrypted bytes that the socket has not accepted.
    outgoing: Outgoing,
    /// The peer has sent close_notify.
    ended: bool,
    failed: bool,
}

/// Boxed, because they take several kilobytes.
pub enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What a step of the TLS state machine calls for.
enum Step {
    Again,
    /// The same, after a record of the peer's data, which calls for nothing else.
    Read,
    /// More bytes of the peer.
    Receive,
    /// The peer has closed.
    Ended,
}

impl TlsSocket {
    pub fn new(tcp: TcpStream, side: Side) -> TlsSocket {
        let tls = Tls {
            side,
            incoming: Incoming::default(),
            plain: Vec::new(),
            plain_from: 0,
            more: false,
            starved: false,
            outgoing: Outgoing::default(),
            ended: false,
            failed: false,
        };
        TlsSocket { tcp, tls: RefCell::new(tls) }
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
            let n = tls.run(into)?;
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

impl Tls {
    fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Client(client) => client.is_handshaking(),
            Side::Server(server) => server.is_handshaking(),
        }
    }

    /// Processes the received records until `into` is full or more bytes are needed. Returns how many bytes
    /// are in `into`.
    fn run(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut n = self.take_plain(into);
        while self.failed || !self.starved {
            if n > 0 && n == into.len() {
                self.more = true;
                return Ok(n);
            }
            match self.step(into, &mut n)? {
                Step::Again => {}
                Step::Read => self.starved = self.incoming.is_empty(),
                Step::Receive => self.starved = true,
                Step::Ended => {
                    self.ended = true;
                    break;
                }
            }
        }
        self.more = false;
        self.incoming.release();
        Ok(n)
    }

    fn step(&mut self, into: &mut [u8], n: &mut usize) -> io::Result<Step> {
        if self.failed {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let Tls { side, incoming, plain, outgoing, .. } = self;
        let received = incoming.filled_mut();
        let mut out = Output { into, n, plain, outgoing };
        let (discard, step) = match side {
            Side::Client(client) => out.handle(client.process_tls_records(received)),
            Side::Server(server) => out.handle(server.process_tls_records(received)),
        };
        incoming.consume(discard);
        if step.is_err() {
            self.fail();
        }
        step
    }

    /// Lets rustls write the alert that tells the peer what was wrong.
    fn fail(&mut self) {
        self.failed = true;
        let Tls { side, incoming, plain, outgoing, .. } = self;
        let mut out = Output { into: &mut [], n: &mut 0, plain, outgoing };
        loop {
            let received = incoming.filled_mut();
            let (discard, step) = match side {
                Side::Client(client) => out.handle(client.process_tls_records(received)),
                Side::Server(server) => out.handle(server.process_tls_records(received)),
            };
            incoming.consume(discard);
            if !matches!(step, Ok(Step::Again | Step::Read)) {
                return;
            }
        }
    }

    fn take_plain(&mut self, into: &mut [u8]) -> usize {
        let rest = &self.plain[self.plain_from..];
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        self.plain_from += n;
        if self.plain_from == self.plain.len() {
            self.plain = Vec::new();
            self.plain_from = 0;
        }
        n
    }

    fn receive(&mut self, tcp: &TcpStream) -> io::Result<usize> {
        let read = Transport::try_read(tcp, self.incoming.room());
        match read {
            Ok(n) => {
                self.incoming.advance(n);
                self.starved = false;
            }
            Err(_) => self.incoming.release(),
        }
        read
    }

    /// Encrypts and sends a part of `bytes`. Returns its length.
    fn write(&mut self, bytes: &[u8], tcp: &TcpStream) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(OUTGOING)];
        if !part.is_empty() {
            self.encrypt(Some(part))?;
            self.flush(tcp)?;
        }
        Ok(part.len())
    }

    /// Appends the encrypted bytes to `outgoing`; `None` is a close_notify.
    fn encrypt(&mut self, bytes: Option<&[u8]>) -> io::Result<()> {
        loop {
            // What has arrived comes first: rustls offers it before it lets us write.
            let Tls { side, incoming, plain, outgoing, .. } = self;
            let received = incoming.filled_mut();
            let mut out = Output { into: &mut [], n: &mut 0, plain, outgoing };
            let (discard, done) = match side {
                Side::Client(client) => out.write(client.process_tls_records(received), bytes),
                Side::Server(server) => out.write(server.process_tls_records(received), bytes),
            };
            incoming.consume(discard);
            match done {
                Ok(Written::Done) => return Ok(()),
                Ok(Written::Again) => {}
                Ok(Written::PeerEnded) => self.ended = true,
                Err(error) => {
                    self.fail();
                    return Err(error);
                }
            }
        }
    }

    /// Sends the encrypted bytes. Returns whether the socket has accepted them all.
    fn flush(&mut self, tcp: &TcpStream) -> io::Result<bool> {
        while !self.outgoing.is_empty() {
            match Transport::try_write(tcp, self.outgoing.filled()) {
                Ok(n) => self.outgoing.consume(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing.release();
        Ok(true)
    }
}

/// Where the results of a step go.
struct Output<'t> {
    into: &'t mut [u8],
    n: &'t mut usize,
    plain: &'t mut Vec<u8>,
    outgoing: &'t mut Outgoing,
}

impl Output<'_> {
    /// Carries out a step. Returns how many received bytes it has used.
    fn handle<D>(&mut self, status: UnbufferedStatus<'_, '_, D>) -> (usize, io::Result<Step>) {
        let UnbufferedStatus { mut discard, state } = status;
        let step = match state {
            Err(error) => Err(io::Error::new(ErrorKind::InvalidData, error)),
            Ok(state) => self.proceed(state, &mut discard),
        };
        (discard, step)
    }

    /// Encrypts `bytes`, or a close_notify, if the state allows it.
    fn write<D>(
        &mut self,
        status: UnbufferedStatus<'_, '_, D>,
        bytes: Option<&[u8]>,
    ) -> (usize, io::Result<Written>) {
        let UnbufferedStatus { mut discard, state } = status;
        let written = match state {
            Err(error) => Err(io::Error::new(ErrorKind::InvalidData, error)),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let length = bytes.map_or(0, <[u8]>::len);
                let size = length + (length / RECORD + 1) * OVERHEAD;
                let encrypted = self.append(size, |room| match bytes {
                    Some(bytes) => traffic.encrypt(bytes, room),
                    None => traffic.queue_close_notify(room),
                });
                encrypted.map(|()| Written::Done)
            }
            Ok(ConnectionState::Closed) => Err(ErrorKind::BrokenPipe.into()),
            Ok(state) => match self.proceed(state, &mut discard) {
                Ok(Step::Again | Step::Read) => Ok(Written::Again),
                Ok(Step::Ended) => Ok(Written::PeerEnded),
                Ok(Step::Receive) => Err(ErrorKind::NotConnected.into()),
                Err(error) => Err(error),
            },
        };
        (discard, written)
    }

    fn proceed<D>(
        &mut self,
        state: ConnectionState<'_, '_, D>,
        discard: &mut usize,
    ) -> io::Result<Step> {
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
                    *discard += record.discard;
                    let room = &mut self.into[*self.n..];
                    let fits = record.payload.len().min(room.len());
                    room[..fits].copy_from_slice(&record.payload[..fits]);
                    *self.n += fits;
                    self.plain.extend_from_slice(&record.payload[fits..]);
                }
                Ok(Step::Read)
            }
            ConnectionState::EncodeTlsData(mut data) => {
                self.append(RECORD, |room| {
                    data.encode(room).map_err(|error| match error {
                        EncodeError::InsufficientSize(size) => EncryptError::InsufficientSize(size),
                        EncodeError::AlreadyEncoded => EncryptError::EncryptExhausted,
                    })
                })?;
                Ok(Step::Again)
            }
            ConnectionState::TransmitTlsData(data) => {
                // Sent before anything else: it is in `outgoing`.
                data.done();
                Ok(Step::Again)
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                Ok(Step::Receive)
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Step::Ended),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Appends to `outgoing` what `write` puts into the room.
    fn append(
        &mut self,
        mut size: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        loop {
            match write(self.outgoing.room(size)) {
                Ok(written) => {
                    self.outgoing.advance(written);
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(more)) if more.required_size > size => {
                    size = more.required_size;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

enum Written {
    Done,
    Again,
    PeerEnded,
}

/// Encrypted bytes that have not been sent.
#[derive(Default)]
struct Outgoing {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
    }

    /// Room for more. It is zeroed only when the buffer grows.
    fn room(&mut self, size: usize) -> &mut [u8] {
        if self.data.is_empty() {
            self.data = SCRATCH.take();
        }
        if self.data.len() < self.end + size {
            self.data.resize(self.end + size, 0);
        }
        &mut self.data[self.end..self.end + size]
    }

    fn advance(&mut self, n: usize) {
        self.end += n;
    }

    /// Returns the buffer, which is empty.
    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        let data = std::mem::take(&mut self.data);
        if (1..=2 * OUTGOING).contains(&data.len()) {
            SCRATCH.set(data);
        }
    }
}

/// Received records that have not been processed.
#[derive(Default)]
struct Incoming {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// The room for more, which is never empty: a record that is not whole fits several times.
    fn room(&mut self) -> &mut [u8] {
        if self.data.is_empty() {
            let spare = INCOMING_BUFFERS.with_borrow_mut(Vec::pop);
            self.data = spare.unwrap_or_else(|| vec![0; INCOMING]);
        }
        if self.start > 0 && self.data.len() - self.end < INCOMING / 2 {
            self.data.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.data[self.end..]
    }

    fn advance(&mut self, n: usize) {
        self.end += n;
    }

    /// Returns the buffer if it is empty.
    fn release(&mut self) {
        if self.is_empty() && !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            INCOMING_BUFFERS.with_borrow_mut(|spare| {
                if spare.len() < SPARE {
                    spare.push(data);
                }
            });
        }
    }
}
