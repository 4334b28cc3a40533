//! Counts and records each request from its head to its end, for any protocol and any result.

use std::rc::Rc;

use mesh_wire::client_addr::ClientAddr;
use mesh_wire::fields;
use mesh_wire::ids::{self, RequestId};
use mesh_wire::method::Method;
use mesh_wire::request::RequestHead;
use tokio::time::Instant;

use super::worker::Worker;
use crate::error::Error;
use crate::observe::{
    Counter, Draft, Failure, Hop, Notice, Record, RecordFields, RecordFlags, Timings,
};
use crate::upstream::LocalService;

#[derive(Default)]
pub struct RequestEnd {
    pub timings: Timings,
    /// The response status. 0: none.
    pub status: u16,
    /// HTTP/1.`minor`; 2 stands for HTTP/2.
    pub minor: u8,
    pub received: u64,
    pub sent: u64,
    pub error: Option<Failure>,
    pub hop: Option<Hop>,
    pub grpc_status: Option<u16>,
}

impl RequestEnd {
    /// Sets the status and body size of the gateway's own answer.
    pub fn answered(mut self, status: u16, sent: u64) -> RequestEnd {
        (self.status, self.sent) = (status, sent);
        self
    }

    pub fn failed(mut self, error: &Error) -> RequestEnd {
        self.error = Some(Failure::of(error));
        self
    }
}

/// What a record keeps of a request head.
#[derive(Default)]
pub struct RecordedHead<'a> {
    pub method: &'a [u8],
    pub host: &'a [u8],
    /// With the query.
    pub path: &'a str,
    pub user_agent: &'a [u8],
    pub referer: &'a [u8],
    pub trace_id: &'a [u8],
}

impl<'a> RecordedHead<'a> {
    /// `begun` is the `traceparent` of a trace that the gateway begins.
    pub fn of(request: &'a RequestHead<'_, '_>, begun: Option<&'a [u8; 55]>) -> RecordedHead<'a> {
        let begun = || begun.and_then(|parent| ids::trace_id(parent));
        RecordedHead {
            method: request.method().as_bytes(),
            host: request.host.as_ref().map_or(b"", |host| host.as_bytes()),
            path: request.path(),
            user_agent: request.first("user-agent"),
            referer: request.first("referer"),
            trace_id: request.trace_id().or_else(begun).unwrap_or(b""),
        }
    }
}

impl Worker {
    /// Captures a request for its record, if it will be recorded.
    pub fn draft<'a>(
        &self,
        client: &ClientAddr,
        began: Instant,
        head: impl FnOnce() -> RecordedHead<'a>,
    ) -> Option<Draft> {
        let wanted = self.shared.observer.record_flags(|| self.random())?;
        Some(capture(wanted, client.text(), began, &head()))
    }

    /// The same for a request of a peer, which has told the client's address.
    pub fn draft_of_peer<'a>(
        &self,
        request: &RequestHead<'_, '_>,
        began: Instant,
        head: impl FnOnce() -> RecordedHead<'a>,
    ) -> Option<Draft> {
        let wanted = self.shared.observer.record_flags(|| self.random())?.of_peer()?;
        let client = fields::members(request.first("x-forwarded-for")).last();
        Some(capture(wanted, client.unwrap_or(b""), began, &head()))
    }

    /// Records a finished request, if there is a draft.
    #[inline]
    pub fn record(
        &self,
        draft: Option<Draft>,
        request_id: &RequestId,
        service: Option<&LocalService>,
        ended: impl FnOnce() -> RequestEnd,
    ) {
        // Most requests have none.
        if let Some(draft) = draft {
            self.record_draft(draft, request_id, service, ended());
        }
    }

    fn record_draft(
        &self,
        Draft { mut fields, wanted, began }: Draft,
        request_id: &RequestId,
        service: Option<&LocalService>,
        ended: RequestEnd,
    ) {
        let service = service.map_or("", |service| &service.service.name);
        fields.complete(service.as_bytes(), |out| request_id.write(out));
        let RequestEnd { timings, status, minor, received, sent, error, hop, grpc_status } = ended;
        let record = Record {
            fields,
            wanted,
            began,
            timings,
            status,
            minor,
            received,
            sent,
            error,
            hop,
            grpc_status,
        };
        self.shared.observer.record(record);
    }

    /// Records a request that was refused before a service was found.
    pub fn record_refusal(
        &self,
        draft: Option<Draft>,
        request_id: &RequestId,
        error: &Error,
        ended: RequestEnd,
    ) {
        let elapsed = draft.as_ref().map_or(0, |draft| draft.began.elapsed().as_nanos());
        let timings = Timings { total: elapsed as u64, ..Timings::default() };
        self.counters.response_body_bytes.add(ended.sent);
        self.record(draft, request_id, None, || RequestEnd { timings, ..ended }.failed(error));
    }

    /// Counts a request that failed after a service was found.
    pub fn failed(&self, service: &LocalService, error: &Error) {
        if let Error::BadResponse(why) = error {
            service.counters.last_bad_response.set(why);
            let about = || format!("{}: {why}", service.service.name);
            self.shared.observer.notice(Notice::BadResponse, about);
        }
        service.counters.error(error);
        self.limit(error);
    }

    /// Counts a request or connection that the gateway refuses.
    pub fn refusal(&self, error: &Error) {
        self.counters.errors.of(error).add(1);
        self.limit(error);
        if let Some(answer) = error.answer() {
            self.counters.response(answer.status);
        }
    }

    /// Counts a request that is refused before a service was found.
    pub fn refused_request(&self, error: &Error) {
        match error {
            Error::UnknownService(_) => self.counters.requests_unrouted.add(1),
            _ => self.counters.requests_refused.add(1),
        }
        self.refusal(error);
    }

    /// Counts and reports the limit that caused the error, if any. Timeouts are counted as errors and
    /// reported as limits.
    pub fn limit(&self, error: &Error) {
        if let Some((counter, name)) = self.counters.limits.of(error) {
            self.reached(counter, name);
        }
        if let Some(name) = error.timeout_key() {
            self.shared.observer.limit(name);
        }
    }

    /// Counts and reports a limit by its name in `limits`.
    pub fn reached(&self, limit: &Counter, name: &'static str) {
        limit.add(1);
        self.shared.observer.limit(name);
    }
}

fn capture(wanted: RecordFlags, client: &[u8], began: Instant, head: &RecordedHead<'_>) -> Draft {
    let path = if wanted.query() { head.path } else { head.path.split('?').next().unwrap_or("") };
    let fields = RecordFields::capture([
        head.method,
        head.host,
        path.as_bytes(),
        head.user_agent,
        head.referer,
        head.trace_id,
        client,
    ]);
    Draft { fields, wanted, began: began.into_std() }
}

/// Counts a request as in flight until dropped.
pub struct RequestInFlight(Rc<LocalService>);

impl RequestInFlight {
    pub fn new(service: &Rc<LocalService>, method: Method) -> RequestInFlight {
        let counters = &service.counters;
        counters.requests.add(1);
        counters.methods.of(method).add(1);
        counters.in_flight.add(1);
        RequestInFlight(Rc::clone(service))
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.counters.in_flight.sub(1);
    }
}
