//! Makes an HTTP/2 request of the head that the gateway has written for the endpoint.

use ::h2::ext::Protocol;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use mesh_wire::fields::{FieldKind, members};
use mesh_wire::request::BodyLength;

use crate::calls::CallHead;
use crate::upstream::websocket;

pub struct Asked {
    pub request: Request<()>,
    pub body: BodyLength,
    /// The request asks for a WebSocket. This is the `Sec-WebSocket-Accept` of a response that opens it.
    pub accept: Option<String>,
}

/// The error says why the request has no form in HTTP/2.
pub fn read(head: &[u8]) -> Result<Asked, &'static str> {
    let head = CallHead::parse(head).ok_or("the request head is malformed")?;
    let mut fields = HeaderMap::with_capacity(head.fields.len());
    let mut host = None;
    let mut is_upgrade = false;
    for (name, value) in &head.fields {
        let kind = std::str::from_utf8(name).map_or(FieldKind::Other, FieldKind::of);
        match kind {
            FieldKind::Host => host = Some(*value),
            // RFC 9113 section 8.2.2: the only value of TE in HTTP/2.
            FieldKind::Te if members(value).any(|it| it.eq_ignore_ascii_case(b"trailers")) => {
                fields.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            // The gateway passes on no other than that to a WebSocket.
            FieldKind::Upgrade => is_upgrade = true,
            kind if kind.is_hop_by_hop() => {}
            _ => append(&mut fields, name, value).ok_or("a field has no form in HTTP/2")?,
        }
    }
    let host = host.filter(|host| !host.is_empty()).ok_or("there is no host")?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(host.try_into().map_err(|_| "the host has no form in HTTP/2")?);
    let target = PathAndQuery::try_from(head.target);
    parts.path_and_query = Some(target.map_err(|_| "the target has no form in HTTP/2")?);
    let mut request = Request::new(());
    *request.method_mut() =
        Method::from_bytes(head.method).map_err(|_| "the method has no form in HTTP/2")?;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "the target has no form in HTTP/2")?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = fields;
    let accept = if is_upgrade { Some(connect(&mut request)?) } else { None };
    Ok(Asked { request, body: head.body, accept })
}

/// Turns an upgrade to a WebSocket into an extended CONNECT (RFC 8441 section 5), which has no key.
fn connect(request: &mut Request<()>) -> Result<String, &'static str> {
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let mut keys = request.headers().get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err("there is not exactly one Sec-WebSocket-Key");
    };
    let accept = websocket::accept(key.as_bytes());
    request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
    Ok(accept)
}

/// `None` if the field is malformed, or there are too many.
pub fn append(fields: &mut HeaderMap, name: &[u8], value: &[u8]) -> Option<()> {
    let name = HeaderName::from_bytes(name).ok()?;
    // Fails if there are more fields than a map can have.
    fields.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(request: &Request<()>) -> Vec<(&str, &str)> {
        let text = |value: &'_ HeaderValue| std::str::from_utf8(value.as_bytes()).unwrap().len();
        request
            .headers()
            .iter()
            .map(|(n, v)| (n.as_str(), &v.to_str().unwrap()[..text(v)]))
            .collect()
    }

    #[test]
    fn fields_of_http1_stay_behind() {
        let head = b"POST /a?b HTTP/1.1\r\nHost: a.test:81\r\nX-A:  1 \r\nTE: gzip, Trailers\r\nConnection: TE, x-hop\r\n\
            Keep-Alive: 5\r\nTransfer-Encoding: chunked\r\nx-a: 2\r\nVia: 1.1 mesh\r\n\r\n";
        let Asked { request, body, accept } = read(head).unwrap();
        assert_eq!(request.uri(), "http://a.test:81/a?b");
        assert_eq!((request.method(), body), (&Method::POST, BodyLength::Chunked));
        assert!(accept.is_none());
        assert_eq!(
            fields(&request),
            [("x-a", "1"), ("x-a", "2"), ("te", "trailers"), ("via", "1.1 mesh")]
        );
    }

    #[test]
    fn an_upgrade_becomes_an_extended_connect() {
        let head =
            b"GET /a?b HTTP/1.1\r\nHost: a.test\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let Asked { request, accept, .. } = read(head).unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::CONNECT, "/a"));
        assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        assert_eq!(fields(&request), [("sec-websocket-version", "13")]);
        assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn the_length_is_kept() {
        let head = b"PUT * HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTE: gzip\r\n\r\n";
        let Asked { request, body, .. } = read(head).unwrap();
        assert_eq!(
            (body, fields(&request)),
            (BodyLength::Length(5), vec![("content-length", "5")])
        );
    }

    #[test]
    fn what_has_no_form_in_http2_is_refused() {
        for head in [
            "GET / HTTP/1.1\r\nX: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nsec-websocket-key: b\r\n\r\n",
        ] {
            assert!(read(head.as_bytes()).is_err(), "{head:?}");
        }
    }
}
