//! What endpoints are told about the client: `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, and
//! `Forwarded` (RFC 7239) where a trusted proxy already speaks it. A stranger's own fields never
//! survive: applications take the leftmost address of exactly one line for the client's.

use crate::http1::fields::Field;
use crate::peer::Peer;

/// The forwarded fields that a trusted proxy sent.
#[derive(Default)]
pub struct Received<'b> {
    chain: Vec<&'b [u8]>,
    forwarded: Vec<&'b [u8]>,
    proto: Single<'b>,
    host: Single<'b>,
    port: Single<'b>,
}

/// A field that may come once. Twice is as good as never: nobody can tell which one is meant.
#[derive(Clone, Copy, Default)]
enum Single<'b> {
    #[default]
    Absent,
    One(&'b [u8]),
    Many,
}

impl<'b> Single<'b> {
    fn take(&mut self, value: &'b [u8]) {
        *self = match self {
            Single::Absent => Single::One(value),
            _ => Single::Many,
        };
    }

    fn or(self, ours: &'b [u8]) -> &'b [u8] {
        match self {
            Single::One(theirs) if !theirs.is_empty() => theirs,
            _ => ours,
        }
    }
}

impl<'b> Received<'b> {
    pub fn take(&mut self, kind: Field, value: &'b [u8]) {
        match kind {
            Field::XForwardedFor => self.chain.push(value),
            Field::Forwarded => self.forwarded.push(value),
            Field::XForwardedProto => self.proto.take(value),
            Field::XForwardedHost => self.host.take(value),
            Field::XForwardedPort => self.port.take(value),
            _ => {}
        }
    }
}

/// Fields that the gateway writes itself.
pub fn is_ours(kind: Field) -> bool {
    matches!(
        kind,
        Field::Forwarded
            | Field::XForwardedFor
            | Field::XForwardedHost
            | Field::XForwardedPort
            | Field::XForwardedProto
    )
}

/// Writes exactly one line of each.
pub fn write(out: &mut Vec<u8>, peer: &Peer, host: &[u8], port: u16, received: &Received<'_>) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    append_list(out, &received.chain);
    out.extend_from_slice(peer.text());
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    out.extend_from_slice(received.proto.or(b"http"));
    out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
    out.extend_from_slice(received.host.or(host));
    out.extend_from_slice(b"\r\nX-Forwarded-Port: ");
    out.extend_from_slice(received.port.or(Digits::of(port).text()));
    out.extend_from_slice(b"\r\n");
    if !received.forwarded.is_empty() {
        write_forwarded(out, peer, host, &received.forwarded);
    }
}

/// RFC 7239 section 4: our hop after those before it.
fn write_forwarded(out: &mut Vec<u8>, peer: &Peer, host: &[u8], before: &[&[u8]]) {
    out.extend_from_slice(b"Forwarded: ");
    append_list(out, before);
    out.extend_from_slice(b"for=");
    if peer.ip.is_ipv6() {
        out.extend_from_slice(b"\"[");
        out.extend_from_slice(peer.text());
        out.extend_from_slice(b"]\"");
    } else {
        out.extend_from_slice(peer.text());
    }
    // Quoted always: a port's colon is no token character. A checked host has no quote in it.
    out.extend_from_slice(b";host=\"");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\";proto=http\r\n");
}

fn append_list(out: &mut Vec<u8>, values: &[&[u8]]) {
    for value in values.iter().filter(|v| !v.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// A port in text, on the stack.
struct Digits {
    bytes: [u8; 5],
    start: usize,
}

impl Digits {
    fn of(mut number: u16) -> Digits {
        let mut digits = Digits { bytes: [b'0'; 5], start: 5 };
        loop {
            digits.start -= 1;
            digits.bytes[digits.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }

    fn text(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}
