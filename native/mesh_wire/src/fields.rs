//! Classifies field names, and parses lists and lengths in field values.

use httparse::Header;

use crate::mesh;

/// What a field means to the gateway. `Other` fields are copied unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    Other,
    Accept,
    /// A known name with underscores for hyphens. Servers that turn field names into variables (CGI, WSGI,
    /// Rack, PHP) take it for the known field.
    Alias,
    Close,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    MaxForwards,
    /// Between two gateways, see [`crate::mesh`].
    Mesh,
    ProxyConnection,
    Te,
    Traceparent,
    Tracestate,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    XRequestId,
}

impl FieldKind {
    pub fn of(name: &str) -> FieldKind {
        let name = name.as_bytes();
        // The length identifies all but a few names, so most names cost one jump.
        let (known, field): (&[u8], FieldKind) = match name.len() {
            2 => (b"te", FieldKind::Te),
            3 => (b"via", FieldKind::Via),
            4 if name[0] | 0x20 == b'h' => (b"host", FieldKind::Host),
            4 => (b"date", FieldKind::Date),
            5 => (b"close", FieldKind::Close),
            6 if name[0] | 0x20 == b'a' => (b"accept", FieldKind::Accept),
            6 => (b"expect", FieldKind::Expect),
            7 => (b"upgrade", FieldKind::Upgrade),
            9 if name[0] | 0x20 == b'e' => (mesh::GO.as_bytes(), FieldKind::Mesh),
            9 => (b"forwarded", FieldKind::Forwarded),
            10 if name[0] | 0x20 == b'c' => (b"connection", FieldKind::Connection),
            10 if name[0] | 0x20 == b't' => (b"tracestate", FieldKind::Tracestate),
            10 => (b"keep-alive", FieldKind::KeepAlive),
            11 => (b"traceparent", FieldKind::Traceparent),
            12 if name[0] | 0x20 == b'x' => (b"x-request-id", FieldKind::XRequestId),
            12 => (b"max-forwards", FieldKind::MaxForwards),
            14 if name[0] | 0x20 == b'c' => (b"content-length", FieldKind::ContentLength),
            14 if name[7] | 0x20 == b's' => (mesh::SERVICE.as_bytes(), FieldKind::Mesh),
            14 => (mesh::REFUSED.as_bytes(), FieldKind::Mesh),
            15 => (b"x-forwarded-for", FieldKind::XForwardedFor),
            16 if name[0] | 0x20 == b'p' => (b"proxy-connection", FieldKind::ProxyConnection),
            16 if name[12] | 0x20 == b'h' => (b"x-forwarded-host", FieldKind::XForwardedHost),
            16 => (b"x-forwarded-port", FieldKind::XForwardedPort),
            17 if name[0] | 0x20 == b't' => (b"transfer-encoding", FieldKind::TransferEncoding),
            17 => (b"x-forwarded-proto", FieldKind::XForwardedProto),
            _ => return FieldKind::Other,
        };
        // The first letter rules out nearly all other names.
        if name[0] | 0x20 != known[0] {
            FieldKind::Other
        } else if is_in_lower_case(name, known) {
            field
        } else if is_alias(name, known) {
            FieldKind::Alias
        } else {
            FieldKind::Other
        }
    }

    /// Whether the field is about one connection only (RFC 9110 section 7.6.1). These are removed in both
    /// directions and written anew if they apply to the next connection. `Close` is not a field but a reserved
    /// name (RFC 9112 section 9.6): `Connection: close` names it.
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            FieldKind::Close
                | FieldKind::Connection
                | FieldKind::KeepAlive
                | FieldKind::Mesh
                | FieldKind::ProxyConnection
                | FieldKind::Te
                | FieldKind::TransferEncoding
                | FieldKind::Upgrade
        )
    }

    /// Whether proxies add the field to describe the client or the route. A client must not remove it by naming
    /// it in `Connection`, which some proxies (HAProxy) pass on.
    pub fn is_of_proxies(self, name: &str) -> bool {
        match self {
            FieldKind::Forwarded
            | FieldKind::Via
            | FieldKind::XForwardedFor
            | FieldKind::XForwardedHost
            | FieldKind::XForwardedPort
            | FieldKind::XForwardedProto
            | FieldKind::XRequestId
            | FieldKind::Traceparent
            | FieldKind::Tracestate => true,
            FieldKind::Other => {
                const FAMILY: &str = "x-forwarded-";
                let family = name.get(..FAMILY.len());
                family.is_some_and(|start| start.eq_ignore_ascii_case(FAMILY))
                    || name.eq_ignore_ascii_case("x-real-ip")
            }
            _ => false,
        }
    }

    /// Whether the message would mean something else without the field. `Connection` must not remove it (RFC
    /// 9110 section 7.6.1).
    pub fn is_framing_or_routing(self) -> bool {
        matches!(self, FieldKind::Host | FieldKind::ContentLength | FieldKind::TransferEncoding)
    }
}

/// Whether `name` equals `known` except for case. Setting this bit in a token's byte yields a byte of a known
/// name only for letters, digits and hyphens.
fn is_in_lower_case(name: &[u8], known: &[u8]) -> bool {
    const BIT: u8 = 0x20;
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let same = |name, known| word(name) | u64::from_ne_bytes([BIT; 8]) == word(known);
    let ends = name.first_chunk().zip(name.last_chunk()).filter(|_| name.len() <= 16);
    match (ends, known.first_chunk(), known.last_chunk()) {
        // Compares two words, which may overlap, instead of single bytes.
        (Some((first, last)), Some(a), Some(b)) => same(first, a) && same(last, b),
        _ => name.iter().map(|byte| byte | BIT).eq(known.iter().copied()),
    }
}

/// Whether a server that turns hyphens into underscores takes `name` for `known`.
fn is_alias(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len()
        && name
            .iter()
            .zip(known)
            .all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a, *b) == (b'_', b'-'))
}

/// Whether the field must not be in a trailer section (RFC 9110 section 6.5.1): framing, routing, request
/// modifiers, authentication, content format.
pub fn forbidden_in_trailer(name: &str) -> bool {
    const FORBIDDEN: [&str; 33] = [
        "age",
        "authorization",
        "cache-control",
        "close",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        mesh::GO,
        mesh::REFUSED,
        mesh::SERVICE,
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
    ];
    let name = name.as_bytes();
    FORBIDDEN
        .iter()
        .map(|f| f.as_bytes())
        .any(|f| f.eq_ignore_ascii_case(name) || is_alias(name, f))
}

/// The members of a comma-separated list, trimmed and without empty ones (RFC 9110 section 5.6.1).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty())
}

/// How many members the `Connection` fields of a message may have in total. Each is compared with each
/// field, which is quadratic. Real messages have fewer than ten.
const MAX_CONNECTION_MEMBERS: u8 = 64;

/// The error for more members than that.
pub const TOO_MANY_MEMBERS: &str = "Connection has too many members";

/// The options in the `Connection` fields of a message (RFC 9110 section 7.6.1).
#[derive(Default)]
pub struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// Some options name fields that would otherwise be passed on.
    pub names_fields: bool,
    members: u8,
}

impl ConnectionOptions {
    pub fn add(&mut self, value: &[u8]) -> Result<(), &'static str> {
        for member in members(value) {
            self.members += 1;
            if self.members > MAX_CONNECTION_MEMBERS {
                return Err(TOO_MANY_MEMBERS);
            }
            if member.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if member.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if member.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.names_fields |= names_a_field(member);
            }
        }
        Ok(())
    }

    /// Whether the connection persists after a message of HTTP/1.`minor` (RFC 9112 section 9.3).
    pub fn persists(&self, minor: u8) -> bool {
        !self.close && (minor > 0 || self.keep_alive)
    }
}

/// Whether one of the `Connection` fields names this field.
pub(crate) fn connection_names(name: &str, headers: &[Header<'_>], kinds: &[FieldKind]) -> bool {
    let connection = headers.iter().zip(kinds).filter(|(_, k)| **k == FieldKind::Connection);
    connection
        .flat_map(|(h, _)| members(h.value))
        .any(|member| member.eq_ignore_ascii_case(name.as_bytes()))
}

fn names_a_field(member: &[u8]) -> bool {
    !std::str::from_utf8(member).is_ok_and(|name| FieldKind::of(name).is_hop_by_hop())
}

/// Whether `byte` may be part of a token (RFC 9110 section 5.6.2).
pub fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `name` is a token. A name from HTTP/2 may contain a quotation mark.
pub fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_char)
}

/// `Content-Length = 1*DIGIT` (RFC 9110 section 8.6): digits only, no sign, no list.
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        // A number beyond 64 bits is not a length.
        let next = number.checked_mul(10)?.checked_add(u64::from(digit))?;
        (digit < 10).then_some(next)
    })
}

/// Parses a length that is repeated as a list (RFC 9110 section 8.6). Returns its first text and the number,
/// or `None` if the members differ or one is invalid.
#[cold]
pub fn repeated_length(value: &[u8]) -> Option<(&[u8], u64)> {
    let mut all = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let text = all.next()?;
    let length = content_length(text)?;
    all.all(|other| content_length(other) == Some(length)).then_some((text, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_of_connection_are_bounded_over_all_lines() {
        let mut connection = ConnectionOptions::default();
        let half = vec!["a"; 32].join(", ,");
        assert!(connection.add(half.as_bytes()).is_ok());
        assert!(connection.add(half.as_bytes()).is_ok());
        assert_eq!(connection.add(b",,"), Ok(()));
        assert_eq!(connection.add(b"close"), Err(TOO_MANY_MEMBERS));
    }

    #[test]
    fn names_are_classified_in_any_case() {
        assert_eq!(FieldKind::of("Host"), FieldKind::Host);
        assert_eq!(FieldKind::of("hOST"), FieldKind::Host);
        assert_eq!(FieldKind::of("X-Forwarded-Proto"), FieldKind::XForwardedProto);
        assert_eq!(FieldKind::of("x-forwarded-host"), FieldKind::XForwardedHost);
        assert_eq!(FieldKind::of("X-Forwarded-Port"), FieldKind::XForwardedPort);
        assert_eq!(FieldKind::of("Transfer-Encoding"), FieldKind::TransferEncoding);
        assert_eq!(FieldKind::of("Close"), FieldKind::Close);
        assert_eq!(FieldKind::of("Hose"), FieldKind::Other);
        for alias in ["X_Forwarded_For", "x-forwarded_proto", "X_REQUEST-ID", "Content_Length"] {
            assert_eq!(FieldKind::of(alias), FieldKind::Alias, "{alias}");
        }
        for other in ["X_Forwarded_Fox", "X_Forwarded", "X_Custom", "user_agent", "h_st", "_ost"] {
            assert_eq!(FieldKind::of(other), FieldKind::Other, "{other}");
        }
        assert_eq!(FieldKind::of(""), FieldKind::Other);
    }

    #[test]
    fn aliases_of_forbidden_trailers_are_forbidden() {
        for forbidden in ["Content-Length", "content_length", "X_Forwarded_For", "Set_Cookie"] {
            assert!(forbidden_in_trailer(forbidden), "{forbidden}");
        }
        assert!(!forbidden_in_trailer("x-sum") && !forbidden_in_trailer("x_sum"));
    }

    #[test]
    fn names_must_be_tokens() {
        assert!(is_token("x-sum") && is_token("!#$%&'*+-.^_`|~09az"));
        for bad in ["", "a\"b", "a b", "a:b", "a\r\nb", "\u{e9}"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn lengths_consist_of_digits_only() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"+5", b"-5", b"5,5", b"5 5", b"0x5", b"5a"]
        {
            assert_eq!(content_length(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn equal_lengths_are_merged() {
        assert_eq!(repeated_length(b"5"), Some((&b"5"[..], 5)));
        assert_eq!(repeated_length(b"5, 05 ,5"), Some((&b"5"[..], 5)));
        for bad in [&b""[..], b",", b"5,", b",5", b"5, 6", b"5 5", b"5;5", b"5, x", b"+5, +5"] {
            assert_eq!(repeated_length(bad), None, "{bad:?}");
        }
    }
}
