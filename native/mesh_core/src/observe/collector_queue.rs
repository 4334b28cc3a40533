//! Queues records, notices and commands for the collector.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use parking_lot::{Condvar, Mutex};

use super::notice::Notices;
use super::record::Record;

/// Capacity for records: a third of a second at 50,000 requests per second.
pub const QUEUE_LEN: usize = 16 * 1024;

#[derive(Default)]
pub struct CollectorQueue {
    /// Created when the first record arrives: it takes megabytes.
    records: OnceLock<ArrayQueue<Record>>,
    pub notices: Notices,
    /// Records dropped here or by a sink.
    lost: AtomicU64,
    /// The collector has work.
    pub has_work: AtomicBool,
    pub commands: Mutex<Commands>,
    pub wakeup: Condvar,
}

#[derive(Default)]
pub struct Commands {
    pub stop: bool,
    pub reopen: bool,
}

impl CollectorQueue {
    pub fn record(&self, record: Record) {
        let queue = self.records.get_or_init(|| ArrayQueue::new(QUEUE_LEN));
        if queue.push(record).is_err() {
            self.lose(1);
        }
        self.wake();
    }

    /// Moves the queued records into `records`.
    pub fn take_records(&self, records: &mut Vec<Record>) {
        if let Some(queue) = self.records.get() {
            records.extend(std::iter::from_fn(|| queue.pop()).take(QUEUE_LEN));
        }
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn lose(&self, records: usize) {
        self.lost.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Wakes the collector once per batch: further calls before it takes the batch do nothing.
    pub fn wake(&self) {
        if !self.has_work.swap(true, Ordering::SeqCst) {
            // The lock ensures that the collector is not between its check and its wait.
            let _commands = self.commands.lock();
            self.wakeup.notify_one();
        }
    }
}
