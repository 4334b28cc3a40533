//! A client of HTTP/2 that sends whatever frames it likes (RFC 9113 section 4.1).

use std::net::SocketAddr;

use crate::support::client::{Client, End};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113 section 7).
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// What a GET for `a.test` takes.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of a RST_STREAM or a GOAWAY.
    pub fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field block of literals without indexing (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// RFC 7541 section 5.1, with a prefix of seven bits.
fn length(bytes: &mut Vec<u8>, mut n: usize) {
    if n < 127 {
        return bytes.push(n as u8);
    }
    bytes.push(127);
    n -= 127;
    while n >= 128 {
        bytes.push((n % 128) as u8 | 128);
        n /= 128;
    }
    bytes.push(n as u8);
}

pub struct Raw(pub Client);

impl Raw {
    pub fn open(address: SocketAddr) -> Raw {
        let mut client = Client::connect(address);
        client.send(PREFACE).send(frame(SETTINGS, 0, 0, &[]));
        Raw(client)
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Raw {
        self.0.send(frame(kind, flags, stream, payload));
        self
    }

    /// A request without a body.
    pub fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) -> &mut Raw {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
    }

    pub fn next(&mut self) -> Result<Frame, End> {
        let head = self.0.read_exact(9)?;
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.0.read_exact(size as usize)?;
        Ok(Frame { kind: head[3], stream, payload })
    }

    /// The next frame of this kind on this stream.
    pub fn until(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.next().expect("no such frame");
            if frame.kind == kind && frame.stream == stream {
                return frame;
            }
        }
    }

    /// The next frame of one of these kinds.
    pub fn first(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let frame = self.next().expect("no such frame");
            if kinds.contains(&frame.kind) {
                return frame;
            }
        }
    }

    /// The status of a response, for those that have an index (RFC 7541 appendix A).
    pub fn status(&mut self, stream: u32) -> u16 {
        let head = self.until(HEADERS, stream);
        match head.payload.first() {
            Some(0x88) => 200,
            Some(0x8c) => 400,
            Some(0x8d) => 404,
            _ => 0,
        }
    }
}
