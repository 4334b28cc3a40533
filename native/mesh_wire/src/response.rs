//! Parses response heads from endpoints and writes them for clients.
//!
//! As strict as for requests: an endpoint with wrong framing would put a response on the wrong request.

use httparse::{Header, ParserConfig};

use crate::fields::{self, FieldKind};
use crate::head::{self, Storage};
use crate::lines::{field, millis, offset_in};
use crate::mesh;
use crate::method::Method;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseLength {
    None,
    Length(u64),
    Chunked,
    /// The body ends when the endpoint closes the connection.
    Close,
}

#[derive(Clone, Copy, Debug)]
pub struct ResponseInfo {
    pub status: u16,
    pub body: ResponseLength,
    /// The endpoint accepts another request on this connection.
    pub keep_alive: bool,
    /// The fields announce a WebSocket upgrade, as a 101 must.
    pub websocket: bool,
    /// `Connection` names fields, which may be trailers: none is passed on.
    pub names_fields: bool,
}

pub struct ResponseHead<'h, 'b> {
    pub info: ResponseInfo,
    bytes: &'b [u8],
    /// HTTP/1.`minor`.
    minor: u8,
    reason: &'b str,
    headers: &'h [Header<'b>],
    kinds: &'h [FieldKind],
    has_date: bool,
    content_length: bool,
    /// Replaces several equal lengths.
    merged_length: Option<&'b [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse(pub &'static str);

/// How to write a response head for the client.
#[derive(Clone, Copy)]
pub struct ResponseOptions {
    /// HTTP/1.`minor`.
    pub minor: u8,
    pub keep_alive: bool,
    /// The body will be chunked, whatever the endpoint did.
    pub chunked: bool,
    /// The value of `Server-Timing`.
    pub timing: Option<ServerTiming>,
    /// Creates the `Date` of a response without one (RFC 9110 section 6.6.1).
    pub date: fn() -> String,
}

/// Durations until the response head arrived, in nanoseconds.
#[derive(Clone, Copy)]
pub struct ServerTiming {
    pub gateway: u64,
    pub upstream: u64,
}

impl ServerTiming {
    /// The value of `Server-Timing`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"mesh;dur=");
        millis(out, self.gateway);
        out.extend_from_slice(b", upstream;dur=");
        millis(out, self.upstream);
    }
}

const PREFIX: &[u8] = b"HTTP/";

/// Parses a head. Returns `Ok(None)` if `bytes` are valid so far but incomplete.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    storage: &'h mut Storage<'b>,
    max_fields: usize,
    method: Method,
) -> Result<Option<ResponseHead<'h, 'b>>, BadResponse> {
    // httparse skips empty lines before the status line, which only requests may have.
    let n = bytes.len().min(PREFIX.len());
    if bytes[..n] != PREFIX[..n] {
        return Err(BadResponse("it does not begin with a status line"));
    }
    let (response, parsed, kinds) = storage.parse(
        max_fields,
        || httparse::Response::new(&mut []),
        |response, room| {
            ParserConfig::default().parse_response_with_uninit_headers(response, bytes, room)
        },
    );
    let size = match parsed {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadResponse("the head is malformed")),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(BadResponse("the status line is incomplete"));
    };
    let reason = response.reason.unwrap_or("");
    let bytes = &bytes[..size];
    if !head::lines_end_well(bytes, response.headers) {
        return Err(BadResponse("a line does not end with CRLF"));
    }
    check(bytes, status, minor, reason, response.headers, kinds, method).map(Some)
}

#[derive(Default)]
struct ResponseFields<'b> {
    content_length: Option<u64>,
    merged_length: Option<&'b [u8]>,
    chunked: bool,
    connection: fields::ConnectionOptions,
    websocket: bool,
    has_date: bool,
}

impl<'b> ResponseFields<'b> {
    fn add(&mut self, kind: FieldKind, value: &'b [u8]) -> Result<(), BadResponse> {
        match kind {
            FieldKind::ContentLength => self.content_length(value)?,
            FieldKind::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadResponse("the transfer coding is not a single chunked"));
                }
                self.chunked = true;
            }
            FieldKind::Connection => self.connection.add(value).map_err(BadResponse)?,
            FieldKind::Upgrade => self.websocket |= value.eq_ignore_ascii_case(b"websocket"),
            FieldKind::Date => self.has_date = true,
            _ => {}
        }
        Ok(())
    }

    /// Merges equal lengths, as RFC 9110 section 8.6 allows. Requests with several lengths are rejected: other
    /// readers may disagree about them. A response has no other reader.
    fn content_length(&mut self, value: &'b [u8]) -> Result<(), BadResponse> {
        let alone = fields::content_length(value).map(|length| (value, length));
        let (text, length) = alone
            .or_else(|| fields::repeated_length(value))
            .ok_or(BadResponse("Content-Length is not a single number"))?;
        let before = self.content_length.replace(length);
        if before.is_some_and(|before| before != length) {
            return Err(BadResponse("there are two different Content-Length fields"));
        }
        if before.is_some() || alone.is_none() {
            self.merged_length = Some(text);
        }
        Ok(())
    }

    /// RFC 9112 section 6.3.
    fn body(&self, status: u16, minor: u8, method: Method) -> Result<ResponseLength, BadResponse> {
        if self.chunked && self.content_length.is_some() {
            return Err(BadResponse("there are both Content-Length and Transfer-Encoding"));
        }
        if self.chunked && minor == 0 {
            return Err(BadResponse("HTTP/1.0 has no Transfer-Encoding"));
        }
        if method == Method::Head || status < 200 || status == 204 || status == 304 {
            return Ok(ResponseLength::None);
        }
        Ok(match (self.chunked, self.content_length) {
            (true, _) => ResponseLength::Chunked,
            (false, Some(0)) => ResponseLength::None,
            (false, Some(length)) => ResponseLength::Length(length),
            (false, None) => ResponseLength::Close,
        })
    }
}

fn check<'h, 'b>(
    bytes: &'b [u8],
    status: u16,
    minor: u8,
    reason: &'b str,
    headers: &'h [Header<'b>],
    kinds: &'h mut [FieldKind],
    method: Method,
) -> Result<ResponseHead<'h, 'b>, BadResponse> {
    if status < 100 {
        return Err(BadResponse("the status is below 100"));
    }
    let mut gathered = ResponseFields::default();
    for (header, kind) in headers.iter().zip(&mut *kinds) {
        *kind = FieldKind::of(header.name);
        gathered.add(*kind, header.value)?;
    }
    let body = gathered.body(status, minor, method)?;
    Ok(ResponseHead {
        info: ResponseInfo {
            status,
            body,
            keep_alive: gathered.connection.persists(minor) && body != ResponseLength::Close,
            websocket: gathered.connection.upgrade && gathered.websocket,
            names_fields: gathered.connection.names_fields,
        },
        bytes,
        minor,
        reason,
        headers,
        kinds,
        has_date: gathered.has_date,
        content_length: gathered.content_length.is_some(),
        merged_length: gathered.merged_length,
    })
}

impl ResponseHead<'_, '_> {
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a peer has refused the request before any part of it reached an endpoint. Only a peer may say so.
    pub fn is_refusal_of_peer(&self) -> bool {
        self.info.status == mesh::REFUSAL && self.kinds.contains(&FieldKind::Mesh)
    }

    /// Whether a peer has found an endpoint for the request. Only a peer may say so.
    pub fn is_go_ahead_of_peer(&self) -> bool {
        self.info.status == mesh::GO_AHEAD && self.kinds.contains(&FieldKind::Mesh)
    }

    /// The fields to pass on, for a client that does not get HTTP/1.1 lines.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let kept = self.headers.iter().zip(self.kinds).filter(|(h, k)| self.keeps(**k, h.name));
        let kept = kept.map(|(header, _)| (header.name.as_bytes(), header.value));
        kept.chain(self.one_length().map(|length| (&b"content-length"[..], length)))
    }

    /// The merged length, if the client gets one.
    fn one_length(&self) -> Option<&[u8]> {
        self.merged_length.filter(|_| self.has_length())
    }

    /// RFC 9110 section 8.6: a 1xx or 204 has no length, even if the endpoint sent one.
    fn has_length(&self) -> bool {
        self.content_length && self.info.status >= 200 && self.info.status != 204
    }

    pub fn write(&self, to: ResponseOptions, out: &mut Vec<u8>) {
        let as_it_came = self.status_line_stays();
        if !as_it_came {
            self.write_status_line(out);
        }
        head::copy_fields(self.bytes, self.headers, as_it_came.then_some(0), out, |i, header| {
            self.keeps(self.kinds[i], header.name)
        });
        if let Some(length) = self.one_length() {
            field(out, b"Content-Length", length);
        }
        let is_final = self.info.status >= 200;
        if self.info.status == 101 {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        } else if is_final {
            if !self.has_date {
                out.extend_from_slice(b"Date: ");
                out.extend_from_slice((to.date)().as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            if let Some(timing) = to.timing {
                out.extend_from_slice(b"Server-Timing: ");
                timing.write(out);
                out.extend_from_slice(b"\r\n");
            }
            if to.chunked {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
            if !to.keep_alive {
                out.extend_from_slice(b"Connection: close\r\n");
            } else if to.minor == 0 {
                out.extend_from_slice(b"Connection: keep-alive\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Whether the status line equals what [`write_status_line`](Self::write_status_line) would write. It
    /// does not with another version, without the second space, or with a reason that is not text.
    fn status_line_stays(&self) -> bool {
        let end = match self.headers.first() {
            Some(header) => offset_in(self.bytes, header.name.as_bytes()),
            None => self.bytes.len() - 2,
        };
        self.minor == 1 && end == "HTTP/1.1 200 \r\n".len() + self.reason.len()
    }

    fn write_status_line(&self, out: &mut Vec<u8>) {
        let status = self.info.status;
        out.extend_from_slice(b"HTTP/1.1 ");
        for digit in [status / 100, status / 10 % 10, status % 10] {
            out.push(b'0' + digit as u8);
        }
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn keeps(&self, kind: FieldKind, name: &str) -> bool {
        if kind.is_hop_by_hop() {
            return false;
        }
        if kind == FieldKind::ContentLength {
            return self.has_length() && self.merged_length.is_none();
        }
        !(self.info.names_fields
            && !kind.is_framing_or_routing()
            && fields::connection_names(name, self.headers, self.kinds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: ResponseOptions = ResponseOptions {
        minor: 1,
        keep_alive: true,
        chunked: false,
        timing: None,
        date: String::new,
    };

    #[test]
    fn the_status_line_is_normalised() {
        let line = |head: &[u8]| {
            let mut storage = head::storage();
            let parsed = parse(head, &mut storage, 100, Method::Get).unwrap().unwrap();
            let mut out = Vec::new();
            parsed.write(PLAIN, &mut out);
            String::from_utf8(out).unwrap().lines().next().unwrap_or_default().to_string()
        };
        assert_eq!(line(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"), "HTTP/1.1 200 OK");
        assert_eq!(line(b"HTTP/1.1 299 \r\nA: b\r\n\r\n"), "HTTP/1.1 299 ");
        assert_eq!(line(b"HTTP/1.1 299\r\nA: b\r\n\r\n"), "HTTP/1.1 299 ");
        assert_eq!(line(b"HTTP/1.1 404 Not Here\r\n\r\n"), "HTTP/1.1 404 Not Here");
        assert_eq!(line(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n"), "HTTP/1.1 200 OK");
        assert_eq!(line(b"HTTP/1.1 200 \xc3\xa9\r\nA: b\r\n\r\n"), "HTTP/1.1 200 ");
    }

    #[test]
    fn equal_lengths_are_merged() {
        let written = |lengths: &str, status: u16| {
            let head = format!("HTTP/1.1 {status} OK\r\n{lengths}A: b\r\n\r\n");
            let mut storage = head::storage();
            let parsed = parse(head.as_bytes(), &mut storage, 100, Method::Get).ok()??;
            let mut out = Vec::new();
            parsed.write(PLAIN, &mut out);
            let lines = String::from_utf8(out).unwrap();
            let lines = lines.lines().filter(|line| line.starts_with("Content-Length"));
            let fields = parsed.fields().filter(|(name, _)| name.len() == 14).count();
            let lines: Vec<String> = lines.map(String::from).collect();
            assert_eq!(lines.len(), fields, "HTTP/2 gets another number of them");
            Some((lines.join("; "), parsed.info.body))
        };
        let five = Some(("Content-Length: 5".to_string(), ResponseLength::Length(5)));
        assert_eq!(written("Content-Length: 5\r\n", 200), five);
        assert_eq!(written("Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\n", 200), five);
        assert_eq!(written("Content-Length: 5, 5\r\n", 200), five);
        assert_eq!(written("Content-Length: 5 , 05\r\nContent-Length: 5\r\n", 200), five);
        assert_eq!(
            written("Content-Length: 0, 0\r\n", 204),
            Some((String::new(), ResponseLength::None))
        );
        for bad in ["5\r\nContent-Length: 6", "5, 6", "5,", ", 5", "5 5", "5, x"] {
            assert_eq!(written(&format!("Content-Length: {bad}\r\n"), 200), None, "{bad}");
        }
    }

    #[test]
    fn a_response_must_begin_with_a_status_line_and_use_crlf() {
        let accepts = |bytes: &[u8]| {
            let mut storage = head::storage();
            matches!(parse(bytes, &mut storage, 100, Method::Get), Ok(Some(_)))
        };
        assert!(accepts(b"HTTP/1.1 200 OK\r\nX: a\r\n\r\nbody"));
        for bad in [
            &b"\r\nHTTP/1.1 200 OK\r\nX: a\r\n\r\n"[..],
            b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"\r\n\nHTTP/1.1 200 OK\r\n\r\n",
            b"\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\nX: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\r\n\n",
        ] {
            assert!(!accepts(bad), "{}", bad.escape_ascii());
        }
    }
}
