//! Checks an HTTP/2 request (RFC 9113 section 8), and writes it for the endpoint as HTTP/1.1.
//!
//! h2 has rejected invalid frames already; everything else gets a 400.

use std::rc::Rc;

use ::h2::ext::Protocol;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method as HttpMethod, header};
use mesh_wire::client_addr::ClientAddr;
use mesh_wire::fields::{FieldKind, content_length, is_token};
use mesh_wire::forwarded::{self, ClientHop, ProxyFields};
use mesh_wire::host::Host;
use mesh_wire::ids::RequestId;
use mesh_wire::lines::field;
use mesh_wire::method::Method;
use mesh_wire::request::{BodyLength, check_target, count_passes};

use super::websocket::Key;
use crate::error::Error;
use crate::serve::worker::Worker;
use crate::upstream::LocalService;

/// A request with its service.
pub struct RoutedStream {
    pub method: Method,
    pub body: BodyLength,
    pub service: Rc<LocalService>,
    /// The head for the endpoint.
    pub head: Vec<u8>,
    /// The request asks for a WebSocket (RFC 8441). The key is for the endpoint.
    pub websocket: Option<Key>,
}

/// The values of the fields that the gateway needs, collected in one pass.
#[derive(Default)]
struct RequestFields<'p> {
    host: Option<&'p HeaderValue>,
    content_length: Option<u64>,
    max_forwards: Option<u64>,
    passes: usize,
    trailers: bool,
    cookies: Vec<&'p [u8]>,
    received: ProxyFields<'p>,
}

/// The size of the field section (RFC 9113 section 6.5.2).
fn list_size(parts: &Parts) -> usize {
    const OVERHEAD: usize = 32;
    let uri = &parts.uri;
    let pseudo = [
        (":method", Some(parts.method.as_str())),
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(Authority::as_str)),
        (":path", uri.path_and_query().map(PathAndQuery::as_str)),
        (":protocol", parts.extensions.get::<Protocol>().map(Protocol::as_str)),
    ];
    let pseudo = pseudo.iter().filter_map(|(name, value)| Some(name.len() + value.as_ref()?.len()));
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    pseudo.chain(fields).map(|size| size + OVERHEAD).sum()
}

/// Checks a request and finds its service. Takes its id and the `traceparent` of a trace that the gateway
/// begins. `ended`: the request has no body.
pub fn accept(
    worker: &Worker,
    client: &ClientAddr,
    parts: &Parts,
    (request_id, traceparent): (&RequestId, Option<[u8; 55]>),
    ended: bool,
) -> Result<RoutedStream, Error> {
    let limits = &worker.shared.config.limits;
    if list_size(parts) > limits.head_bytes {
        return Err(Error::HeadTooLong);
    }
    if parts.headers.len() > limits.header_count {
        return Err(Error::TooManyFields);
    }
    if is_https(parts) && !client.speaks_https() {
        return Err(Error::Misdirected);
    }
    let websocket = wants_websocket(parts)?;
    let method = Method::of(parts.method.as_str());
    let target = target(parts, method)?;
    let fields = read_fields(parts, client.trusted)?;
    let (host_text, host) = authority(parts, fields.host)?;
    let body = match fields.content_length {
        _ if websocket || ended => BodyLength::None,
        Some(length) => BodyLength::Length(length),
        None => BodyLength::Chunked,
    };
    if let (BodyLength::Length(length), Some(max)) = (body, limits.body_bytes)
        && length > max
    {
        return Err(Error::BodyTooLong);
    }
    let counts_forwards = matches!(method, Method::Options | Method::Trace);
    let hops = fields.max_forwards.filter(|_| counts_forwards);
    if hops == Some(0) {
        // RFC 9110 section 7.6.2: the gateway is the final recipient.
        return Err(Error::NotImplemented("Max-Forwards is 0"));
    }
    let found = worker.routes.find(Some(&host));
    let (service, _) = found.ok_or_else(|| Error::UnknownService(host.as_str().to_string()))?;

    let ours = |kind| match kind {
        FieldKind::MaxForwards => hops.is_some(),
        FieldKind::XRequestId => matches!(request_id, RequestId::Made(_)),
        FieldKind::Traceparent | FieldKind::Tracestate => traceparent.is_some(),
        // The length of a tunnel's handshake (RFC 8441 section 5).
        FieldKind::ContentLength => websocket,
        _ => false,
    };
    let mut out = worker.borrow_head();
    let name = if websocket { "GET" } else { parts.method.as_str() };
    for part in [name, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    field(&mut out, b"Host", host_text);
    copy_fields(parts, ours, &mut out);
    if !fields.cookies.is_empty() {
        // RFC 9113 section 8.2.3: HTTP/1.1 endpoints expect one line.
        field(&mut out, b"cookie", &fields.cookies.join(&b"; "[..]));
    }
    if fields.trailers {
        // RFC 9110 section 10.1.4: hop-by-hop, so written anew.
        out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
    match body {
        BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        // RFC 9110 section 8.6: methods that anticipate content state its absence.
        BodyLength::None if anticipates_content(parts) && fields.content_length.is_none() => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        BodyLength::None | BodyLength::Length(_) => {}
    }
    let websocket = websocket.then(Key::new).transpose()?;
    if let Some(key) = &websocket {
        key.write(&mut out);
    }
    if let Some(hops) = hops {
        field(&mut out, b"Max-Forwards", hops.saturating_sub(1).to_string().as_bytes());
    }
    out.extend_from_slice(b"Via: 2.0 mesh\r\n");
    let https = client.tls || (client.trusted && is_https(parts));
    let hop = ClientHop { client, host: host_text, port: host.port, http_port: 80, https };
    forwarded::write(&mut out, &hop, &fields.received);
    if let RequestId::Made(_) = request_id {
        out.extend_from_slice(b"X-Request-Id: ");
        request_id.write(&mut out);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(traceparent) = &traceparent {
        field(&mut out, b"Traceparent", traceparent);
    }
    out.extend_from_slice(b"\r\n");
    Ok(RoutedStream { method, body, service, head: out, websocket })
}

fn is_https(parts: &Parts) -> bool {
    parts.uri.scheme() == Some(&Scheme::HTTPS)
}

/// Whether the request asks for a WebSocket (RFC 8441 section 4). Plain CONNECT is for proxies.
fn wants_websocket(parts: &Parts) -> Result<bool, Error> {
    match parts.extensions.get::<Protocol>() {
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => Ok(true),
        Some(_) => Err(Error::NotImplemented("no protocol but websocket is supported")),
        None if parts.method == HttpMethod::CONNECT => {
            Err(Error::NotImplemented("CONNECT is not supported: this is not a proxy"))
        }
        None => Ok(false),
    }
}

/// RFC 9113 section 8.3.1: `:path` begins with a slash, or is the asterisk of OPTIONS.
fn target(parts: &Parts, method: Method) -> Result<&str, Error> {
    match parts.uri.path_and_query().map(|path| path.as_str()) {
        Some("*") if method == Method::Options => Ok("*"),
        Some(path) if path.starts_with('/') => Ok(check_target(path).map(|()| path)?),
        _ => Err(Error::BadRequest(":path does not begin with a slash")),
    }
}

/// Returns `:authority`, which a `Host` field must not contradict, or `Host` alone (RFC 9113 section 8.3.1).
fn authority<'p>(
    parts: &'p Parts,
    host: Option<&'p HeaderValue>,
) -> Result<(&'p [u8], Host<'p>), Error> {
    let parse = |text: &'p [u8]| Host::parse(text).map_err(Error::BadHost);
    let default_port = match parts.uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let (text, other) = match (authority, host) {
        (Some(authority), host) => (authority, host),
        (None, Some(host)) => (host.as_bytes(), None),
        (None, None) => return Err(Error::BadRequest("there is neither :authority nor Host")),
    };
    let parsed = parse(text)?;
    if let Some(other) = other {
        let other = parse(other.as_bytes())?;
        // RFC 9110 section 4.2.3: the scheme's default port may be omitted.
        let port = |host: &Host<'_>| host.port.or(default_port);
        if (other.as_str(), port(&other)) != (parsed.as_str(), port(&parsed)) {
            return Err(Error::BadRequest(":authority and Host differ"));
        }
    }
    Ok((text, parsed))
}

fn read_fields(parts: &Parts, trusted: bool) -> Result<RequestFields<'_>, Error> {
    let mut fields = RequestFields::default();
    for (name, value) in &parts.headers {
        let bytes = value.as_bytes();
        if !is_token(name.as_str()) {
            return Err(Error::BadRequest("a field name is malformed"));
        }
        if bytes.trim_ascii().len() != bytes.len() {
            // RFC 9113 section 8.2.1.
            return Err(Error::BadRequest("a field value begins or ends with white space"));
        }
        let kind = FieldKind::of(name.as_str());
        match kind {
            FieldKind::Host if fields.host.replace(value).is_some() => {
                return Err(Error::BadRequest("there is more than one Host field"));
            }
            FieldKind::ContentLength => {
                let length = content_length(bytes)
                    .ok_or(Error::BadRequest("Content-Length is not a number"))?;
                if fields.content_length.replace(length).is_some() {
                    return Err(Error::BadRequest("there is more than one Content-Length field"));
                }
            }
            FieldKind::Te if bytes.eq_ignore_ascii_case(b"trailers") => fields.trailers = true,
            // Only other gateways' words count, and they come over the mesh port.
            FieldKind::Mesh => {}
            // RFC 9113 section 8.2.2.
            _ if kind.is_hop_by_hop() && kind != FieldKind::Close => {
                return Err(Error::BadRequest("a field is about an HTTP/1.1 connection"));
            }
            FieldKind::Via => count_passes(&mut fields.passes, bytes)?,
            FieldKind::MaxForwards => fields.max_forwards = content_length(bytes),
            _ if name == header::COOKIE => fields.cookies.push(bytes),
            _ if trusted && forwarded::is_forwarding_field(kind) => {
                fields.received.add(kind, bytes)
            }
            _ => {}
        }
    }
    Ok(fields)
}

/// Copies the fields that the gateway does not write itself, and that are not written elsewhere.
fn copy_fields(parts: &Parts, ours: impl Fn(FieldKind) -> bool, out: &mut Vec<u8>) {
    for (name, value) in &parts.headers {
        let kind = FieldKind::of(name.as_str());
        let stays_here = ours(kind)
            || kind == FieldKind::Host
            || kind.is_hop_by_hop()
            || kind == FieldKind::Alias
            || forwarded::is_forwarding_field(kind)
            || name == header::COOKIE
            // RFC 8441 section 5: meaningless over HTTP/2; the endpoint gets another key.
            || name == header::SEC_WEBSOCKET_KEY
            // RFC 9113 section 3.1: from the obsolete upgrade to HTTP/2.
            || name == "http2-settings";
        if !stays_here {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

fn anticipates_content(parts: &Parts) -> bool {
    [HttpMethod::POST, HttpMethod::PUT, HttpMethod::PATCH].contains(&parts.method)
}
