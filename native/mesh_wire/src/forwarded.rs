//! What endpoints are told about the client: `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, and
//! `Forwarded` (RFC 7239) where a trusted proxy already speaks it. A stranger's own fields never
//! survive: applications take the leftmost address of exactly one line for the client's.
//!
//! Of a trusted proxy's `-Proto`, `-Host` and `-Port` the last value counts, in a list or in repeated
//! lines: that one the proxy has added itself, and those before it may be its client's.

use crate::client_addr::ClientAddr;
use crate::fields::{self, Field};
use crate::host::Host;
use crate::lines::number;

/// The forwarded fields that a trusted proxy sent.
#[derive(Default)]
pub struct Received<'b> {
    chain: Vec<&'b [u8]>,
    forwarded: Vec<&'b [u8]>,
    proto: Option<&'b [u8]>,
    host: Option<&'b [u8]>,
    port: Option<&'b [u8]>,
}

/// What the gateway has seen itself of the client's side.
pub struct Seen<'a> {
    pub peer: &'a ClientAddr,
    /// As the client wrote it, or the one that is named in its place.
    pub host: &'a [u8],
    /// The port that it names.
    pub port: Option<u16>,
    /// What no port means to a client that does not use TLS.
    pub http_port: u16,
    /// The client is one of the peer's that uses TLS.
    pub https: bool,
}

impl<'b> Received<'b> {
    pub fn take(&mut self, kind: Field, value: &'b [u8]) {
        let last = match kind {
            Field::XForwardedFor => return self.chain.push(value),
            Field::Forwarded => return self.forwarded.push(value),
            Field::XForwardedProto => &mut self.proto,
            Field::XForwardedHost => &mut self.host,
            Field::XForwardedPort => &mut self.port,
            _ => return,
        };
        *last = fields::members(value).last().or(*last);
    }

    /// Traefik says `wss` of a WebSocket.
    fn https(&self) -> Option<bool> {
        let proto = self.proto?;
        let is = |names: [&[u8]; 2]| names.iter().any(|name| proto.eq_ignore_ascii_case(name));
        if is([b"https", b"wss"]) {
            return Some(true);
        }
        is([b"http", b"ws"]).then_some(false)
    }

    fn host(&self) -> Option<Host<'b>> {
        Host::parse(self.host?).ok()
    }

    fn port(&self) -> Option<u16> {
        let port = u16::try_from(fields::content_length(self.port?)?).ok()?;
        (port > 0).then_some(port)
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
pub fn write(out: &mut Vec<u8>, seen: &Seen<'_>, received: &Received<'_>) {
    let https = received.https().unwrap_or(seen.https);
    let host = received.host();
    let named_port = host.as_ref().map_or(seen.port, |host| host.port);
    // RFC 9110 sections 4.2.1 and 4.2.2: what no port means depends on the scheme.
    let default_port = || if https { 443 } else { seen.http_port };
    let port = received.port().or(named_port).unwrap_or_else(default_port);
    out.extend_from_slice(b"X-Forwarded-For: ");
    append_list(out, &received.chain);
    out.extend_from_slice(seen.peer.text());
    // In one piece, since every request has it.
    let scheme: &[u8] = if https {
        b"\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: "
    } else {
        b"\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: "
    };
    out.extend_from_slice(scheme);
    match &host {
        Some(host) => {
            out.extend_from_slice(host.as_bytes());
            if let Some(port) = host.port {
                out.push(b':');
                number(out, port.into());
            }
        }
        None => out.extend_from_slice(seen.host),
    }
    out.extend_from_slice(b"\r\nX-Forwarded-Port: ");
    number(out, port.into());
    out.extend_from_slice(b"\r\n");
    if !received.forwarded.is_empty() {
        write_forwarded(out, seen, &received.forwarded);
    }
}

/// RFC 7239 section 4: our hop after those before it. A chain that leaves a quoted string open
/// would swallow ours, so that the client's own words would pass for what a proxy has seen: of such
/// a chain nothing is believed.
fn write_forwarded(out: &mut Vec<u8>, seen: &Seen<'_>, before: &[&[u8]]) {
    let peer = seen.peer;
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
    out.extend_from_slice(seen.host);
    let scheme: &[u8] = if seen.https { b"https" } else { b"http" };
    out.extend_from_slice(b"\";proto=");
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"\r\n");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &ClientAddr) -> Seen<'_> {
        Seen { peer, host: b"a", port: None, http_port: 80, https: false }
    }

    fn peer() -> ClientAddr {
        ClientAddr::new("10.0.0.1:80".parse().unwrap(), &[])
    }

    fn forwarded(received: &[&[u8]]) -> String {
        let mut out = Vec::new();
        write_forwarded(&mut out, &seen(&peer()), received);
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

    /// Scheme, host and port that the endpoint is told, in one string.
    fn told(fields: &[(Field, &str)], change: impl FnOnce(&mut Seen<'_>)) -> String {
        let mut received = Received::default();
        fields.iter().for_each(|(kind, value)| received.take(*kind, value.as_bytes()));
        let (mut out, peer) = (Vec::new(), peer());
        let mut seen = seen(&peer);
        change(&mut seen);
        write(&mut out, &seen, &received);
        let text = String::from_utf8(out).unwrap();
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
            let value = lines.next().unwrap().to_string();
            assert!(lines.next().is_none(), "{text}");
            value
        };
        let [proto, host, port] =
            ["Proto", "Host", "Port"].map(|name| value(&format!("X-Forwarded-{name}: ")));
        format!("{proto} {host} {port}")
    }

    use Field::{XForwardedHost as HOST, XForwardedPort as PORT, XForwardedProto as PROTO};

    #[test]
    fn no_port_is_that_of_the_scheme() {
        let as_is = |_: &mut Seen<'_>| {};
        let at_4000 = |seen: &mut Seen<'_>| seen.port = Some(4000);
        assert_eq!(told(&[], as_is), "http a 80");
        assert_eq!(told(&[(PROTO, "https")], as_is), "https a 443");
        assert_eq!(told(&[(PROTO, "https")], at_4000), "https a 4000");
        assert_eq!(told(&[(PROTO, "https"), (HOST, "b")], at_4000), "https b 443");
        assert_eq!(told(&[(PROTO, "https"), (HOST, "b:8443")], as_is), "https b:8443 8443");
        assert_eq!(told(&[(PROTO, "https"), (HOST, "b:1"), (PORT, "2")], as_is), "https b:1 2");
        assert_eq!(told(&[], |seen| seen.https = true), "https a 443");
        assert_eq!(told(&[(PROTO, "http")], |seen| seen.https = true), "http a 80");
        assert_eq!(told(&[(PORT, "443")], as_is), "http a 443");
        for bad in ["", "0", "65536", "+1", "1x", "-1"] {
            assert_eq!(told(&[(PORT, bad)], as_is), "http a 80", "{bad:?}");
        }
    }

    #[test]
    fn of_several_values_the_last_counts_and_is_clean() {
        let as_is = |_: &mut Seen<'_>| {};
        for https in ["HTTPS", "https,https", "http, https", " https ,", "wss", "WSS"] {
            assert_eq!(told(&[(PROTO, https)], as_is), "https a 443", "{https:?}");
        }
        for http in ["https, http", "HTTP", "ws", "ftp", "", "https, gopher", "https;x"] {
            assert_eq!(told(&[(PROTO, http)], as_is), "http a 80", "{http:?}");
        }
        assert_eq!(told(&[(PROTO, "http"), (PROTO, "https")], as_is), "https a 443");
        assert_eq!(told(&[(PROTO, "https"), (PROTO, "")], as_is), "https a 443");
        assert_eq!(told(&[(HOST, "evil, B.Test:81")], as_is), "http b.test:81 81");
        assert_eq!(told(&[(HOST, "evil"), (HOST, "b")], as_is), "http b 80");
        assert_eq!(told(&[(HOST, "[::0:1]:81")], as_is), "http [::1]:81 81");
        for bad in ["", "b/c", "b, c d", "b:x", "<script>"] {
            assert_eq!(told(&[(HOST, bad)], as_is), "http a 80", "{bad:?}");
        }
    }
}
