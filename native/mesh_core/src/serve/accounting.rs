//! What is counted and recorded of a request, from its head to its end, however it ends and
//! whatever protocol it came by.

use std::rc::Rc;

use mesh_wire::client_addr::ClientAddr;
use mesh_wire::ids::{self, RequestId};
use mesh_wire::method::Method;
use mesh_wire::request::RequestHead;
use tokio::time::Instant;

use super::worker::Worker;
use crate::error::Error;
use crate::observe::{Counter, Draft, Failure, Fields, Notice, Record, Timings, Wanted};
use crate::upstream::LocalService;

/// How a request ended.
#[derive(Default)]
pub struct Ended {
    pub timings: Timings,
    /// 0: the client was told nothing.
    pub status: u16,
    /// HTTP/1.`minor`; 2 stands for HTTP/2.
    pub minor: u8,
    pub received: u64,
    pub sent: u64,
    pub error: Option<Failure>,
}

impl Ended {
    /// By an answer of the gateway's, with a body of so many bytes.
    pub fn answered(mut self, status: u16, sent: u64) -> Ended {
        (self.status, self.sent) = (status, sent);
        self
    }

    pub fn failed(mut self, error: &Error) -> Ended {
        self.error = Some(Failure::of(error));
        self
    }
}

/// What a record says of a request's head.
#[derive(Default)]
pub struct Head<'a> {
    pub method: &'a [u8],
    pub host: &'a [u8],
    /// With its query.
    pub path: &'a str,
    pub user_agent: &'a [u8],
    pub referer: &'a [u8],
    pub trace_id: &'a [u8],
}

impl<'a> Head<'a> {
    /// `begun` is the `traceparent` of a trace that begins here.
    pub fn of(request: &'a RequestHead<'_, '_>, begun: Option<&'a [u8; 55]>) -> Head<'a> {
        let begun = || begun.and_then(|parent| ids::trace_id(parent));
        Head {
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
    /// Keeps what the record of this request will say, if there is to be one.
    pub fn draft<'a>(
        &self,
        client: &ClientAddr,
        began: Instant,
        head: impl FnOnce() -> Head<'a>,
    ) -> Option<Draft> {
        let wanted: Wanted = self.shared.observer.wants(|| self.random())?;
        let head = head();
        let path =
            if wanted.query() { head.path } else { head.path.split('?').next().unwrap_or("") };
        let fields = Fields::capture([
            head.method,
            head.host,
            path.as_bytes(),
            head.user_agent,
            head.referer,
            head.trace_id,
            client.text(),
        ]);
        Some(Draft { fields, wanted, began: began.into_std() })
    }

    /// Hands out the record of a request that has ended, if there is one.
    pub fn record(
        &self,
        draft: Option<Draft>,
        request_id: &RequestId,
        service: Option<&LocalService>,
        ended: Ended,
    ) {
        let Some(Draft { mut fields, wanted, began }) = draft else { return };
        let service = service.map_or("", |service| &service.service.name);
        fields.complete(service.as_bytes(), |out| request_id.write(out));
        let Ended { timings, status, minor, received, sent, error } = ended;
        let record =
            Record { fields, wanted, began, timings, status, minor, received, sent, error };
        self.shared.observer.record(record);
    }

    /// Hands out the record of a request that was refused before it had a service.
    pub fn record_refusal(
        &self,
        draft: Option<Draft>,
        request_id: &RequestId,
        error: &Error,
        ended: Ended,
    ) {
        let elapsed = draft.as_ref().map_or(0, |draft| draft.began.elapsed().as_nanos());
        let timings = Timings { total: elapsed as u64, ..Timings::default() };
        self.counters.response_body_bytes.add(ended.sent);
        self.record(draft, request_id, None, Ended { timings, ..ended }.failed(error));
    }

    /// A request that a service has had, and that failed.
    pub fn failed(&self, service: &LocalService, error: &Error) {
        if let Error::BadResponse(why) = error {
            service.counters.last_bad_response.set(why);
            let about = || format!("{}: {why}", service.service.name);
            self.shared.observer.notice(Notice::BadResponse, about);
        }
        service.counters.error(error);
        self.limit(error);
    }

    /// A request, or a connection, that goes no further than the gateway.
    pub fn refusal(&self, error: &Error) {
        self.counters.errors.of(error).add(1);
        self.limit(error);
        if let Some(answer) = error.answer() {
            self.counters.response(answer.status);
        }
    }

    /// A request that is refused before it has a service.
    pub fn refused_request(&self, error: &Error) {
        match error {
            Error::UnknownService(_) => self.counters.requests_unrouted.add(1),
            _ => self.counters.requests_refused.add(1),
        }
        self.refusal(error);
    }

    /// Counts and tells the limit that an error speaks of, if it does. Timeouts are counted as the
    /// errors that they are, and told like limits.
    pub fn limit(&self, error: &Error) {
        if let Some((counter, name)) = self.counters.limits.of(error) {
            self.reached(counter, name);
        }
        if let Some(name) = error.patience() {
            self.shared.observer.limit(name);
        }
    }

    /// A limit has been reached, by its name in `limits`.
    pub fn reached(&self, limit: &Counter, name: &'static str) {
        limit.add(1);
        self.shared.observer.limit(name);
    }
}

/// Counts a request as under way while it lives, however it ends.
pub struct InFlight(Rc<LocalService>);

impl InFlight {
    pub fn new(service: &Rc<LocalService>, method: Method) -> InFlight {
        let counters = &service.counters;
        counters.requests.add(1);
        counters.methods.of(method).add(1);
        counters.in_flight.add(1);
        InFlight(Rc::clone(service))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counters.in_flight.sub(1);
    }
}
