//! Parses and normalises hosts.
//!
//! The `Host` field, the authority of an absolute-form target and the hosts of the routing table all take
//! this form before they are compared.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

/// RFC 1035 allows 253 octets; one more for a trailing dot, and some room for an IPv6 literal.
const MAX_HOST: usize = 255;

/// A normalised host: lower case, no port, no trailing dot, IPv6 literals in brackets and in canonical text.
/// Borrows the input if it is in this form already, so that most lookups do not allocate.
#[derive(Clone)]
pub struct Host<'b> {
    text: Cow<'b, [u8]>,
    /// The port, if the input has one.
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHost {
    Empty,
    TooLong,
    Character,
    EmptyLabel,
    Port,
    Ipv6,
}

impl fmt::Display for BadHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadHost::Empty => "the host is empty",
            BadHost::TooLong => "the host is longer than 255 bytes",
            BadHost::Character => "the host has an invalid character",
            BadHost::EmptyLabel => "the host has an empty label",
            BadHost::Port => "the port of the host is not a number from 0 to 65535",
            BadHost::Ipv6 => "the host is not a valid IPv6 address in brackets",
        })
    }
}

impl Host<'_> {
    /// Reads `uri-host [ ":" port ]` (RFC 9110 section 7.2, RFC 3986 section 3.2.2).
    pub fn parse(input: &[u8]) -> Result<Host<'_>, BadHost> {
        let (text, rest) =
            if input.first() == Some(&b'[') { ipv6(input)? } else { reg_name(input)? };
        let port = match rest {
            [] => None,
            [b':'] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return Err(BadHost::Character),
        };
        Ok(Host { text, port })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    pub fn as_str(&self) -> &str {
        // `parse` accepts ASCII only.
        std::str::from_utf8(&self.text).unwrap_or("")
    }

    /// Whether the host is an IP address. Addresses have no subdomains, so only exact entries match them.
    pub fn is_address(&self) -> bool {
        let text = self.as_str();
        text.starts_with('[') || text.parse::<std::net::Ipv4Addr>().is_ok()
    }
}

/// Returns the normalised name and the rest of the input.
fn reg_name(input: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), BadHost> {
    let end = input.iter().position(|byte| *byte == b':').unwrap_or(input.len());
    let (mut name, rest) = input.split_at(end);
    let seen = name.iter().fold(0, |seen, byte| seen | CLASS[*byte as usize]);
    if name.is_empty() {
        return Err(BadHost::Empty);
    }
    if let [head @ .., b'.'] = name {
        name = head;
    }
    if name.len() > MAX_HOST {
        return Err(BadHost::TooLong);
    }
    if seen & OTHER != 0 || (seen & PERCENT != 0 && !escapes_are_whole(name)) {
        return Err(BadHost::Character);
    }
    if name.split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
        return Err(BadHost::EmptyLabel);
    }
    let upper = seen & UPPER != 0;
    Ok((if upper { name.to_ascii_lowercase().into() } else { name.into() }, rest))
}

/// Returns the canonical literal and the rest of the input.
fn ipv6(input: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), BadHost> {
    let end = memchr::memchr(b']', input).ok_or(BadHost::Ipv6)?;
    let address: Ipv6Addr = std::str::from_utf8(&input[1..end])
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(BadHost::Ipv6)?;
    Ok((format!("[{address}]").into_bytes().into(), &input[end + 1..]))
}

impl fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({:?}, {:?})", self.as_str(), self.port)
    }
}

fn port(digits: &[u8]) -> Result<u16, BadHost> {
    // At most five digits: "00000000080" is not a plausible port.
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadHost::Port);
    }
    let number = digits.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    u16::try_from(number).map_err(|_| BadHost::Port)
}

/// Classes of bytes in a name. 0 means that the byte needs no further check.
const UPPER: u8 = 1;
const PERCENT: u8 = 2;
const OTHER: u8 = 4;

/// RFC 3986 section 3.2.2: `reg-name = *( unreserved / pct-encoded / sub-delims )`. A table, because every
/// byte of every request's host is looked up.
static CLASS: [u8; 256] = {
    let mut table = [OTHER; 256];
    let plain = b"abcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=";
    let mut i = 0;
    while i < plain.len() {
        table[plain[i] as usize] = 0;
        i += 1;
    }
    let mut upper = b'A';
    while upper <= b'Z' {
        table[upper as usize] = UPPER;
        upper += 1;
    }
    table[b'%' as usize] = PERCENT;
    table
};

/// `pct-encoded = "%" HEXDIG HEXDIG`
fn escapes_are_whole(name: &[u8]) -> bool {
    memchr::memchr_iter(b'%', name)
        .all(|at| matches!(name[at + 1..], [a, b, ..] if [a, b].iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(input: &str) -> Result<String, BadHost> {
        Host::parse(input.as_bytes()).map(|h| h.as_str().to_string())
    }

    #[test]
    fn case_port_and_trailing_dot_do_not_matter() {
        for input in [
            "auth.local",
            "AUTH.Local",
            "auth.local.",
            "auth.local:4000",
            "auth.local.:80",
            "auth.local:",
        ] {
            assert_eq!(text(input).as_deref(), Ok("auth.local"), "{input}");
        }
        assert_eq!(Host::parse(b"auth.local:4000").unwrap().port, Some(4000));
        assert_eq!(Host::parse(b"auth.local").unwrap().port, None);
    }

    #[test]
    fn ipv6_literals_are_canonical() {
        assert_eq!(text("[::1]:4000").as_deref(), Ok("[::1]"));
        assert_eq!(text("[0:0:0:0:0:0:0:1]").as_deref(), Ok("[::1]"));
        assert_eq!(text("[::1"), Err(BadHost::Ipv6));
        assert_eq!(text("[::1]x"), Err(BadHost::Character));
        assert_eq!(text("[fe80::1%25eth0]"), Err(BadHost::Ipv6));
        assert!(Host::parse(b"[::1]").unwrap().is_address());
        assert!(Host::parse(b"127.0.0.1:80").unwrap().is_address());
    }

    #[test]
    fn invalid_hosts_are_rejected() {
        assert_eq!(text(""), Err(BadHost::Empty));
        assert_eq!(text(":80"), Err(BadHost::Empty));
        assert_eq!(text("."), Err(BadHost::EmptyLabel));
        assert_eq!(text("a..b"), Err(BadHost::EmptyLabel));
        assert_eq!(text(".a"), Err(BadHost::EmptyLabel));
        assert_eq!(text("a.."), Err(BadHost::EmptyLabel));
        assert_eq!(text("a b"), Err(BadHost::Character));
        assert_eq!(text("a/b"), Err(BadHost::Character));
        assert_eq!(text("user@a"), Err(BadHost::Character));
        assert_eq!(text("a%zz"), Err(BadHost::Character));
        assert_eq!(text("a%4"), Err(BadHost::Character));
        assert_eq!(text("a%4.b"), Err(BadHost::Character));
        assert_eq!(text("a:b"), Err(BadHost::Port));
        assert_eq!(text("a:65536"), Err(BadHost::Port));
        assert_eq!(text("a:-1"), Err(BadHost::Port));
        assert_eq!(text("a:80:80"), Err(BadHost::Port));
        assert_eq!(text("\u{e9}.local"), Err(BadHost::Character));
        assert_eq!(text(&"a".repeat(256)), Err(BadHost::TooLong));
        assert_eq!(text(&"a".repeat(255)).map(|t| t.len()), Ok(255));
    }
}
