//! Request heads: parsed with httparse, checked against everything that makes two parsers disagree,
//! and written anew for the endpoint with every line that need not change copied as it came.

mod gathered;
mod write;

use httparse::{Header, ParserConfig};

use super::fields::Field;
use super::head::{self, Storage, offset_in};
use crate::config::Limits;
use crate::error::Error;
use crate::host::Host;
use crate::ids::{self, Line};
use crate::reply::Prefer;

use gathered::Gathered;
pub use gathered::count_passes;
pub use write::{Forwarding, field};

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
    pub host: Option<Host<'b>>,
    /// `Max-Forwards` where it counts (RFC 9110 section 7.6.2).
    pub max_forwards: Option<u64>,
    bytes: &'b [u8],
    method: &'b str,
    target: Target<'b>,
    /// The host as the client wrote it.
    host_text: &'b [u8],
    /// The target is a URL whose scheme is `https`.
    https: bool,
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

const HTTPS: &str = "https";

const LINE_END: &str = "a line does not end with CRLF";

/// Parses a head of which the whole is in `bytes`, or which is known to be wrong already.
/// `Ok(None)`: nothing wrong so far, and not the whole.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    storage: &'h mut Storage<'b>,
    limits: &Limits,
) -> Result<Option<RequestHead<'h, 'b>>, Error> {
    let (request, parsed, kinds) = storage.parse(
        limits.header_count,
        || httparse::Request::new(&mut []),
        |request, room| {
            ParserConfig::default().parse_request_with_uninit_headers(request, bytes, room)
        },
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
    // The parser skips empty lines in front. Those that a client may send are gone by now.
    let first = offset_in(bytes, method.as_bytes());
    if first > 0 || !head::lines_end_well(bytes, request.headers) {
        return Err(Error::BadRequest(LINE_END));
    }
    check(bytes, method, target, minor, request.headers, kinds).map(Some)
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

fn check<'h, 'b>(
    bytes: &'b [u8],
    method_name: &'b str,
    target: &'b str,
    minor: u8,
    headers: &'h [Header<'b>],
    kinds: &'h mut [Field],
) -> Result<RequestHead<'h, 'b>, Error> {
    let method = Method::of(method_name);
    let mut said = Gathered::default();
    for (header, kind) in headers.iter().zip(&mut *kinds) {
        *kind = Field::of(header.name);
        said.take(*kind, header.value)?;
    }
    let body = said.body(minor)?;
    let is_https = || target.get(..HTTPS.len()).is_some_and(|s| s.eq_ignore_ascii_case(HTTPS));
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
    let wants_upgrade = minor > 0 && said.connection.upgrade && said.websocket;
    let counts_forwards = matches!(method, Method::Options | Method::Trace);
    Ok(RequestHead {
        info: RequestInfo {
            method,
            minor,
            body,
            keep_alive: said.connection.persists(minor),
            expect_continue: said.expect_continue && minor > 0,
            websocket: wants_upgrade && method == Method::Get && body == BodyLength::None,
            prefer: said.prefer,
            names_fields: said.connection.names_fields,
        },
        host,
        max_forwards: said.max_forwards.filter(|_| counts_forwards),
        bytes,
        method: method_name,
        target,
        host_text: host_text.unwrap_or(b""),
        https: matches!(target, Target::Absolute(..)) && is_https(),
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
    check_target(target)?;
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(Target::AsIs(target));
    }
    let scheme_end = target.find("://").unwrap_or(0);
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case(HTTPS) {
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

/// What a request target may be made of, in every version of HTTP. More than RFC 3986 has, because
/// browsers send it and endpoints take it; nothing that ends a target or a line, and no fragment
/// (RFC 9112 section 3.2).
pub fn check_target(target: &str) -> Result<(), Error> {
    if !target.bytes().any(|byte| matches!(byte, 0..=b' ' | b'#' | 0x7f)) {
        return Ok(());
    }
    Err(Error::BadRequest(if target.contains('#') {
        "the request target has a fragment"
    } else {
        "the request target has a character it may not have"
    }))
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

    /// Asks for an `https` resource in so many words (RFC 9110 section 7.4).
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The client's id for the request, where it gave a single and sane one.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.request_id.valid(ids::is_request_id)
    }

    /// The id of the trace that the request is a part of.
    pub fn trace_id(&self) -> Option<&[u8]> {
        let given = self.traceparent.valid(|value| ids::trace_id(value).is_some())?;
        ids::trace_id(given)
    }

    /// `Connection` names this field, and it is one that a client may have removed.
    fn removes(&self, kind: Field, name: &str) -> bool {
        self.info.names_fields
            && !kind.is_framing_or_routing()
            && !kind.is_of_proxies(name)
            && self.is_named(name)
    }
}
