//! How a request is called, and how its client wants to be answered: what is known of a request
//! before it has been checked.

use http::header;
use http::request::Parts;
use mesh_wire::ids::{self, Line, RequestId};
use mesh_wire::prefer::Prefer;

use crate::serve::accounting::Head;
use crate::serve::worker::Worker;

/// The client's id for the request, where it gave a single and sane one, or one that is made.
pub fn request_id(worker: &Worker, parts: &Parts) -> RequestId {
    if !worker.shared.config.request_id {
        return RequestId::None;
    }
    match single(parts, "x-request-id").valid(ids::is_request_id) {
        Some(given) => RequestId::Given(given.into()),
        None => RequestId::Made(worker.random_id()),
    }
}

/// What a record says of a request, checked or not. `begun` is the `traceparent` of a trace that
/// begins here.
pub fn head<'a>(parts: &'a Parts, begun: Option<&'a [u8; 55]>) -> Head<'a> {
    let field = |name| parts.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let trace = single(parts, "traceparent").valid(|parent| ids::trace_id(parent).is_some());
    Head {
        method: parts.method.as_str().as_bytes(),
        host: authority.unwrap_or_else(|| field(header::HOST)),
        path: parts.uri.path_and_query().map_or("", |path| path.as_str()),
        user_agent: field(header::USER_AGENT),
        referer: field(header::REFERER),
        trace_id: trace.or(begun.map(|b| &b[..])).and_then(ids::trace_id).unwrap_or(b""),
    }
}

/// A trace that begins here, if one is to.
pub fn new_trace(worker: &Worker, parts: &Parts) -> Option<[u8; 55]> {
    let begins = |parent: Line<'_>| parent.valid(|p| ids::trace_id(p).is_some()).is_none();
    let wanted = worker.shared.config.start_trace && begins(single(parts, "traceparent"));
    wanted.then(|| worker.traceparent())
}

fn single<'p>(parts: &'p Parts, name: &str) -> Line<'p> {
    let mut line = Line::default();
    parts.headers.get_all(name).iter().for_each(|value| line.take(value.as_bytes()));
    line
}

/// How the gateway's own answer should look.
pub fn prefers(parts: &Parts) -> Prefer {
    parts.headers.get(header::ACCEPT).map_or(Prefer::Text, |value| Prefer::of(value.as_bytes()))
}
