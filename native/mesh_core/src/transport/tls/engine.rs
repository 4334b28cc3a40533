//! Drives rustls: takes received records, and makes plain bytes, records to send, and alerts of them.

use std::io::{self, ErrorKind};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use tokio::net::TcpStream;

use super::buffers::{Incoming, OUTGOING, Outgoing};
use crate::transport::byte_stream::Transport;

/// A record's header, its content type and its authentication tag, and room to spare.
const OVERHEAD: usize = 64;
const RECORD: usize = 16 * 1024;

pub struct Tls {
    pub side: Side,
    pub incoming: Incoming,
    /// Decrypted bytes that the last reader had no room for, from `plain_from` on.
    pub plain: Vec<u8>,
    pub plain_from: usize,
    /// `incoming` may have more whole records.
    pub more: bool,
    /// rustls has nothing to do until more bytes arrive.
    pub starved: bool,
    /// Encrypted bytes that the socket has not accepted.
    pub outgoing: Outgoing,
    /// The peer has sent close_notify.
    pub ended: bool,
    pub failed: bool,
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

impl Tls {
    pub fn new(side: Side) -> Tls {
        Tls {
            side,
            incoming: Incoming::default(),
            plain: Vec::new(),
            plain_from: 0,
            more: false,
            starved: false,
            outgoing: Outgoing::default(),
            ended: false,
            failed: false,
        }
    }

    pub fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Client(client) => client.is_handshaking(),
            Side::Server(server) => server.is_handshaking(),
        }
    }

    /// Processes the received records until `into` is full or more bytes are needed. Returns how many bytes
    /// are in `into`.
    pub fn run(&mut self, into: &mut [u8]) -> io::Result<usize> {
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

    /// Lets rustls write the alert that tells the peer what was wrong, and never asks it again: it would find
    /// the same bytes wrong once more.
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
            // Plain bytes from before the failure come first.
            if !matches!(step, Ok(Step::Read)) {
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

    pub fn receive(&mut self, tcp: &TcpStream) -> io::Result<usize> {
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
    pub fn write(&mut self, bytes: &[u8], tcp: &TcpStream) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(OUTGOING)];
        if !part.is_empty() {
            if let Err(error) = self.encrypt(Some(part)) {
                return Err(self.send_alert(error, tcp));
            }
            self.flush(tcp)?;
        }
        Ok(part.len())
    }

    /// Appends the encrypted bytes to `outgoing`; `None` is a close_notify.
    pub fn encrypt(&mut self, bytes: Option<&[u8]>) -> io::Result<()> {
        if self.failed {
            return Err(ErrorKind::ConnectionAborted.into());
        }
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

    /// Sends the alert that tells the peer of the error, if the socket accepts it (RFC 8446 section 6.2).
    #[cold]
    pub fn send_alert(&mut self, error: io::Error, tcp: &TcpStream) -> io::Error {
        let _ = self.flush(tcp);
        error
    }

    /// Sends the encrypted bytes. Returns whether the socket has accepted them all.
    pub fn flush(&mut self, tcp: &TcpStream) -> io::Result<bool> {
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
