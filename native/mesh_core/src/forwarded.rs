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

/// RFC 7239 section 4: our hop after those before it. A chain that leaves a quoted string open
/// would swallow ours, so that the client's own words would pass for what a proxy has seen: of such
/// a chain nothing is believed.
fn write_forwarded(out: &mut Vec<u8>, peer: &Peer, host: &[u8], before: &[&[u8]]) {
    out.extend_from_slice(b"Forwarded: ");
    if before.iter().all(|value| closes_its_quotes(value)) {
        append_list(out, before);
    }
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

/// Nothing that comes behind the value is inside a quoted string (RFC 9110 section 5.6.4).
fn closes_its_quotes(value: &[u8]) -> bool {
    let mut quoted = false;
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted && bytes.next().is_none() => return false,
            _ => {}
        }
    }
    !quoted
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

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(received: &[&[u8]]) -> String {
        let peer = Peer::new("10.0.0.1:80".parse().unwrap(), &[]);
        let mut out = Vec::new();
        write_forwarded(&mut out, &peer, b"a", received);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_open_quote_does_not_swallow_our_hop() {
        let ours = "for=10.0.0.1;host=\"a\";proto=http\r\n";
        let quoted = br#"for="_\"x""#;
        assert_eq!(forwarded(&[quoted]), format!("Forwarded: for=\"_\\\"x\", {ours}"));
        for open in [&br#"for=""#[..], br#"for="a\""#, br#"for="a\"#] {
            assert_eq!(forwarded(&[b"for=b", open]), format!("Forwarded: {ours}"));
        }
    }
}
