//! Request heads: parsed with httparse, checked against everything that makes two parsers disagree,
//! and written anew for the endpoint with every line that need not change copied as it came.

use httparse::{Header, ParserConfig};

use super::fields::{self, Field};
use super::head::{self, MAX_FIELDS, Storage, offset_in};
use crate::config::Limits;
use crate::digits;
use crate::error::Error;
use crate::forwarded::{self, Received};
use crate::host::Host;
use crate::ids::{self, Line, RequestId};
use crate::peer::Peer;
use crate::reply::Prefer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Length(u64),
    Chunked,
}

/// Methods that the gateway itself treats in some way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Options,
    Trace,
    Put,
    Delete,
    Post,
    Patch,
    Other,
}

impl Method {
    pub fn of(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            "TRACE" => Method::Trace,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "POST" => Method::Post,
            "PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// Sending it twice means the same as sending it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Patch | Method::Other)
    }
}

/// Gateways of this kind that a request may have come through. More of them are one of them, whose
/// upstream leads back to it (RFC 9110 section 7.6.3).
const MAX_PASSES: usize = 4;

/// What the gateway must know about a request after its head has been copied.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo {
    pub method: Method,
    /// HTTP/1.`minor`.
    pub minor: u8,
    pub body: BodyLength,
    pub keep_alive: bool,
    pub expect_continue: bool,
    /// Asks for a WebSocket, by all the rules for asking.
    pub websocket: bool,
    pub prefer: Prefer,
    /// `Connection` names fields that are for the gateway only, and maybe trailers.
    pub names_fields: bool,
}

/// A checked request head, borrowed from the connection's buffer.
pub struct RequestHead<'h, 'b> {
    pub info: RequestInfo,
    /// `None` only in HTTP/1.0.
    pub host: Option<Host>,
    /// `Max-Forwards` where it counts (RFC 9110 section 7.6.2).
    pub max_forwards: Option<u64>,
    bytes: &'b [u8],
    method: &'b str,
    target: Target<'b>,
    /// The host as the client wrote it.
    host_text: &'b [u8],
    headers: &'h [Header<'b>],
    kinds: &'h [Field],
    request_id: Line<'b>,
    traceparent: Line<'b>,
}

/// What of the request target goes to the endpoint. The absolute form is for proxies; endpoints
/// get the origin form of it (RFC 9112 section 3.2.1).
#[derive(Clone, Copy)]
enum Target<'b> {
    AsIs(&'b str),
    /// From the absolute form: authority, and path with query (which may lack its slash).
    Absolute(&'b str, &'b str),
}

const LINE_END: &str = "a line does not end with CRLF";

/// Parses a head of which the whole is in `bytes`, or which is known to be wrong already.
/// `Ok(None)`: nothing wrong so far, and not the whole.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    storage: &'h mut Storage<'b>,
    limits: &Limits,
) -> Result<Option<RequestHead<'h, 'b>>, Error> {
    let mut request = httparse::Request::new(&mut []);
    let most = limits.header_count.min(MAX_FIELDS);
    let parsed = ParserConfig::default().parse_request_with_uninit_headers(
        &mut request,
        bytes,
        &mut storage.headers[..most],
    );
    let size = match parsed {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Error::BadRequest("the request line is incomplete"));
    };
    let bytes = &bytes[..size];
    if !head::lines_end_well(bytes, offset_in(bytes, method.as_bytes()), request.headers) {
        return Err(Error::BadRequest(LINE_END));
    }
    check(bytes, method, target, minor, request.headers, &mut storage.kinds).map(Some)
}

/// Counts how often the request has come through gateways of this kind.
pub fn count_passes(passes: &mut usize, via: &[u8]) -> Result<(), Error> {
    *passes += fields::members(via).filter(|m| m.ends_with(b" mesh")).count();
    if *passes > MAX_PASSES { Err(Error::Loop) } else { Ok(()) }
}

fn refused(error: httparse::Error) -> Error {
    Error::BadRequest(match error {
        httparse::Error::HeaderName => "a header field name is malformed",
        httparse::Error::HeaderValue => "a header field value has a character it may not have",
        httparse::Error::NewLine => LINE_END,
        httparse::Error::Token => "the method or the request target is malformed",
        httparse::Error::Version => return Error::Version,
        httparse::Error::TooManyHeaders => return Error::TooManyFields,
        httparse::Error::Status => "the request line is malformed",
    })
}

/// What the fields of a request say, gathered in one pass.
#[derive(Default)]
struct Gathered<'b> {
    host: Option<&'b [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    names_fields: bool,
    websocket: bool,
    expect_continue: bool,
    prefer: Prefer,
    max_forwards: Option<u64>,
    passes: usize,
    request_id: Line<'b>,
    traceparent: Line<'b>,
}

impl<'b> Gathered<'b> {
    fn take(&mut self, kind: Field, value: &'b [u8]) -> Result<(), Error> {
        match kind {
            Field::Host if self.host.replace(value).is_some() => {
                return Err(Error::BadRequest("there is more than one Host field"));
            }
            Field::ContentLength => {
                let length = fields::content_length(value)
                    .ok_or(Error::BadRequest("Content-Length is not a number"))?;
                if self.content_length.replace(length).is_some() {
                    return Err(Error::BadRequest("there is more than one Content-Length field"));
                }
            }
            Field::TransferEncoding => self.transfer_encoding(value)?,
            Field::Connection => self.connection(value),
            Field::Upgrade => {
                self.websocket |=
                    fields::members(value).any(|m| m.eq_ignore_ascii_case(b"websocket"));
            }
            Field::Expect => self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            Field::Accept => self.prefer = Prefer::of(value),
            Field::Via => count_passes(&mut self.passes, value)?,
            Field::MaxForwards => self.max_forwards = fields::content_length(value),
            Field::XRequestId => self.request_id.take(value),
            Field::Traceparent => self.traceparent.take(value),
            _ => {}
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Error> {
        if self.chunked {
            return Err(Error::BadRequest("a body is chunked more than once"));
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
            return Ok(());
        }
        let last = fields::members(value).last();
        if last.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
            let all_chunked = fields::members(value).all(|m| m.eq_ignore_ascii_case(b"chunked"));
            return Err(if all_chunked {
                Error::BadRequest("a body is chunked more than once")
            } else {
                Error::NotImplemented("no transfer coding but chunked is supported")
            });
        }
        // RFC 9112 section 6.3, rule 4: the length cannot be known.
        Err(Error::BadRequest("the last transfer coding is not chunked"))
    }

    fn connection(&mut self, value: &[u8]) {
        for member in fields::members(value) {
            if member.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if member.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if member.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else {
                self.names_fields |= fields::names_a_field(member);
            }
        }
    }

    fn body(&self, minor: u8) -> Result<BodyLength, Error> {
        match (self.chunked, self.content_length) {
            (true, Some(_)) => {
                Err(Error::BadRequest("there are both Content-Length and Transfer-Encoding"))
            }
            // RFC 9112 section 6.1: HTTP/1.0 has no transfer codings.
            (true, None) if minor == 0 => {
                Err(Error::BadRequest("HTTP/1.0 has no Transfer-Encoding"))
            }
            (true, None) => Ok(BodyLength::Chunked),
            (false, None | Some(0)) => Ok(BodyLength::None),
            (false, Some(length)) => Ok(BodyLength::Length(length)),
        }
    }
}

fn check<'h, 'b>(
    bytes: &'b [u8],
    method_name: &'b str,
    target: &'b str,
    minor: u8,
    headers: &'h [Header<'b>],
    kinds: &'h mut [Field; MAX_FIELDS],
) -> Result<RequestHead<'h, 'b>, Error> {
    let method = Method::of(method_name);
    let mut said = Gathered::default();
    for (header, kind) in headers.iter().zip(&mut *kinds) {
        *kind = Field::of(header.name);
        said.take(*kind, header.value)?;
    }
    let body = said.body(minor)?;
    let target = read_target(method_name, method, target)?;
    let host_text = match (target, said.host) {
        (Target::Absolute(authority, _), _) => {
            // RFC 9112 section 3.2.2: the target's authority counts. A Host that is missing or
            // malformed is an error all the same.
            match said.host {
                Some(text) => drop(Host::parse(text).map_err(Error::BadHost)?),
                None if minor > 0 => return Err(Error::BadRequest("there is no Host field")),
                None => {}
            }
            Some(authority.as_bytes())
        }
        (_, None) if minor > 0 => return Err(Error::BadRequest("there is no Host field")),
        (_, given) => given,
    };
    let host = host_text.map(Host::parse).transpose().map_err(Error::BadHost)?;
    let wants_upgrade = minor > 0 && said.connection_upgrade && said.websocket;
    let counts_forwards = matches!(method, Method::Options | Method::Trace);
    Ok(RequestHead {
        info: RequestInfo {
            method,
            minor,
            body,
            keep_alive: if minor > 0 { !said.close } else { said.keep_alive && !said.close },
            expect_continue: said.expect_continue && minor > 0,
            websocket: wants_upgrade && method == Method::Get && body == BodyLength::None,
            prefer: said.prefer,
            names_fields: said.names_fields,
        },
        host,
        max_forwards: said.max_forwards.filter(|_| counts_forwards),
        bytes,
        method: method_name,
        target,
        host_text: host_text.unwrap_or(b""),
        headers,
        kinds,
        request_id: said.request_id,
        traceparent: said.traceparent,
    })
}

fn read_target<'b>(name: &str, method: Method, target: &'b str) -> Result<Target<'b>, Error> {
    if name == "CONNECT" {
        return Err(Error::NotImplemented("CONNECT is for proxies, and this is none"));
    }
    if target.contains('#') {
        return Err(Error::BadRequest("the request target has a fragment"));
    }
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(Target::AsIs(target));
    }
    let scheme_end = target.find("://").unwrap_or(0);
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Error::BadRequest("the request target is neither a path nor a URL"));
    }
    let rest = &target[scheme_end + 3..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Ok(match &rest[end..] {
        // RFC 9112 section 3.2.4: OPTIONS for the whole server.
        "" if method == Method::Options => Target::Absolute(&rest[..end], "*"),
        path => Target::Absolute(&rest[..end], path),
    })
}

/// What the gateway adds to a request.
pub struct Forwarding<'a> {
    pub peer: &'a Peer,
    /// Port of the listener, for clients that name no host.
    pub listener_port: u16,
    /// Host to name to the endpoint when the client named none.
    pub default_host: &'a str,
    /// The one that the endpoint is to see. `None` leaves that to the client.
    pub request_id: &'a RequestId,
    /// Begins a trace, in place of what the client sent.
    pub traceparent: Option<[u8; 55]>,
}

impl RequestHead<'_, '_> {
    /// Length of the head in the buffer.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn method(&self) -> &str {
        self.method
    }

    /// The path of the target, and its query.
    pub fn path(&self) -> &str {
        match self.target {
            Target::AsIs(target) => target,
            Target::Absolute(_, path) => path,
        }
    }

    /// The first field of this name, or nothing.
    pub fn first(&self, name: &str) -> &[u8] {
        let found = self.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.map_or(b"", |h| h.value)
    }

    /// The client's id for the request, where it gave a single and sane one.
    pub fn request_id(&self) -> Option<&[u8]> {
        let given = self.request_id.valid(ids::is_request_id)?;
        (!self.removes("x-request-id")).then_some(given)
    }

    /// The id of the trace that the request is a part of.
    pub fn trace_id(&self) -> Option<&[u8]> {
        let given = self.traceparent.valid(|value| ids::trace_id(value).is_some())?;
        ids::trace_id(given).filter(|_| !self.removes("traceparent"))
    }

    fn removes(&self, name: &str) -> bool {
        self.info.names_fields && self.is_named(name)
    }

    /// Writes the head for the endpoint.
    pub fn write(&self, forwarding: &Forwarding<'_>, out: &mut Vec<u8>) {
        self.write_request_line(out);
        let mut received = Received::default();
        self.copy_fields(forwarding, &mut received, out);
        let named_host = !self.host_text.is_empty();
        let host = if named_host { self.host_text } else { forwarding.default_host.as_bytes() };
        if matches!(self.target, Target::Absolute(..)) || !named_host {
            field(out, b"Host", host);
        }
        match self.info.body {
            BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            BodyLength::None | BodyLength::Length(_) => {}
        }
        if self.info.websocket {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        if let Some(hops) = self.max_forwards {
            field(out, b"Max-Forwards", hops.saturating_sub(1).to_string().as_bytes());
        }
        out.extend_from_slice(if self.info.minor > 0 {
            b"Via: 1.1 mesh\r\n"
        } else {
            b"Via: 1.0 mesh\r\n"
        });
        // RFC 9110 section 4.2.1: without a port, http means 80.
        let port = self.host.map_or(forwarding.listener_port, |h| h.port.unwrap_or(80));
        forwarded::write(out, forwarding.peer, host, port, &received);
        if let RequestId::Made(id) = forwarding.request_id {
            field(out, b"X-Request-Id", &digits::hex(*id));
        }
        if let Some(traceparent) = &forwarding.traceparent {
            field(out, b"Traceparent", traceparent);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_request_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        let target = match self.target {
            Target::AsIs(target) => target,
            Target::Absolute(_, path) => {
                if !path.starts_with(['/', '*']) {
                    out.push(b'/');
                }
                path
            }
        };
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
    }

    /// Copies the lines that stay, run by run, and notes the forwarded fields that do not.
    fn copy_fields<'s>(
        &'s self,
        forwarding: &Forwarding<'_>,
        received: &mut Received<'s>,
        out: &mut Vec<u8>,
    ) {
        let mut run: Option<usize> = None;
        for (i, header) in self.headers.iter().enumerate() {
            let start = offset_in(self.bytes, header.name.as_bytes());
            if self.keeps(i, header, forwarding, received) {
                run.get_or_insert(start);
            } else if let Some(from) = run.take() {
                out.extend_from_slice(&self.bytes[from..start]);
            }
        }
        if let Some(from) = run {
            out.extend_from_slice(&self.bytes[from..self.bytes.len() - 2]);
        }
    }

    fn keeps<'s>(
        &'s self,
        i: usize,
        header: &Header<'s>,
        forwarding: &Forwarding<'_>,
        received: &mut Received<'s>,
    ) -> bool {
        let kind = self.kinds[i];
        if kind.is_hop_by_hop() {
            return false;
        }
        if !kind.is_framing_or_routing() && self.removes(header.name) {
            return false;
        }
        match kind {
            Field::Host => matches!(self.target, Target::AsIs(_)) && !self.host_text.is_empty(),
            // RFC 9110 section 10.1.1: an HTTP/1.0 client cannot know 100 (Continue).
            Field::Expect => self.info.minor > 0,
            Field::MaxForwards => self.max_forwards.is_none(),
            Field::XRequestId => !matches!(forwarding.request_id, RequestId::Made(_)),
            Field::Traceparent | Field::Tracestate => forwarding.traceparent.is_none(),
            _ if forwarded::is_ours(kind) => {
                if forwarding.peer.trusted {
                    received.take(kind, header.value);
                }
                false
            }
            _ => true,
        }
    }

    /// `Connection` names this field, so it is for the gateway only.
    fn is_named(&self, name: &str) -> bool {
        let connection =
            self.headers.iter().zip(self.kinds).filter(|(_, k)| **k == Field::Connection);
        connection
            .flat_map(|(h, _)| fields::members(h.value))
            .any(|member| member.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Writes one field line.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
