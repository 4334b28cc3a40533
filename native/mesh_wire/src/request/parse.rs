//! Parses a request head with httparse and refuses everything that two parsers could read in two ways.

use httparse::{Header, ParserConfig};

use super::error::RequestError;
use super::gathered::Gathered;
use super::head::{RequestHead, Target};
use super::info::{BodyLength, RequestInfo};
use crate::fields::Field;
use crate::head::{Storage, lines_end_well};
use crate::host::Host;
use crate::lines::offset_in;
use crate::method::Method;

const HTTPS: &str = "https";

const LINE_END: &str = "a line does not end with CRLF";

/// Parses a head of which the whole is in `bytes`, or which is known to be wrong already.
/// `Ok(None)`: nothing wrong so far, and not the whole.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    storage: &'h mut Storage<'b>,
    most_fields: usize,
) -> Result<Option<RequestHead<'h, 'b>>, RequestError> {
    let (request, parsed, kinds) = storage.parse(
        most_fields,
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
        return Err(RequestError::Malformed("the request line is incomplete"));
    };
    let bytes = &bytes[..size];
    // The parser skips empty lines in front. Those that a client may send are gone by now.
    let first = offset_in(bytes, method.as_bytes());
    if first > 0 || !lines_end_well(bytes, request.headers) {
        return Err(RequestError::Malformed(LINE_END));
    }
    check(bytes, method, target, minor, request.headers, kinds).map(Some)
}

fn refused(error: httparse::Error) -> RequestError {
    RequestError::Malformed(match error {
        httparse::Error::HeaderName => "a header field name is malformed",
        httparse::Error::HeaderValue => "a header field value has a character it may not have",
        httparse::Error::NewLine => LINE_END,
        httparse::Error::Token => "the method or the request target is malformed",
        httparse::Error::Version => return RequestError::Version,
        httparse::Error::TooManyHeaders => return RequestError::TooManyFields,
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
) -> Result<RequestHead<'h, 'b>, RequestError> {
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
                Some(text) => drop(Host::parse(text).map_err(RequestError::BadHost)?),
                None if minor > 0 => return Err(RequestError::Malformed("there is no Host field")),
                None => {}
            }
            Some(authority.as_bytes())
        }
        (_, None) if minor > 0 => return Err(RequestError::Malformed("there is no Host field")),
        (_, given) => given,
    };
    let host = host_text.map(Host::parse).transpose().map_err(RequestError::BadHost)?;
    let wants_upgrade = minor > 0 && said.connection.upgrade && said.websocket;
    let counts_forwards = matches!(method, Method::Options | Method::Trace);
    Ok(RequestHead {
        info: RequestInfo {
            method,
            minor,
            body,
            keep_alive: said.connection.persists(minor),
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

fn read_target<'b>(
    name: &str,
    method: Method,
    target: &'b str,
) -> Result<Target<'b>, RequestError> {
    if name == "CONNECT" {
        return Err(RequestError::NotImplemented("CONNECT is for proxies, and this is none"));
    }
    check_target(target)?;
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        return Ok(Target::AsIs(target));
    }
    let scheme_end = target.find("://").unwrap_or(0);
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case(HTTPS) {
        return Err(RequestError::Malformed("the request target is neither a path nor a URL"));
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
pub fn check_target(target: &str) -> Result<(), RequestError> {
    if !target.bytes().any(|byte| matches!(byte, 0..=b' ' | b'#' | 0x7f)) {
        return Ok(());
    }
    Err(RequestError::Malformed(if target.contains('#') {
        "the request target has a fragment"
    } else {
        "the request target has a character it may not have"
    }))
}
