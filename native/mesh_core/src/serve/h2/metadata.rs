//! Extracts what is needed to log and answer a request before it has been checked: ids, recorded fields,
//! error format.

use http::request::Parts;
use http::{HeaderMap, header};
use mesh_wire::error_format::ErrorFormat;
use mesh_wire::ids::{self, RequestId, SingleValue};

use crate::serve::accounting::RecordedHead;
use crate::serve::worker::Worker;

/// The client's request id, if it sent exactly one and that is valid, or a new one.
pub fn request_id(worker: &Worker, parts: &Parts) -> RequestId {
    if !worker.shared.config.request_id {
        return RequestId::None;
    }
    match single(parts, "x-request-id").valid(ids::is_request_id) {
        Some(given) => RequestId::Given(given.into()),
        None => RequestId::Made(worker.random_id()),
    }
}

/// What a record keeps of a request, valid or not. `begun` is the `traceparent` of a trace that the gateway
/// begins.
pub fn head<'a>(parts: &'a Parts, begun: Option<&'a [u8; 55]>) -> RecordedHead<'a> {
    let field = |name| parts.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let trace = single(parts, "traceparent").valid(|parent| ids::trace_id(parent).is_some());
    RecordedHead {
        method: parts.method.as_str().as_bytes(),
        host: authority.unwrap_or_else(|| field(header::HOST)),
        path: parts.uri.path_and_query().map_or("", |path| path.as_str()),
        user_agent: field(header::USER_AGENT),
        referer: field(header::REFERER),
        trace_id: trace.or(begun.map(|b| &b[..])).and_then(ids::trace_id).unwrap_or(b""),
    }
}

/// The `traceparent` of a new trace, if one must begin.
pub fn new_trace(worker: &Worker, parts: &Parts) -> Option<[u8; 55]> {
    let begins = |parent: SingleValue<'_>| parent.valid(|p| ids::trace_id(p).is_some()).is_none();
    let wanted = worker.shared.config.start_trace && begins(single(parts, "traceparent"));
    wanted.then(|| worker.traceparent())
}

fn single<'p>(parts: &'p Parts, name: &str) -> SingleValue<'p> {
    let mut single = SingleValue::default();
    parts.headers.get_all(name).iter().for_each(|value| single.add(value.as_bytes()));
    single
}

/// Whether a request or a response is one of gRPC. A client of gRPC-Web is told of errors by the status.
pub fn is_grpc(fields: &HeaderMap) -> bool {
    let kind = fields.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

pub fn error_format(parts: &Parts) -> ErrorFormat {
    parts
        .headers
        .get(header::ACCEPT)
        .map_or(ErrorFormat::Text, |value| ErrorFormat::from_accept(value.as_bytes()))
}
