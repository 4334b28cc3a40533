//! Writes the fields that tell endpoints about the client: `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, and
//! `Forwarded` (RFC 7239) if a trusted proxy sent it.
//!
//! Fields of untrusted clients never reach the endpoint: applications take the leftmost address of exactly
//! one line for the client's. If a trusted proxy sends several values of `-Proto`, `-Host` or `-Port`, the
//! last one counts: the proxy has added it, and earlier ones may come from its client.

use crate::client_addr::ClientAddr;
use crate::fields::{self, FieldKind};
use crate::host::Host;
use crate::lines::number;

/// The forwarding fields that a trusted proxy sent.
#[derive(Default)]
pub struct ProxyFields<'b> {
    chain: Vec<&'b [u8]>,
    forwarded: Vec<&'b [u8]>,
    proto: Option<&'b [u8]>,
    host: Option<&'b [u8]>,
    port: Option<&'b [u8]>,
}

/// What the gateway itself knows about the client's connection.
pub struct ClientHop<'a> {
    pub client: &'a ClientAddr,
    /// The host as the client wrote it, or the default host.
    pub host: &'a [u8],
    /// The port in `host`.
    pub port: Option<u16>,
    /// The default port of a client that does not use TLS.
    pub http_port: u16,
    /// The client, or the client of the trusted proxy, uses TLS.
    pub https: bool,
}

impl<'b> ProxyFields<'b> {
    pub fn add(&mut self, kind: FieldKind, value: &'b [u8]) {
        let last = match kind {
            FieldKind::XForwardedFor => return self.chain.push(value),
            FieldKind::Forwarded => return self.forwarded.push(value),
            FieldKind::XForwardedProto => &mut self.proto,
            FieldKind::XForwardedHost => &mut self.host,
            FieldKind::XForwardedPort => &mut self.port,
            _ => return,
        };
        *last = fields::members(value).last().or(*last);
    }

    /// Traefik sends `wss` for a WebSocket.
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

/// Whether the gateway writes this field itself.
pub fn is_forwarding_field(kind: FieldKind) -> bool {
    matches!(
        kind,
        FieldKind::Forwarded
            | FieldKind::XForwardedFor
            | FieldKind::XForwardedHost
            | FieldKind::XForwardedPort
            | FieldKind::XForwardedProto
    )
}

/// Writes exactly one line of each field.
pub fn write(out: &mut Vec<u8>, hop: &ClientHop<'_>, received: &ProxyFields<'_>) {
    let https = received.https().unwrap_or(hop.https);
    let host = received.host();
    let named_port = host.as_ref().map_or(hop.port, |host| host.port);
    // RFC 9110 sections 4.2.1 and 4.2.2: the default port depends on the scheme.
    let default_port = || if https { 443 } else { hop.http_port };
    let port = received.port().or(named_port).unwrap_or_else(default_port);
    out.extend_from_slice(b"X-Forwarded-For: ");
    append_list(out, &received.chain);
    out.extend_from_slice(hop.client.text());
    // One write, because every request has these fields.
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
        None => out.extend_from_slice(hop.host),
    }
    out.extend_from_slice(b"\r\nX-Forwarded-Port: ");
    number(out, port.into());
    out.extend_from_slice(b"\r\n");
    if !received.forwarded.is_empty() {
        write_forwarded(out, hop, &received.forwarded);
    }
}

/// Appends this hop to the hops before it (RFC 7239 section 4). If the earlier hops leave a quoted string
/// open, they would swallow this hop and make the client's own text look like a proxy's: all are dropped.
fn write_forwarded(out: &mut Vec<u8>, hop: &ClientHop<'_>, before: &[&[u8]]) {
    let client = hop.client;
    out.extend_from_slice(b"Forwarded: ");
    if before.iter().all(|value| closes_its_quotes(value)) {
        append_list(out, before);
    }
    out.extend_from_slice(b"for=");
    if client.ip.is_ipv6() {
        out.extend_from_slice(b"\"[");
        out.extend_from_slice(client.text());
        out.extend_from_slice(b"]\"");
    } else {
        out.extend_from_slice(client.text());
    }
    // Always quoted: a port's colon is not a token character. A checked host has no quote.
    out.extend_from_slice(b";host=\"");
    out.extend_from_slice(hop.host);
    let scheme: &[u8] = if hop.https { b"https" } else { b"http" };
    out.extend_from_slice(b"\";proto=");
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"\r\n");
}

/// Whether text after the value is outside of quoted strings (RFC 9110 section 5.6.4).
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

    fn hop(client: &ClientAddr) -> ClientHop<'_> {
        ClientHop { client, host: b"a", port: None, http_port: 80, https: false }
    }

    fn client() -> ClientAddr {
        ClientAddr::new("10.0.0.1:80".parse().unwrap(), &[])
    }

    fn forwarded(received: &[&[u8]]) -> String {
        let mut out = Vec::new();
        write_forwarded(&mut out, &hop(&client()), received);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_open_quote_does_not_swallow_the_gateways_hop() {
        let ours = "for=10.0.0.1;host=\"a\";proto=http\r\n";
        let quoted = br#"for="_\"x""#;
        assert_eq!(forwarded(&[quoted]), format!("Forwarded: for=\"_\\\"x\", {ours}"));
        for open in [&br#"for=""#[..], br#"for="a\""#, br#"for="a\"#] {
            assert_eq!(forwarded(&[b"for=b", open]), format!("Forwarded: {ours}"));
        }
    }

    /// The scheme, host and port that the endpoint gets.
    fn told(fields: &[(FieldKind, &str)], change: impl FnOnce(&mut ClientHop<'_>)) -> String {
        let mut received = ProxyFields::default();
        fields.iter().for_each(|(kind, value)| received.add(*kind, value.as_bytes()));
        let (mut out, client) = (Vec::new(), client());
        let mut hop = hop(&client);
        change(&mut hop);
        write(&mut out, &hop, &received);
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

    use FieldKind::{XForwardedHost as HOST, XForwardedPort as PORT, XForwardedProto as PROTO};

    #[test]
    fn the_default_port_depends_on_the_scheme() {
        let as_is = |_: &mut ClientHop<'_>| {};
        let at_4000 = |hop: &mut ClientHop<'_>| hop.port = Some(4000);
        assert_eq!(told(&[], as_is), "http a 80");
        assert_eq!(told(&[(PROTO, "https")], as_is), "https a 443");
        assert_eq!(told(&[(PROTO, "https")], at_4000), "https a 4000");
        assert_eq!(told(&[(PROTO, "https"), (HOST, "b")], at_4000), "https b 443");
        assert_eq!(told(&[(PROTO, "https"), (HOST, "b:8443")], as_is), "https b:8443 8443");
        assert_eq!(told(&[(PROTO, "https"), (HOST, "b:1"), (PORT, "2")], as_is), "https b:1 2");
        assert_eq!(told(&[], |hop| hop.https = true), "https a 443");
        assert_eq!(told(&[(PROTO, "http")], |hop| hop.https = true), "http a 80");
        assert_eq!(told(&[(PORT, "443")], as_is), "http a 443");
        for bad in ["", "0", "65536", "+1", "1x", "-1"] {
            assert_eq!(told(&[(PORT, bad)], as_is), "http a 80", "{bad:?}");
        }
    }

    #[test]
    fn the_last_of_several_values_counts_and_is_normalised() {
        let as_is = |_: &mut ClientHop<'_>| {};
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
