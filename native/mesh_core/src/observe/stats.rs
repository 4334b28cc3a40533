//! Adds up the counters of all workers, per service and in total.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::counters::{ServiceCounters, ServiceTotals, WorkerTotals};

/// The counters of one service over all workers. Lives as long as the service's name is in the table.
#[derive(Default)]
pub struct ServiceStats {
    workers: Mutex<BTreeMap<usize, Arc<ServiceCounters>>>,
}

impl ServiceStats {
    /// The counters of worker `index`. A restarted worker continues them.
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

/// Services that have left the table, so that their counts stay in the total.
#[derive(Default)]
pub struct RemovedServices {
    /// Requests or connections may still count here.
    active: Vec<Arc<ServiceStats>>,
    finished: ServiceTotals,
}

impl RemovedServices {
    pub fn add(&mut self, stats: Arc<ServiceStats>) {
        self.settle();
        self.active.push(stats);
    }

    /// Folds services that no longer count into the sum: no request refers to them, and no connection that
    /// another service may take over is open.
    fn settle(&mut self) {
        self.active.retain(|stats| {
            if Arc::strong_count(stats) > 1 {
                return true;
            }
            let totals = stats.totals();
            let counts = totals.upstream_connections_open > 0;
            if !counts {
                self.finished.merge(&totals);
            }
            counts
        });
    }

    pub fn totals(&mut self) -> ServiceTotals {
        self.settle();
        let mut totals = self.finished.clone();
        self.active.iter().for_each(|stats| totals.merge(&stats.totals()));
        totals
    }
}

/// A snapshot of all counters.
#[derive(Debug, Serialize)]
pub struct Stats {
    pub gateway: WorkerTotals,
    /// Over all services, including removed ones.
    pub total: ServiceTotals,
    pub services: BTreeMap<String, ServiceTotals>,
    /// Requests from other nodes, by the service that served them. No other figure includes them.
    pub from_peers: BTreeMap<String, ServiceTotals>,
    /// Upper bounds, in nanoseconds, of the buckets of each `latency`.
    pub latency_buckets: Vec<u64>,
}
