//! Parses a request head with httparse, and rejects everything that two parsers could interpret differently.

use httparse::{Header, ParserConfig};

use super::error::RequestError;
use super::head::{RequestHead, Target};
use super::info::{BodyLength, RequestInfo};
use super::request_fields::RequestFields;
use crate::fields::FieldKind;
use crate::head::{Storage, lines_end_well};
use crate::host::Host;
use crate::lines::offset_in;
use crate::method::Method;

const HTTPS: &str = "https";

const LINE_END: &str = "a line does not end with CRLF";

/// Parses a head. Returns `Ok(None)` if `bytes` are valid so far but incomplete.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    storage: &'h mut Storage<'b>,
    max_fields: usize,
) -> Result<Option<RequestHead<'h, 'b>>, RequestError> {
    let (request, parsed, kinds) = storage.parse(
        max_fields,
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
    // httparse skips empty lines, but the caller has already removed the allowed ones.
    let first = offset_in(bytes, method.as_bytes());
    if first > 0 || !lines_end_well(bytes, request.headers) {
        return Err(RequestError::Malformed(LINE_END));
    }
    check(bytes, method, target, minor, request.headers, kinds).map(Some)
}

fn refused(error: httparse::Error) -> RequestError {
    RequestError::Malformed(match error {
        httparse::Error::HeaderName => "a header field name is malformed",
        httparse::Error::HeaderValue => "a header field value has an invalid character",
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
    kinds: &'h mut [FieldKind],
) -> Result<RequestHead<'h, 'b>, RequestError> {
    let method = Method::of(method_name);
    let mut fields = RequestFields::default();
    for (header, kind) in headers.iter().zip(&mut *kinds) {
        *kind = FieldKind::of(header.name);
        fields.add(*kind, header.value)?;
    }
    let body = fields.body(minor)?;
    let is_https = || target.get(..HTTPS.len()).is_some_and(|s| s.eq_ignore_ascii_case(HTTPS));
    let target = read_target(method_name, method, target)?;
    let host_text = match (target, fields.host) {
        (Target::Absolute(authority, _), _) => {
            // RFC 9112 section 3.2.2: the target's authority wins. A missing or malformed Host is still an
            // error.
            match fields.host {
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
    let wants_upgrade = minor > 0 && fields.connection.upgrade && fields.websocket;
    let counts_forwards = matches!(method, Method::Options | Method::Trace);
    Ok(RequestHead {
        info: RequestInfo {
            method,
            minor,
            body,
            keep_alive: fields.connection.persists(minor),
            websocket: wants_upgrade && method == Method::Get && body == BodyLength::None,
            error_format: fields.error_format,
            names_fields: fields.connection.names_fields,
        },
        host,
        max_forwards: fields.max_forwards.filter(|_| counts_forwards),
        bytes,
        method: method_name,
        target,
        host_text: host_text.unwrap_or(b""),
        https: matches!(target, Target::Absolute(..)) && is_https(),
        headers,
        kinds,
        request_id: fields.request_id,
        traceparent: fields.traceparent,
    })
}

fn read_target<'b>(
    name: &str,
    method: Method,
    target: &'b str,
) -> Result<Target<'b>, RequestError> {
    if name == "CONNECT" {
        return Err(RequestError::NotImplemented("CONNECT is not supported: this is not a proxy"));
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

/// Checks the characters of a request target, in any version of HTTP. Accepts more than RFC 3986, because
/// browsers send it and endpoints accept it. Rejects whitespace, control characters and fragments (RFC 9112
/// section 3.2).
pub fn check_target(target: &str) -> Result<(), RequestError> {
    if !target.bytes().any(|byte| matches!(byte, 0..=b' ' | b'#' | 0x7f)) {
        return Ok(());
    }
    Err(RequestError::Malformed(if target.contains('#') {
        "the request target has a fragment"
    } else {
        "the request target has an invalid character"
    }))
}
