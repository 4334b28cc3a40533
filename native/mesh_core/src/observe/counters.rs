//! Counters. Each worker writes its own with plain stores, so that counting shares no cache line;
//! whoever asks adds them up.

use std::time::Instant;

use mesh_wire::method::Method;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::counter::Counter;
use super::histogram::{Histogram, Recorded};
use crate::error::{Error, Side};

/// Declares a set of counters, their sum, and the map that `stats()` hands out, from one list.
/// Parts are sets of their own.
macro_rules! counters {
    (
        $(#[$doc:meta])* $name:ident, $totals:ident {
            $($(#[$field_doc:meta])* $field:ident),* $(,)?
        }
        $({ $($(#[$part_doc:meta])* $part:ident: $part_name:ident, $part_totals:ident),* $(,)? })?
    ) => {
        $(#[$doc])*
        #[derive(Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Counter,)*
            $($($(#[$part_doc])* pub $part: $part_name,)*)?
        }

        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct $totals {
            $($(#[$field_doc])* pub $field: u64,)*
            $($($(#[$part_doc])* pub $part: $part_totals,)*)?
        }

        impl $totals {
            pub fn add(&mut self, counters: &$name) {
                $(self.$field = self.$field.wrapping_add(counters.$field.get());)*
                $($(self.$part.add(&counters.$part);)*)?
            }

            pub fn merge(&mut self, other: &$totals) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
                $($(self.$part.merge(&other.$part);)*)?
            }
        }
    };
}

counters! {
    /// What one worker counts for one service.
    #[repr(align(128))]
    ServiceCounters, ServiceTotals {
        /// Requests that were handed to this service, whatever came of them.
        requests,
        /// Final responses by status class, those of the gateway on the service's behalf included.
        responses_1xx,
        responses_2xx,
        responses_3xx,
        responses_4xx,
        responses_5xx,
        /// Requests under way now, tunnels not included.
        in_flight,
        /// Body bytes from clients, framing included.
        request_body_bytes,
        /// Body bytes to clients, framing included.
        response_body_bytes,
        /// Requests sent a second time because a pooled connection had died.
        retries,
        /// Requests that waited for an endpoint to come back.
        holds,
        tunnels_open,
        tunnels_total,
        /// What tunnels have moved from clients, and to them; in no other count of bytes.
        tunnel_received_bytes,
        tunnel_sent_bytes,
        upstream_connections_open,
        upstream_connections_opened,
        upstream_connections_reused,
        /// No connection to the endpoint: refused, timed out, or nothing listens.
        connect_errors,
        /// The endpoint closed, reset, fell silent or answered nonsense.
        upstream_errors,
        /// The client went away, or sent a body that is none.
        downstream_errors,
        /// The gateway itself had a reason to refuse.
        gateway_errors,
    } {
        methods: MethodCounters, MethodTotals,
        /// Requests that failed, each by one kind; the sides above add up to the same.
        errors: ErrorCounters, ErrorTotals,
        latency: Latency, LatencyTotals,
        /// What was wrong with the last response that was no HTTP.
        last_bad_response: LastReason, LatestReason,
    }
}

counters! {
    /// What one worker counts apart from any service.
    #[repr(align(128))]
    WorkerCounters, WorkerTotals {
        connections_accepted,
        connections_open,
        /// Turned away because of `limits.connections` or `limits.connections_per_client`.
        connections_refused,
        /// `accept(2)` failed, for lack of file descriptors as a rule.
        accept_errors,
        /// Requests refused before a service was found: malformed, too large, too slow.
        requests_refused,
        /// Requests for a host that no service has.
        requests_unrouted,
        /// Responses to those two, by status class, and the bytes of their bodies.
        responses_4xx,
        responses_5xx,
        response_body_bytes,
        /// Tasks that panicked; each cost its own connection.
        panics,
        /// Request records that were thrown away because nobody took them in time.
        records_lost,
    } {
        /// Connections and requests that failed before a service was found, each by one kind.
        errors: ErrorCounters, ErrorTotals,
        limits: LimitCounters, LimitTotals,
    }
}

counters! {
    MethodCounters, MethodTotals { get, head, post, put, patch, delete, options, other }
}

counters! {
    ErrorCounters, ErrorTotals {
        bad_request,
        bad_host,
        target_too_long,
        head_too_long,
        too_many_fields,
        body_too_long,
        head_timeout,
        body_timeout,
        reader_timeout,
        not_implemented,
        misdirected,
        request_loop,
        version,
        unknown_service,
        not_listening,
        held_too_long,
        overloaded,
        too_many_connections,
        out_of_sockets,
        connect,
        unreachable,
        connect_timeout,
        response_timeout,
        upstream_closed,
        bad_response,
        client_gone,
    }
}

counters! {
    /// How often each of `limits` was reached.
    LimitCounters, LimitTotals {
        connections,
        connections_per_client,
        requests_per_connection,
        head_bytes,
        header_count,
        body_bytes,
        held_requests,
    }
}

/// How long requests took. One worker, one service.
#[derive(Default)]
pub struct Latency {
    /// The endpoint's: from the whole request sent to the response head read.
    pub first_byte: Histogram,
    /// From the request head read to the end of the response, whatever came of it.
    pub total: Histogram,
    /// The gateway's: from the request head read to its head sent on, connecting and holding
    /// included, and from the response head read to its head sent on.
    pub gateway: Histogram,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LatencyTotals {
    #[serde(serialize_with = "summary")]
    pub first_byte: Recorded,
    #[serde(serialize_with = "summary")]
    pub total: Recorded,
    #[serde(serialize_with = "summary")]
    pub gateway: Recorded,
}

fn summary<S: Serializer>(recorded: &Recorded, to: S) -> Result<S::Ok, S::Error> {
    recorded.summary().serialize(to)
}

impl LatencyTotals {
    fn add(&mut self, latency: &Latency) {
        self.first_byte.add(&latency.first_byte);
        self.total.add(&latency.total);
        self.gateway.add(&latency.gateway);
    }

    fn merge(&mut self, other: &LatencyTotals) {
        self.first_byte.merge(&other.first_byte);
        self.total.merge(&other.total);
        self.gateway.merge(&other.gateway);
    }
}

/// The words for something that has last gone wrong, and when. It goes wrong rarely: others wait for
/// a lock then.
#[derive(Default)]
pub struct LastReason(Mutex<LatestReason>);

/// The latest of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatestReason(Option<(Instant, &'static str)>);

impl LastReason {
    pub fn set(&self, reason: &'static str) {
        self.0.lock().0 = Some((Instant::now(), reason));
    }
}

impl LatestReason {
    fn add(&mut self, last: &LastReason) {
        self.merge(&last.0.lock());
    }

    fn merge(&mut self, other: &LatestReason) {
        let when = |reason: &LatestReason| reason.0.map(|(when, _)| when);
        if when(other) > when(self) {
            self.0 = other.0;
        }
    }
}

impl Serialize for LatestReason {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.map(|(_, reason)| reason).serialize(to)
    }
}

impl ServiceCounters {
    pub fn response(&self, status: u16) {
        let class = match status / 100 {
            1 => &self.responses_1xx,
            2 => &self.responses_2xx,
            3 => &self.responses_3xx,
            4 => &self.responses_4xx,
            _ => &self.responses_5xx,
        };
        class.add(1);
    }

    /// The gateway has answered in the service's place; a status of 0 is nobody there to be answered.
    pub fn answered(&self, status: u16, body: u64) {
        if status > 0 {
            self.response(status);
        }
        self.response_body_bytes.add(body);
    }

    pub fn error(&self, error: &Error) {
        self.errors.of(error).add(1);
        match error.side() {
            Side::Downstream => self.downstream_errors.add(1),
            Side::Upstream => self.upstream_errors.add(1),
            Side::Gateway => self.gateway_errors.add(1),
        }
    }
}

impl WorkerCounters {
    /// The answer to a connection or a request that has no service.
    pub fn response(&self, status: u16) {
        match status / 100 {
            4 => self.responses_4xx.add(1),
            _ => self.responses_5xx.add(1),
        }
    }
}

impl LimitCounters {
    /// The limit that an error speaks of, with its name in the configuration.
    pub fn of(&self, error: &Error) -> Option<(&Counter, &'static str)> {
        Some(match error {
            Error::Overloaded => (&self.connections, "connections"),
            Error::TooManyConnections => (&self.connections_per_client, "connections_per_client"),
            Error::TargetTooLong | Error::HeadTooLong => (&self.head_bytes, "head_bytes"),
            Error::TooManyFields => (&self.header_count, "header_count"),
            Error::BodyTooLong => (&self.body_bytes, "body_bytes"),
            _ => return None,
        })
    }
}

impl MethodCounters {
    pub fn of(&self, method: Method) -> &Counter {
        match method {
            Method::Get => &self.get,
            Method::Head => &self.head,
            Method::Post => &self.post,
            Method::Put => &self.put,
            Method::Patch => &self.patch,
            Method::Delete => &self.delete,
            Method::Options => &self.options,
            Method::Trace | Method::Other => &self.other,
        }
    }
}

/// What each error is called, and counted as.
macro_rules! kinds {
    ($($error:pat => $kind:ident,)*) => {
        impl ErrorCounters {
            pub fn of(&self, error: &Error) -> &Counter {
                match error { $($error => &self.$kind,)* }
            }
        }

        impl Error {
            pub fn kind(&self) -> &'static str {
                match self { $($error => stringify!($kind),)* }
            }
        }
    };
}

kinds! {
    Error::BadRequest(_) => bad_request,
    Error::BadHost(_) => bad_host,
    Error::TargetTooLong => target_too_long,
    Error::HeadTooLong => head_too_long,
    Error::TooManyFields => too_many_fields,
    Error::BodyTooLong => body_too_long,
    Error::HeadTimeout => head_timeout,
    Error::BodyTimeout => body_timeout,
    Error::ReaderTimeout => reader_timeout,
    Error::NotImplemented(_) => not_implemented,
    Error::Misdirected => misdirected,
    Error::Loop => request_loop,
    Error::Version => version,
    Error::UnknownService(_) => unknown_service,
    Error::NotListening => not_listening,
    Error::HeldTooLong => held_too_long,
    Error::Overloaded => overloaded,
    Error::TooManyConnections => too_many_connections,
    Error::OutOfSockets(_) => out_of_sockets,
    Error::Connect(_) => connect,
    Error::Unreachable(_) => unreachable,
    Error::ConnectTimeout => connect_timeout,
    Error::ResponseTimeout => response_timeout,
    Error::UpstreamClosed => upstream_closed,
    Error::BadResponse(_) => bad_response,
    Error::ClientGone => client_gone,
}
