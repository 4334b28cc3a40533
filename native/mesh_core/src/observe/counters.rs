//! Defines the counters. Each worker writes its own with plain stores, so no cache line is shared; readers
//! add them up.

use std::time::Instant;

use mesh_wire::method::Method;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::counter::Counter;
use super::histogram::{Histogram, HistogramTotals};
use crate::error::{Error, Side};

/// Declares a set of counters, their totals, and the map that `stats()` returns, from one list. Parts are sets
/// themselves.
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
        /// Requests handed to this service, whatever their result.
        requests,
        /// Final responses by status class, including the gateway's own.
        responses_1xx,
        responses_2xx,
        responses_3xx,
        responses_4xx,
        responses_5xx,
        /// Requests in flight, without tunnels.
        in_flight,
        /// Body bytes from clients, framing included.
        request_body_bytes,
        /// Body bytes to clients, framing included.
        response_body_bytes,
        /// Requests sent again because a pooled connection had closed, or because a peer did not serve them.
        retries,
        /// Requests that the gateway of another node served.
        sent_to_peers,
        /// Requests that waited for an endpoint to return.
        holds,
        tunnels_open,
        tunnels_total,
        /// Bytes that tunnels moved from clients and to clients. No other counter includes them.
        tunnel_received_bytes,
        tunnel_sent_bytes,
        upstream_connections_open,
        upstream_connections_opened,
        upstream_connections_reused,
        /// Failed connections to the endpoint: refused, timed out, or nothing listens.
        connect_errors,
        /// The endpoint closed, reset, timed out or sent an invalid response.
        upstream_errors,
        /// The client left, or sent an invalid body.
        downstream_errors,
        /// The gateway itself refused the request.
        gateway_errors,
    } {
        methods: MethodCounters, MethodTotals,
        /// gRPC calls by status, the gateway's own included.
        grpc: GrpcCounters, GrpcTotals,
        /// Failed requests by kind. The sum equals that of the three sides above.
        errors: ErrorCounters, ErrorTotals,
        latency: Latency, LatencyTotals,
        /// Why the last invalid response was invalid.
        last_bad_response: LastReason, LastReasonTotals,
    }
}

counters! {
    /// What one worker counts without a service.
    #[repr(align(128))]
    WorkerCounters, WorkerTotals {
        connections_accepted,
        connections_open,
        /// Connections of peers. No other figure includes them.
        peer_connections_open,
        /// Refused because of `limits.connections` or `limits.connections_per_client`.
        connections_refused,
        /// `accept(2)` failed, usually for lack of file descriptors.
        accept_errors,
        /// Requests refused before a service was found: malformed, too large, too slow.
        requests_refused,
        /// Requests for a host that no service has.
        requests_unrouted,
        /// Responses to those two, by status class, and their body bytes.
        responses_4xx,
        responses_5xx,
        response_body_bytes,
        /// Tasks that panicked. Each ended its own connection.
        panics,
        /// Request records that were dropped because they were not collected in time.
        records_lost,
    } {
        /// Connections and requests that failed before a service was found, by kind.
        errors: ErrorCounters, ErrorTotals,
        limits: LimitCounters, LimitTotals,
    }
}

counters! {
    MethodCounters, MethodTotals { get, head, post, put, patch, delete, options, other }
}

counters! {
    /// In the order of their numbers.
    GrpcCounters, GrpcTotals {
        ok,
        cancelled,
        unknown,
        invalid_argument,
        deadline_exceeded,
        not_found,
        already_exists,
        permission_denied,
        resource_exhausted,
        failed_precondition,
        aborted,
        out_of_range,
        unimplemented,
        internal,
        unavailable,
        data_loss,
        unauthenticated,
    }
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
        refused,
        refused_by_peer,
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

/// Durations of requests, for one worker and one service.
#[derive(Default)]
pub struct Latency {
    /// The endpoint's part: from the whole request sent to the response head read.
    pub first_byte: Histogram,
    /// From the request head read to the end of the response, whatever the result.
    pub total: Histogram,
    /// The gateway's part: from the request head read to its head forwarded, including connecting and
    /// holding, and from the response head read to its head forwarded.
    pub gateway: Histogram,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LatencyTotals {
    #[serde(serialize_with = "summary")]
    pub first_byte: HistogramTotals,
    #[serde(serialize_with = "summary")]
    pub total: HistogramTotals,
    #[serde(serialize_with = "summary")]
    pub gateway: HistogramTotals,
}

fn summary<S: Serializer>(recorded: &HistogramTotals, to: S) -> Result<S::Ok, S::Error> {
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

/// The last reason for a failure, and its time. Failures are rare, so a lock is acceptable.
#[derive(Default)]
pub struct LastReason(Mutex<LastReasonTotals>);

/// The latest reason over all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastReasonTotals(Option<(Instant, &'static str)>);

impl LastReason {
    pub fn set(&self, reason: &'static str) {
        self.0.lock().0 = Some((Instant::now(), reason));
    }
}

impl LastReasonTotals {
    fn add(&mut self, last: &LastReason) {
        self.merge(&last.0.lock());
    }

    fn merge(&mut self, other: &LastReasonTotals) {
        let when = |reason: &LastReasonTotals| reason.0.map(|(when, _)| when);
        if when(other) > when(self) {
            self.0 = other.0;
        }
    }
}

impl Serialize for LastReasonTotals {
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

    /// Counts the gateway's answer in the service's place. Status 0: the client was gone.
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
    /// Counts the answer to a connection or request without a service.
    pub fn response(&self, status: u16) {
        match status / 100 {
            4 => self.responses_4xx.add(1),
            _ => self.responses_5xx.add(1),
        }
    }
}

impl LimitCounters {
    /// The counter and configuration key of the limit that caused the error.
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

impl GrpcCounters {
    /// A status that gRPC does not know counts as unknown.
    pub fn of(&self, status: u16) -> &Counter {
        match status {
            0 => &self.ok,
            1 => &self.cancelled,
            3 => &self.invalid_argument,
            4 => &self.deadline_exceeded,
            5 => &self.not_found,
            6 => &self.already_exists,
            7 => &self.permission_denied,
            8 => &self.resource_exhausted,
            9 => &self.failed_precondition,
            10 => &self.aborted,
            11 => &self.out_of_range,
            12 => &self.unimplemented,
            13 => &self.internal,
            14 => &self.unavailable,
            15 => &self.data_loss,
            16 => &self.unauthenticated,
            _ => &self.unknown,
        }
    }
}

/// The name of each error, and its counter.
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
    Error::UpstreamClosed | Error::UpstreamReset(_) => upstream_closed,
    Error::BadResponse(_) | Error::NotHttp2(_) => bad_response,
    Error::Refused(_) => refused,
    Error::RefusedByPeer => refused_by_peer,
    Error::ClientGone => client_gone,
}
