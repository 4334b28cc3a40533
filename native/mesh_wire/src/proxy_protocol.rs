//! Parses PROXY protocol headers (versions 1 and 2, as HAProxy specifies them).
//!
//! A TCP load balancer sends one per connection to name the client. The gateway believes the header from
//! trusted peers only and requires it of them; otherwise a client could pass for the load balancer.

use std::net::{IpAddr, SocketAddr};

use ppp::{PartialResult, v1, v2};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    V1,
    V2,
    Any,
}

/// The prefix of version 1.
const BEGINNING: &[u8] = b"PROXY ";
/// Longest header of version 1, including CRLF.
const MAX_V1: usize = 107;
/// Longest header of version 2: binary addresses and further data of the sender.
const MAX_V2: usize = 4096;
/// The TLS record of version 2 (section 2.2.7): a byte of flags, then data that is not used here.
const TYPE_SSL: u8 = 0x20;
const SSL_FIXED: usize = 5;
const CLIENT_SSL: u8 = 1;

#[derive(Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Valid so far, but incomplete.
    Partial,
    Whole {
        size: usize,
        /// `None`: the load balancer itself is the client (for example, a health check).
        client: Option<SocketAddr>,
        /// The client uses TLS, which the load balancer terminates.
        tls: bool,
    },
}

impl ProxyProtocol {
    pub fn read(self, bytes: &[u8]) -> Result<ProxyHeader, &'static str> {
        let signature = bytes.len().min(v2::PROTOCOL_PREFIX.len());
        let binary = bytes[..signature] == v2::PROTOCOL_PREFIX[..signature];
        match self {
            ProxyProtocol::V2 if !binary => Err("there is no PROXY protocol version 2 header"),
            ProxyProtocol::V1 if binary && !bytes.is_empty() => {
                Err("there is no PROXY protocol version 1 header")
            }
            _ if binary => read_v2(bytes),
            _ => read_v1(bytes),
        }
    }
}

/// Whether `bytes` begin with a header of either version.
pub fn begins_proxy_header(bytes: &[u8]) -> bool {
    let kinds: [&[u8]; 3] = [b"TCP4 ", b"TCP6 ", b"UNKNOWN"];
    match bytes.strip_prefix(BEGINNING) {
        Some(rest) => kinds.iter().any(|kind| rest.starts_with(kind)),
        None => bytes.starts_with(v2::PROTOCOL_PREFIX),
    }
}

fn read_v1(bytes: &[u8]) -> Result<ProxyHeader, &'static str> {
    const NONE: &str = "there is no PROXY protocol header";
    let n = bytes.len().min(BEGINNING.len());
    if bytes[..n] != BEGINNING[..n] {
        return Err(NONE);
    }
    // The parser rejects incomplete addresses as malformed, so it gets complete lines only.
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(MAX_V1)]) else {
        return if bytes.len() < MAX_V1 { Ok(ProxyHeader::Partial) } else { Err(NONE) };
    };
    let size = end + 1;
    let line = &bytes[..size];
    const MALFORMED: &str = "the PROXY protocol version 1 header is malformed";
    // The parser accepts a space for the CR, and a port with a sign.
    if !line.ends_with(b"\r\n") || line.contains(&b'+') {
        return Err(MALFORMED);
    }
    let header = v1::Header::try_from(line).map_err(|_| MALFORMED)?;
    let client = match header.addresses {
        v1::Addresses::Tcp4(a) => Some(address(a.source_address, a.source_port)),
        v1::Addresses::Tcp6(a) => Some(address(a.source_address, a.source_port)),
        v1::Addresses::Unknown => None,
    };
    Ok(ProxyHeader::Whole { size, client, tls: false })
}

fn read_v2(bytes: &[u8]) -> Result<ProxyHeader, &'static str> {
    // Checked before the rest arrives: the result must not depend on how the bytes are split.
    if let Some(&[high, low]) = bytes.get(14..16)
        && 16 + usize::from(u16::from_be_bytes([high, low])) > MAX_V2
    {
        return Err("the PROXY protocol version 2 header is too long");
    }
    let parsed = v2::Header::try_from(bytes);
    if parsed.is_incomplete() {
        return Ok(ProxyHeader::Partial);
    }
    let header = parsed.map_err(|_| "the PROXY protocol version 2 header is malformed")?;
    let client = match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        (_, v2::Addresses::IPv4(a)) => Some(address(a.source_address, a.source_port)),
        (_, v2::Addresses::IPv6(a)) => Some(address(a.source_address, a.source_port)),
        (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    };
    let tls = header.command == v2::Command::Proxy && uses_tls(&header);
    Ok(ProxyHeader::Whole { size: header.len(), client, tls })
}

/// Ignores everything after a malformed record.
fn uses_tls(header: &v2::Header<'_>) -> bool {
    header.tlvs().map_while(Result::ok).any(|tlv| {
        tlv.kind == TYPE_SSL && tlv.value.len() >= SSL_FIXED && tlv.value[0] & CLIENT_SSL != 0
    })
}

fn address(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x07\x7f\0\0\x01\x12\x34\0\x50GET";

    #[test]
    fn both_versions_are_parsed_at_any_split() {
        let v1 = b"PROXY TCP4 10.0.0.7 127.0.0.1 4660 80\r\nGET";
        for (version, bytes) in [(ProxyProtocol::V1, &v1[..]), (ProxyProtocol::V2, V2)] {
            let size = bytes.len() - 3;
            let whole =
                ProxyHeader::Whole { size, client: "10.0.0.7:4660".parse().ok(), tls: false };
            for version in [version, ProxyProtocol::Any] {
                for cut in 0..size {
                    assert_eq!(version.read(&bytes[..cut]), Ok(ProxyHeader::Partial), "{cut}");
                }
                assert_eq!(version.read(bytes).as_ref(), Ok(&whole));
            }
        }
    }

    #[test]
    fn malformed_and_missing_headers_are_rejected() {
        let unknown = ProxyProtocol::Any.read(b"PROXY UNKNOWN\r\n");
        assert_eq!(unknown, Ok(ProxyHeader::Whole { size: 15, client: None, tls: false }));
        assert!(ProxyProtocol::Any.read(b"GET / HTTP/1.1\r\n").is_err());
        assert!(ProxyProtocol::V1.read(V2).is_err());
        assert!(ProxyProtocol::V2.read(b"PROXY UNKNOWN\r\n").is_err());
        for line_end in ["80\n", "80 \n", "+80\r\n", "080\r\n", "80\r\r\n"] {
            let line = format!("PROXY TCP4 10.0.0.7 127.0.0.1 4660 {line_end}");
            assert!(ProxyProtocol::Any.read(line.as_bytes()).is_err(), "{line:?}");
        }
        let long = [&V2[..14], b"\x13\x88"].concat();
        assert!(ProxyProtocol::V2.read(&long).is_err());
        assert!(ProxyProtocol::Any.read(b"PROXY TCP4 10.0.0.777 1.1.1.1 1 1\r\n").is_err());
        assert!(ProxyProtocol::Any.read(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat()).is_err());
    }
}
