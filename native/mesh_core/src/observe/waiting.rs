//! What waits for the collector: records, notices and orders.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use parking_lot::{Condvar, Mutex};

use super::notice::Notices;
use super::record::Record;

/// Records that wait for the collector: a third of a second at 50,000 requests a second.
pub const QUEUE: usize = 16 * 1024;

#[derive(Default)]
pub struct Waiting {
    /// Made when records are wanted for the first time: it takes megabytes.
    records: OnceLock<ArrayQueue<Record>>,
    pub notices: Notices,
    /// Records that were dropped, here or by a sink.
    lost: AtomicU64,
    /// There is something for the collector.
    pub something: AtomicBool,
    pub orders: Mutex<Orders>,
    pub woken: Condvar,
}

#[derive(Default)]
pub struct Orders {
    pub stop: bool,
    pub reopen: bool,
}

impl Waiting {
    pub fn record(&self, record: Record) {
        let queue = self.records.get_or_init(|| ArrayQueue::new(QUEUE));
        if queue.push(record).is_err() {
            self.lose(1);
        }
        self.wake();
    }

    /// Moves the records that wait into `records`.
    pub fn take_records(&self, records: &mut Vec<Record>) {
        if let Some(queue) = self.records.get() {
            records.extend(std::iter::from_fn(|| queue.pop()).take(QUEUE));
        }
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn lose(&self, records: usize) {
        self.lost.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Wakes the collector once for each batch: a second call before it has looked does nothing.
    pub fn wake(&self) {
        if !self.something.swap(true, Ordering::SeqCst) {
            // With the lock, so that the collector is not between its look and its wait.
            let _orders = self.orders.lock();
            self.woken.notify_one();
        }
    }
}
