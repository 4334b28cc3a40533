//! A deliberately naive reader of HTTP/1.1 messages, written from the grammar of RFC 9112 and from
//! nothing in mesh_core. It wants the whole message in one slice, goes line by line, copies what it
//! finds, and takes no liberty that the RFC merely allows. What it says is what the gateway must say.

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

/// Chunk extensions are of no use to anybody and are bounded.
const MAX_EXTENSION: usize = 1024;
const MAX_TRAILERS: usize = 64;

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

pub fn chunked(bytes: &[u8]) -> Read<ChunkedBody> {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let (line, next) = match line(bytes, at) {
            Whole(line) => line,
            Partial => return Partial,
            Wrong(why) => return Wrong(why),
        };
        let digits = line.iter().position(|b| *b == b';').unwrap_or(line.len());
        let (size, extension) = line.split_at(digits);
        if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Wrong("chunk size");
        }
        if extension.len() > MAX_EXTENSION + 1 || !extension.iter().all(|b| is_field_char(*b)) {
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

/// First line, fields, and length of a head.
type Lines<'b> = (&'b [u8], Vec<Field>, usize);

fn lines_and_fields(bytes: &[u8], most_fields: usize) -> Read<Lines<'_>> {
    // One empty line before the first is a leftover of old clients (RFC 9112 section 2.2).
    let mut at = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
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
