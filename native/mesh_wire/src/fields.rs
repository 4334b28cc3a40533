//! The field names that a gateway cares about, and the lists inside field values.

/// What a field means to the gateway. Everything else is `Other` and is copied as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Other,
    Accept,
    /// The name of a known field with underscores in place of hyphens. Servers that turn field names
    /// into variables (CGI, WSGI, Rack, PHP) take it for that field.
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

impl Field {
    pub fn of(name: &str) -> Field {
        let name = name.as_bytes();
        // The length decides between all of them but a few, so that most names cost one jump.
        let (known, field): (&[u8], Field) = match name.len() {
            2 => (b"te", Field::Te),
            3 => (b"via", Field::Via),
            4 if name[0] | 0x20 == b'h' => (b"host", Field::Host),
            4 => (b"date", Field::Date),
            5 => (b"close", Field::Close),
            6 if name[0] | 0x20 == b'a' => (b"accept", Field::Accept),
            6 => (b"expect", Field::Expect),
            7 => (b"upgrade", Field::Upgrade),
            9 => (b"forwarded", Field::Forwarded),
            10 if name[0] | 0x20 == b'c' => (b"connection", Field::Connection),
            10 if name[0] | 0x20 == b't' => (b"tracestate", Field::Tracestate),
            10 => (b"keep-alive", Field::KeepAlive),
            11 => (b"traceparent", Field::Traceparent),
            12 if name[0] | 0x20 == b'x' => (b"x-request-id", Field::XRequestId),
            12 => (b"max-forwards", Field::MaxForwards),
            14 => (b"content-length", Field::ContentLength),
            15 => (b"x-forwarded-for", Field::XForwardedFor),
            16 if name[0] | 0x20 == b'p' => (b"proxy-connection", Field::ProxyConnection),
            16 if name[12] | 0x20 == b'h' => (b"x-forwarded-host", Field::XForwardedHost),
            16 => (b"x-forwarded-port", Field::XForwardedPort),
            17 if name[0] | 0x20 == b't' => (b"transfer-encoding", Field::TransferEncoding),
            17 => (b"x-forwarded-proto", Field::XForwardedProto),
            _ => return Field::Other,
        };
        // The first letter decides between those and nearly everything else.
        if name[0] | 0x20 != known[0] {
            Field::Other
        } else if is_in_lower_case(name, known) {
            field
        } else if is_alias(name, known) {
            Field::Alias
        } else {
            Field::Other
        }
    }

    /// Fields about one connection only (RFC 9110 section 7.6.1), removed in both directions.
    /// What they asked for is asked for anew where it applies to the next connection. `Close` is
    /// no field at all, but a reserved name (RFC 9112 section 9.6): `Connection: close` names it.
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Field::Close
                | Field::Connection
                | Field::KeepAlive
                | Field::ProxyConnection
                | Field::Te
                | Field::TransferEncoding
                | Field::Upgrade
        )
    }

    /// Fields that a proxy in front adds to say who the client is and which way the request came. A
    /// client must not remove them by naming them in `Connection`: some proxies (HAProxy) pass that
    /// field on.
    pub fn is_of_proxies(self, name: &str) -> bool {
        match self {
            Field::Forwarded
            | Field::Via
            | Field::XForwardedFor
            | Field::XForwardedHost
            | Field::XForwardedPort
            | Field::XForwardedProto
            | Field::XRequestId
            | Field::Traceparent
            | Field::Tracestate => true,
            Field::Other => {
                const FAMILY: &str = "x-forwarded-";
                let family = name.get(..FAMILY.len());
                family.is_some_and(|start| start.eq_ignore_ascii_case(FAMILY))
                    || name.eq_ignore_ascii_case("x-real-ip")
            }
            _ => false,
        }
    }

    /// Fields that nobody removes by naming them in `Connection`: without them the message would
    /// mean something else (RFC 9110 section 7.6.1 forbids to list them).
    pub fn is_framing_or_routing(self) -> bool {
        matches!(self, Field::Host | Field::ContentLength | Field::TransferEncoding)
    }
}

/// Whether a token of the same length is `known` but for its case. Of a token's bytes only letters
/// change with this bit into what a known name has.
fn is_in_lower_case(name: &[u8], known: &[u8]) -> bool {
    const BIT: u8 = 0x20;
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let same = |name, known| word(name) | u64::from_ne_bytes([BIT; 8]) == word(known);
    let ends = name.first_chunk().zip(name.last_chunk()).filter(|_| name.len() <= 16);
    match (ends, known.first_chunk(), known.last_chunk()) {
        // Two words, which may overlap, instead of byte after byte.
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

/// Fields that have no place in a trailer section (RFC 9110 section 6.5.1): framing, routing,
/// request modifiers, authentication, content format.
pub fn forbidden_in_trailer(name: &str) -> bool {
    const FORBIDDEN: [&str; 30] = [
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

/// The members of a comma-separated list, without white space and without empty ones
/// (RFC 9110 section 5.6.1).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty())
}

/// Most members that the `Connection` fields of a message may have in all. Each names a field at
/// most, and has to be compared with each field: without a bound that is quadratic, and no real
/// message has ten of them.
const MAX_CONNECTION_MEMBERS: u8 = 64;

/// `Connection` has more members than that.
pub const TOO_MANY_MEMBERS: &str = "Connection has too many members";

/// What the `Connection` fields of a message say (RFC 9110 section 7.6.1).
#[derive(Default)]
pub struct Connection {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// They name fields that would go on if they did not.
    pub names_fields: bool,
    members: u8,
}

impl Connection {
    pub fn take(&mut self, value: &[u8]) -> Result<(), &'static str> {
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

    /// Whether another message may follow, after one of HTTP/1.`minor` (RFC 9112 section 9.3).
    pub fn persists(&self, minor: u8) -> bool {
        !self.close && (minor > 0 || self.keep_alive)
    }
}

fn names_a_field(member: &[u8]) -> bool {
    !std::str::from_utf8(member).is_ok_and(|name| Field::of(name).is_hop_by_hop())
}

/// A token's characters (RFC 9110 section 5.6.2).
pub fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a name is one. What has been read from HTTP/2 may have a quotation mark in it.
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
        // What does not fit in 64 bits is no length.
        let next = number.checked_mul(10)?.checked_add(u64::from(digit))?;
        (digit < 10).then_some(next)
    })
}

/// The length that a field has several times, as a list (RFC 9110 section 8.6), and how it was
/// written the first time. `None`: it is no length, or there are two.
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
    fn the_members_of_connection_are_bounded_over_all_its_lines() {
        let mut connection = Connection::default();
        let half = vec!["a"; 32].join(", ,");
        assert!(connection.take(half.as_bytes()).is_ok());
        assert!(connection.take(half.as_bytes()).is_ok());
        assert_eq!(connection.take(b",,"), Ok(()));
        assert_eq!(connection.take(b"close"), Err(TOO_MANY_MEMBERS));
    }

    #[test]
    fn names_are_found_whatever_their_case() {
        assert_eq!(Field::of("Host"), Field::Host);
        assert_eq!(Field::of("hOST"), Field::Host);
        assert_eq!(Field::of("X-Forwarded-Proto"), Field::XForwardedProto);
        assert_eq!(Field::of("x-forwarded-host"), Field::XForwardedHost);
        assert_eq!(Field::of("X-Forwarded-Port"), Field::XForwardedPort);
        assert_eq!(Field::of("Transfer-Encoding"), Field::TransferEncoding);
        assert_eq!(Field::of("Close"), Field::Close);
        assert_eq!(Field::of("Hose"), Field::Other);
        for alias in ["X_Forwarded_For", "x-forwarded_proto", "X_REQUEST-ID", "Content_Length"] {
            assert_eq!(Field::of(alias), Field::Alias, "{alias}");
        }
        for other in ["X_Forwarded_Fox", "X_Forwarded", "X_Custom", "user_agent", "h_st", "_ost"] {
            assert_eq!(Field::of(other), Field::Other, "{other}");
        }
        assert_eq!(Field::of(""), Field::Other);
    }

    #[test]
    fn trailers_do_not_get_in_under_another_name() {
        for forbidden in ["Content-Length", "content_length", "X_Forwarded_For", "Set_Cookie"] {
            assert!(forbidden_in_trailer(forbidden), "{forbidden}");
        }
        assert!(!forbidden_in_trailer("x-sum") && !forbidden_in_trailer("x_sum"));
    }

    #[test]
    fn a_name_is_a_token() {
        assert!(is_token("x-sum") && is_token("!#$%&'*+-.^_`|~09az"));
        for bad in ["", "a\"b", "a b", "a:b", "a\r\nb", "\u{e9}"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn lengths_are_digits_and_nothing_else() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"+5", b"-5", b"5,5", b"5 5", b"0x5", b"5a"]
        {
            assert_eq!(content_length(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn equal_lengths_are_one() {
        assert_eq!(repeated_length(b"5"), Some((&b"5"[..], 5)));
        assert_eq!(repeated_length(b"5, 05 ,5"), Some((&b"5"[..], 5)));
        for bad in [&b""[..], b",", b"5,", b",5", b"5, 6", b"5 5", b"5;5", b"5, x", b"+5, +5"] {
            assert_eq!(repeated_length(bad), None, "{bad:?}");
        }
    }
}
