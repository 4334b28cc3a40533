//! Counters. Each worker writes its own with plain stores, so that counting shares no cache line;
//! whoever asks adds them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// A counter with one writer and any number of readers.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        // One writer only: load and store instead of a locked addition.
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.store(self.get().wrapping_sub(n), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares a set of counters, their sum, and the map that `stats()` hands out, from one list.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident, $totals:ident { $($(#[$field_doc:meta])* $field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Default)]
        #[repr(align(128))]
        pub struct $name { $($(#[$field_doc])* pub $field: Counter,)* }

        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct $totals { $($(#[$field_doc])* pub $field: u64,)* }

        impl $totals {
            pub fn add(&mut self, counters: &$name) {
                $(self.$field = self.$field.wrapping_add(counters.$field.get());)*
            }
        }
    };
}

counters! {
    /// What one worker counts for one service.
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
        upstream_connections_opened,
        upstream_connections_reused,
        /// No connection to the endpoint: refused, timed out, or nothing listens.
        connect_errors,
        /// The endpoint closed, reset, fell silent or answered nonsense.
        upstream_errors,
        /// The client went away, or sent a body that is none.
        downstream_errors,
    }
}

counters! {
    /// What one worker counts apart from any service.
    WorkerCounters, WorkerTotals {
        connections_accepted,
        connections_open,
        /// Turned away because of `limits.connections`.
        connections_refused,
        /// `accept(2)` failed, for lack of file descriptors as a rule.
        accept_errors,
        /// Requests refused before a service was found: malformed, too large, too slow.
        requests_refused,
        /// Requests for a host that no service has.
        requests_unrouted,
        /// Tasks that panicked; each cost its own connection.
        panics,
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
}

/// The counters of one service over all workers. Lives as long as the service's name does.
#[derive(Default)]
pub struct ServiceStats {
    workers: Mutex<BTreeMap<usize, Arc<ServiceCounters>>>,
}

impl ServiceStats {
    /// The counters that worker `index` writes, the same ones after a restart of the worker.
    pub fn of_worker(&self, index: usize) -> Arc<ServiceCounters> {
        Arc::clone(self.workers.lock().entry(index).or_default())
    }

    pub fn totals(&self) -> ServiceTotals {
        let mut totals = ServiceTotals::default();
        for counters in self.workers.lock().values() {
            totals.add(counters);
        }
        totals
    }
}

/// Everything counted, in one snapshot.
#[derive(Debug, Serialize)]
pub struct Stats {
    pub gateway: WorkerTotals,
    pub services: BTreeMap<String, ServiceTotals>,
}
