//! A deliberately naive reader of HTTP/1.1 messages, written from the grammar of RFC 9112 and from
//! nothing in mesh_core. It wants the whole message in one slice, goes line by line, copies what it
//! finds, and takes no liberty that the RFC merely allows. What it says is what the gateway must say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What reading a slice came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<T> {
    Whole(T),
    /// Nothing wrong with the complete lines so far.
    Partial,
    Wrong(&'static str),
}

use Read::{Partial, Whole, Wrong};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub value: Vec<u8>,
    /// The line, without its CRLF.
    pub line: Vec<u8>,
}

impl Field {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub method: String,
    pub target: String,
    pub minor: u8,
    pub fields: Vec<Field>,
    pub size: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    pub minor: u8,
    pub status: u16,
    pub reason: Vec<u8>,
    pub fields: Vec<Field>,
    pub size: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkedBody {
    pub data: Vec<u8>,
    pub trailers: Vec<Field>,
    pub size: usize,
}

/// Chunk extensions are of no use to anybody and are bounded, with the white space before them.
const MAX_EXTENSION: usize = 1024;
/// Empty lines that a client may send before a request.
const MAX_EMPTY_LINES: usize = 8;
const MAX_TRAILERS: usize = 64;

/// Bytes of the empty lines before a request, leftovers of old clients (RFC 9112 section 2.2).
pub fn empty_lines(bytes: &[u8]) -> usize {
    let lines = bytes.chunks_exact(2).take(MAX_EMPTY_LINES);
    2 * lines.take_while(|line| *line == b"\r\n").count()
}

pub fn request_head(bytes: &[u8], most_fields: usize) -> Read<RequestHead> {
    let (first, fields, size) = match lines_and_fields(bytes, most_fields) {
        Whole(read) => read,
        Partial => return Partial,
        Wrong(why) => return Wrong(why),
    };
    // request-line = method SP request-target SP HTTP-version
    let parts: Vec<&[u8]> = first.split(|b| *b == b' ').collect();
    let &[method, target, version] = &parts[..] else { return Wrong("request line") };
    if method.is_empty() || !method.iter().all(|b| is_tchar(*b)) {
        return Wrong("method");
    }
    if target.is_empty() || target.iter().any(|b| *b <= b' ' || *b == 0x7f) {
        return Wrong("target");
    }
    let (Ok(method), Ok(target)) = (text(method), text(target)) else { return Wrong("UTF-8") };
    let Some(minor) = minor_version(version) else { return Wrong("version") };
    Whole(RequestHead { method, target, minor, fields, size })
}

pub fn response_head(bytes: &[u8], most_fields: usize) -> Read<ResponseHead> {
    let (first, fields, size) = match lines_and_fields(bytes, most_fields) {
        Whole(read) => read,
        Partial => return Partial,
        Wrong(why) => return Wrong(why),
    };
    // status-line = HTTP-version SP status-code SP [ reason-phrase ]; many leave the last SP out.
    let parts: Vec<&[u8]> = first.splitn(3, |b| *b == b' ').collect();
    if parts.len() < 2 {
        return Wrong("status line");
    }
    let reason = parts.get(2).unwrap_or(&&b""[..]).to_vec();
    let Some(minor) = minor_version(parts[0]) else { return Wrong("version") };
    if parts[1].len() != 3 || !parts[1].iter().all(u8::is_ascii_digit) || parts[1][0] == b'0' {
        return Wrong("status code");
    }
    let status = parts[1].iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    if !reason.iter().all(|b| is_field_char(*b)) {
        return Wrong("reason phrase");
    }
    Whole(ResponseHead { minor, status, reason, fields, size })
}

/// `padded`: sizes may have white space behind them where no extension follows, too.
pub fn chunked(bytes: &[u8], padded: bool) -> Read<ChunkedBody> {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let (line, next) = match line(bytes, at) {
            Whole(line) => line,
            Partial => return Partial,
            Wrong(why) => return Wrong(why),
        };
        // chunk-size [ chunk-ext ], where chunk-ext = *( BWS ";" ... ) (RFC 9112 section 7.1.1)
        let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
        let (size, extension) = line.split_at(digits);
        let behind_space = extension.trim_ascii_start();
        let well_formed = extension.is_empty() || behind_space.starts_with(b";");
        let padding = padded && behind_space.is_empty();
        if !well_formed && !padding {
            return Wrong("chunk size");
        }
        if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Wrong("chunk size");
        }
        let semicolon = behind_space.len().min(1);
        if extension.len() > MAX_EXTENSION + semicolon
            || !extension.iter().all(|b| is_field_char(*b))
        {
            return Wrong("chunk extension");
        }
        let size = size.iter().fold(0u64, |n, d| n * 16 + hex_digit(*d));
        at = next;
        if size == 0 {
            break;
        }
        let Ok(size) = usize::try_from(size) else { return Partial };
        let Some(end) = at.checked_add(size).filter(|end| *end <= bytes.len()) else {
            return Partial;
        };
        data.extend_from_slice(&bytes[at..end]);
        match &bytes[end..] {
            [b'\r', b'\n', ..] => at = end + 2,
            [] | [b'\r'] => return Partial,
            _ => return Wrong("end of chunk data"),
        }
    }
    let mut section = Vec::new();
    loop {
        let (line, next) = match line(bytes, at) {
            Whole(line) => line,
            Partial => return Partial,
            Wrong(why) => return Wrong(why),
        };
        at = next;
        if line.is_empty() {
            break;
        }
        section.push(line);
    }
    if section.len() > MAX_TRAILERS {
        return Wrong("too many trailers");
    }
    let Some(trailers) = section.into_iter().map(field).collect() else { return Wrong("trailer") };
    Whole(ChunkedBody { data, trailers, size: at })
}

/// Length of a PROXY protocol header, the client that it names, and whether that uses TLS.
pub type Proxied = (usize, Option<SocketAddr>, bool);

/// `PROXY TCP4 source destination port port CRLF`, 107 bytes at most (version 1).
pub fn proxy_v1(bytes: &[u8]) -> Read<Proxied> {
    let start = b"PROXY ";
    let n = bytes.len().min(start.len());
    if bytes[..n] != start[..n] {
        return Wrong("no header");
    }
    let at_most = &bytes[..bytes.len().min(107)];
    let Some(lf) = at_most.iter().position(|b| *b == b'\n') else {
        return if bytes.len() < 107 { Partial } else { Wrong("too long") };
    };
    let Ok(line) = std::str::from_utf8(&bytes[..lf]) else { return Wrong("not text") };
    let Some(line) = line.strip_suffix('\r') else { return Wrong("bare LF") };
    if line.contains('\r') {
        return Wrong("bare CR");
    }
    let parts: Vec<&str> = line.split(' ').collect();
    let port = |text: &str| {
        let number = digits(text.as_bytes()).filter(|n| n.to_string() == text)?;
        u16::try_from(number).ok()
    };
    let (source, destination): (Option<IpAddr>, Option<IpAddr>) = match parts[1..] {
        // Whatever else is there is to be ignored.
        ["UNKNOWN", ..] => return Whole((lf + 1, None, false)),
        ["TCP4", source, destination, _, _] => (
            source.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            destination.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        ),
        ["TCP6", source, destination, _, _] => (
            source.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            destination.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        ),
        _ => return Wrong("parts"),
    };
    match (source, destination, port(parts[4]), port(parts[5])) {
        (Some(ip), Some(_), Some(port), Some(_)) => Whole((lf + 1, Some((ip, port).into()), false)),
        _ => Wrong("addresses"),
    }
}

/// Signature, version and command, family and protocol, length, and what is that long (version 2).
pub fn proxy_v2(bytes: &[u8], most: usize) -> Read<Proxied> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let n = bytes.len().min(signature.len());
    if bytes[..n] != signature[..n] {
        return Wrong("no header");
    }
    let [command, family, high, low] = match bytes.get(12..16) {
        Some(fixed) => [fixed[0], fixed[1], fixed[2], fixed[3]],
        None => return Partial,
    };
    let size = 16 + usize::from(high) * 256 + usize::from(low);
    let addresses = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return Wrong("family"),
    };
    if !matches!(command, 0x20 | 0x21) || family & 15 > 2 || size < 16 + addresses || size > most {
        return Wrong("header");
    }
    let Some(rest) = bytes.get(16..size) else { return Partial };
    let port = |at: usize| u16::from(rest[at]) << 8 | u16::from(rest[at + 1]);
    let client = match (command, addresses) {
        (0x21, 12) => Some((<[u8; 4]>::try_from(&rest[..4]).expect("four"), port(8)).into()),
        (0x21, 36) => Some((<[u8; 16]>::try_from(&rest[..16]).expect("sixteen"), port(32)).into()),
        _ => None,
    };
    let tls = command == 0x21 && names_tls(&rest[addresses..]);
    Whole((size, client, tls))
}

/// Type, length and value, as many as there are. PP2_TYPE_SSL is 0x20; in its first byte the lowest
/// bit is PP2_CLIENT_SSL.
fn names_tls(mut rest: &[u8]) -> bool {
    while let [kind, high, low, more @ ..] = rest {
        let size = usize::from(*high) * 256 + usize::from(*low);
        let Some((value, next)) = more.split_at_checked(size) else { return false };
        if *kind == 0x20 && size >= 5 && value[0] % 2 == 1 {
            return true;
        }
        rest = next;
    }
    false
}

/// First line, fields, and length of a head.
type Lines<'b> = (&'b [u8], Vec<Field>, usize);

fn lines_and_fields(bytes: &[u8], most_fields: usize) -> Read<Lines<'_>> {
    let mut at = 0;
    let mut lines = Vec::new();
    loop {
        let (line, next) = match line(bytes, at) {
            Whole(line) => line,
            Partial => return Partial,
            Wrong(why) => return Wrong(why),
        };
        at = next;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let Some((first, rest)) = lines.split_first() else { return Wrong("no first line") };
    if rest.len() > most_fields {
        return Wrong("too many fields");
    }
    let Some(fields) = rest.iter().copied().map(field).collect() else { return Wrong("field") };
    Whole((first, fields, at))
}

/// The line that begins at `at`, and where the next one does. Ends with CRLF and with nothing else.
fn line(bytes: &[u8], at: usize) -> Read<(&[u8], usize)> {
    let rest = &bytes[at..];
    let Some(lf) = rest.iter().position(|b| *b == b'\n') else { return Partial };
    let Some((b'\r', line)) = rest[..lf].split_last() else { return Wrong("bare LF") };
    if line.contains(&b'\r') {
        return Wrong("bare CR");
    }
    Whole((line, at + lf + 1))
}

/// field-line = field-name ":" OWS field-value OWS
fn field(line: &[u8]) -> Option<Field> {
    let colon = line.iter().position(|b| *b == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_tchar(*b)) {
        return None;
    }
    if !value.iter().all(|b| is_field_char(*b)) {
        return None;
    }
    Some(Field { name: text(name).ok()?, value: trim(value).to_vec(), line: line.to_vec() })
}

fn minor_version(version: &[u8]) -> Option<u8> {
    match version {
        b"HTTP/1.0" => Some(0),
        b"HTTP/1.1" => Some(1),
        _ => None,
    }
}

/// tchar (RFC 9110 section 5.6.2).
pub fn is_tchar(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
        | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

/// VCHAR, obs-text, SP and HTAB (RFC 9110 section 5.5).
fn is_field_char(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..=0xff)
}

/// Without the white space around it (OWS, RFC 9110 section 5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The members of a list (RFC 9110 section 5.6.1), of all lines of a field.
pub fn members<'f>(fields: &'f [Field], name: &str) -> Vec<&'f [u8]> {
    let mut found = Vec::new();
    for field in fields.iter().filter(|f| f.is(name)) {
        found.extend(field.value.split(|b| *b == b',').map(trim).filter(|m| !m.is_empty()));
    }
    found
}

pub fn has_member(fields: &[Field], name: &str, member: &str) -> bool {
    members(fields, name).iter().any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
}

/// 1*DIGIT that fits in 64 bits.
pub fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |n, d| {
        if !d.is_ascii_digit() {
            return None;
        }
        n.checked_mul(10)?.checked_add(u64::from(d - b'0'))
    })
}

fn hex_digit(digit: u8) -> u64 {
    match digit {
        b'0'..=b'9' => u64::from(digit - b'0'),
        b'a'..=b'f' => u64::from(digit - b'a') + 10,
        _ => u64::from(digit - b'A') + 10,
    }
}

fn text(bytes: &[u8]) -> Result<String, std::string::FromUtf8Error> {
    String::from_utf8(bytes.to_vec())
}
