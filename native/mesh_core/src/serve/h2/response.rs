//! Builds response heads for HTTP/2: from an endpoint's head, and for the gateway's own answers.

use std::fmt::Write;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use mesh_wire::chunked::Decoder;
use mesh_wire::error_format::ErrorFormat;
use mesh_wire::ids::RequestId;
use mesh_wire::response::{ResponseHead, ServerTiming};

use super::metadata;
use crate::error::{Answer, Error};
use crate::observe::wall_clock;
use crate::serve::reply;

/// Converts an endpoint's head. The framing of its body does not matter.
pub fn head(
    head: &ResponseHead<'_, '_>,
    timing: Option<ServerTiming>,
) -> Result<Response<()>, Error> {
    let mut fields = HeaderMap::with_capacity(16);
    for (name, value) in head.fields() {
        append(&mut fields, name, value).ok_or(Error::BadResponse("a field is malformed"))?;
    }
    // RFC 9110 section 6.6.1: a recipient with a clock adds a missing date.
    if head.info.status >= 200 && !fields.contains_key(header::DATE) {
        fields.insert(header::DATE, now());
    }
    if let Some(timing) = timing.filter(|_| head.info.status >= 200) {
        let mut text = Vec::new();
        timing.write(&mut text);
        append(&mut fields, b"server-timing", &text);
    }
    let status = StatusCode::from_u16(head.info.status)
        .map_err(|_| Error::BadResponse("the status is invalid"))?;
    Ok(response(status, fields))
}

/// The trailers of a chunked response.
pub fn trailers(decoder: &Decoder) -> Result<HeaderMap, Error> {
    let mut fields = HeaderMap::new();
    for (name, value) in decoder.trailers() {
        append(&mut fields, name, value).ok_or(Error::BadResponse("a trailer is malformed"))?;
    }
    Ok(fields)
}

/// The head and body of the gateway's own answer.
pub fn answer(
    answer: &Answer,
    error_format: ErrorFormat,
    id: &RequestId,
) -> (Response<()>, String) {
    let (kind, body) = reply::render(answer, error_format);
    let mut fields = HeaderMap::with_capacity(8);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::DATE, now());
    if let Some(seconds) = answer.retry_after {
        fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    add_id(&mut fields, id);
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    (response(status, fields), body)
}

/// The gateway's own answer to a gRPC client: a response that is one head.
pub fn grpc_answer(answer: &Answer, id: &RequestId) -> Response<()> {
    let mut fields = grpc_trailers(answer);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(header::DATE, now());
    add_id(&mut fields, id);
    response(StatusCode::OK, fields)
}

/// The end of a gRPC response that has begun, in the gateway's name.
pub fn grpc_trailers(answer: &Answer) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(8);
    fields.insert("grpc-status", HeaderValue::from(answer.grpc_status()));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&answer.message)) {
        fields.insert("grpc-message", message);
    }
    fields
}

/// Whether a response is one of gRPC whose end may be an error. A length has promised another end.
pub fn may_end_in_error(head: &Response<()>) -> bool {
    let fields = head.headers();
    head.status() == StatusCode::OK
        && metadata::is_grpc(fields)
        && !fields.contains_key(header::CONTENT_LENGTH)
}

/// The value of `grpc-status`.
pub fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The text of a `grpc-message`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=31 | 127.. => _ = write!(encoded, "%{byte:02X}"),
            _ => encoded.push(byte.into()),
        }
    }
    encoded
}

fn add_id(fields: &mut HeaderMap, id: &RequestId) {
    let mut text = Vec::new();
    id.write(&mut text);
    if let Ok(id) = HeaderValue::try_from(text)
        && !id.is_empty()
    {
        fields.insert("x-request-id", id);
    }
}

fn response(status: StatusCode, fields: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

fn append(fields: &mut HeaderMap, name: &[u8], value: &[u8]) -> Option<()> {
    // RFC 9113 section 8.2: names must be lower case, which `HeaderName` ensures.
    let name = HeaderName::from_bytes(name).ok()?;
    // Fails if there are more fields than a map can have.
    fields.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
    Some(())
}

fn now() -> HeaderValue {
    HeaderValue::try_from(wall_clock::http_date()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_message_is_percent_encoded() {
        assert_eq!(percent_encoded("a b: 100% of \"é\"\n"), "a b: 100%25 of \"%C3%A9\"%0A");
    }
}
