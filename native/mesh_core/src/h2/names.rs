//! How a request is called, and how its client wants to be answered: what is known of a request
//! before it has been checked.

use http::header;
use http::request::Parts;

use crate::ids::{self, Line, RequestId};
use crate::reply::Prefer;
use crate::worker::Worker;

/// The client's id for the request, where it gave a single and sane one, or one that is made.
pub fn request_id(worker: &Worker, parts: &Parts) -> RequestId {
    if !worker.shared.config.request_id {
        return RequestId::None;
    }
    match single(parts, "x-request-id").valid(ids::is_request_id) {
        Some(given) => RequestId::Given(given.into()),
        None => RequestId::Made(worker.ids.id()),
    }
}

/// A trace that begins here, if one is to.
pub fn new_trace(worker: &Worker, parts: &Parts) -> Option<[u8; 55]> {
    let begins = |parent: Line<'_>| parent.valid(|p| ids::trace_id(p).is_some()).is_none();
    let wanted = worker.shared.config.start_trace && begins(single(parts, "traceparent"));
    wanted.then(|| ids::traceparent(&worker.ids))
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
