//! What all workers have counted together, for each service and over all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::counters::{ServiceCounters, ServiceTotals, WorkerTotals};

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

/// Services that are in the table no more, so that what they counted stays in the sum.
#[derive(Default)]
pub struct Gone {
    /// Requests may still be under way.
    ending: Vec<Arc<ServiceStats>>,
    ended: ServiceTotals,
}

impl Gone {
    pub fn add(&mut self, stats: Arc<ServiceStats>) {
        self.settle();
        self.ending.push(stats);
    }

    /// Keeps only the sum of those that count no more: no request refers to them, and no connection
    /// that another service may use next is open.
    fn settle(&mut self) {
        self.ending.retain(|stats| {
            if Arc::strong_count(stats) > 1 {
                return true;
            }
            let totals = stats.totals();
            let counts = totals.upstream_connections_open > 0;
            if !counts {
                self.ended.merge(&totals);
            }
            counts
        });
    }

    pub fn totals(&mut self) -> ServiceTotals {
        self.settle();
        let mut totals = self.ended.clone();
        self.ending.iter().for_each(|stats| totals.merge(&stats.totals()));
        totals
    }
}

/// Everything counted, in one snapshot.
#[derive(Debug, Serialize)]
pub struct Stats {
    pub gateway: WorkerTotals,
    /// Over all services, those included that are gone.
    pub total: ServiceTotals,
    pub services: BTreeMap<String, ServiceTotals>,
    /// Upper ends, in nanoseconds, of the buckets of every `latency`.
    pub latency_buckets: Vec<u64>,
}
