//! Writes an endpoint's response as HTTP/1.1, for the exchange to read as from any endpoint.

use std::io::Write;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use mesh_wire::lines::{field, number};

use super::response_bytes::ResponseBytes;

/// An interim response (1xx).
pub fn interim(head: &Response<()>, out: &mut Vec<u8>) {
    start(head.status(), out);
    fields(head.headers(), true, out);
    out.extend_from_slice(b"\r\n");
}

/// The final head. `ends`: it is the whole response. Returns whether the body is chunked.
pub fn head(
    status: StatusCode,
    all: &HeaderMap,
    is_head: bool,
    ends: bool,
    out: &mut Vec<u8>,
) -> bool {
    let has_body = !is_head && !matches!(status.as_u16(), 204 | 304);
    let has_length = all.contains_key(header::CONTENT_LENGTH);
    // Only a chunked body has trailers. Without them a length says more.
    let is_chunked = has_body && !ends && (!has_length || wants_trailers(all));
    start(status, out);
    fields(all, !is_chunked, out);
    if is_chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    // A response without length or chunks ends with the stream, which is used once.
    out.extend_from_slice(b"connection: close\r\n\r\n");
    is_chunked
}

/// The head of a response that opens a WebSocket (RFC 8441 section 5), as HTTP/1.1 has it.
pub fn switch(all: &HeaderMap, accept: &str, out: &mut Vec<u8>) {
    start(StatusCode::SWITCHING_PROTOCOLS, out);
    fields(all, false, out);
    field(out, b"sec-websocket-accept", accept.as_bytes());
    out.extend_from_slice(b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n");
}

/// The length of the body, if the head tells.
pub fn length(status: StatusCode, all: &HeaderMap, is_head: bool) -> Option<u64> {
    if is_head || matches!(status.as_u16(), 204 | 304) {
        return Some(0);
    }
    all.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub fn data(data: Bytes, is_chunked: bool, out: &mut ResponseBytes) {
    // An empty chunk would end the body.
    if !is_chunked || data.is_empty() {
        return out.data(data);
    }
    // Writing to a vector does not fail.
    let _ = write!(out.text(), "{:x}\r\n", data.len());
    out.data(data);
    out.text().extend_from_slice(b"\r\n");
}

pub fn end(trailers: Option<&HeaderMap>, is_chunked: bool, out: &mut ResponseBytes) {
    if is_chunked {
        let out = out.text();
        out.extend_from_slice(b"0\r\n");
        if let Some(trailers) = trailers {
            fields(trailers, true, out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn wants_trailers(fields: &HeaderMap) -> bool {
    fields.contains_key(header::TRAILER) || is_grpc(fields)
}

/// Whether a message is one of gRPC.
pub fn is_grpc(fields: &HeaderMap) -> bool {
    let kind = fields.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    kind.starts_with(b"application/grpc")
}

fn start(status: StatusCode, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(status.as_u16()));
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn fields(fields: &HeaderMap, with_length: bool, out: &mut Vec<u8>) {
    for (name, value) in fields {
        if with_length || name != header::CONTENT_LENGTH {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}
