//! What leaves the gateway about single requests and events: records of requests, for an access log
//! and for whoever measures, and notices of what an operator should hear.
//!
//! Workers never wait for any of it. A record goes into a bounded queue; with the queue full it is
//! dropped and counted. Notices are added up where they happen. One small thread, which exists only
//! while somebody wants something, takes both away in batches and hands them to the sinks.

mod clock;
mod collector;
mod escape;
mod file;
mod format;
mod notice;
mod record;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;
use parking_lot::{Condvar, Mutex};

pub use format::Format;
pub use format::side_name;
pub use notice::{Notice, Noticed};
pub use record::{Failure, Field, Fields, Record};

pub(crate) use record::Draft;

use collector::Collector;
use notice::Notices;

/// Records that wait for the collector: a third of a second at 50,000 requests a second.
const QUEUE: usize = 16 * 1024;

/// What is wanted.
#[derive(Default)]
pub struct Observe {
    pub access_log: Option<AccessLog>,
    /// The share of requests, from 0 to 1, whose records the sink gets.
    pub sample: f64,
    /// Gets records, notices, and lines of an access log that is not a file.
    pub sink: Option<Box<dyn Sink>>,
}

pub struct AccessLog {
    pub format: Format,
    /// Log query strings, which may have secrets in them.
    pub query: bool,
    /// A file; without one the lines go to the sink.
    pub path: Option<PathBuf>,
}

/// Why nothing can be observed.
#[derive(Debug)]
pub enum ObserveError {
    /// The file of the access log cannot be opened.
    LogFile(io::Error),
    /// The collector's thread cannot be started.
    Thread(io::Error),
}

impl fmt::Display for ObserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObserveError::LogFile(error) | ObserveError::Thread(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ObserveError {}

/// Takes batches away, on the collector's thread. What it cannot take it drops: `false`.
pub trait Sink: Send {
    fn records(&mut self, records: &[&Record]) -> bool;
    fn lines(&mut self, lines: &[Vec<u8>]) -> bool;
    /// Never refused: they are few.
    fn notices(&mut self, notices: Vec<Noticed>);
}

/// A bit each, of what a record is for.
const LOG: u8 = 1;
const SAMPLED: u8 = 2;
/// Somebody hears notices.
const NOTICES: u8 = 4;
/// Log lines have query strings.
const QUERY: u8 = 8;

/// What the workers see of it.
pub struct Observer {
    mode: AtomicU8,
    /// A random number up to this one is a request to be sampled.
    threshold: AtomicU64,
    /// Records that were dropped, here or by a sink.
    lost: AtomicU64,
    waiting: Arc<Waiting>,
    collector: Mutex<Option<Collector>>,
}

/// What waits for the collector.
struct Waiting {
    /// Made when records are wanted for the first time: it takes megabytes.
    records: OnceLock<ArrayQueue<Record>>,
    notices: Notices,
    /// There is something; set by whoever wakes the collector.
    something: AtomicBool,
    orders: Mutex<Orders>,
    woken: Condvar,
}

#[derive(Default)]
struct Orders {
    stop: bool,
    reopen: bool,
}

impl Default for Observer {
    fn default() -> Observer {
        let waiting = Waiting {
            records: OnceLock::new(),
            notices: Notices::default(),
            something: AtomicBool::new(false),
            orders: Mutex::default(),
            woken: Condvar::new(),
        };
        Observer {
            mode: AtomicU8::new(0),
            threshold: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            waiting: Arc::new(waiting),
            collector: Mutex::new(None),
        }
    }
}

/// What one request is to be recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(u8);

impl Wanted {
    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub fn query(self) -> bool {
        self.has(QUERY)
    }
}

impl Observer {
    /// Begins to observe, in place of what was observed before; what of that is still waiting has
    /// been handed out when this returns. A log file that cannot be opened changes nothing; without
    /// a thread nothing is observed.
    pub fn start(self: &Arc<Self>, observe: Observe) -> Result<(), ObserveError> {
        let mut collector = self.collector.lock();
        let mut mode = 0;
        let sampled = observe.sample > 0.0 && observe.sink.is_some();
        if let Some(log) = &observe.access_log {
            mode |= LOG | if log.query { QUERY } else { 0 };
        }
        mode |= if sampled { SAMPLED } else { 0 };
        mode |= if observe.sink.is_some() { NOTICES } else { 0 };
        let sample = observe.sample.clamp(0.0, 1.0);
        let next = match mode {
            0 => None,
            _ => {
                let job = collector::Job::new(observe, Arc::clone(self));
                Some(job.map_err(ObserveError::LogFile)?)
            }
        };
        self.mode.store(0, Ordering::Relaxed);
        if let Some(before) = collector.take() {
            before.stop();
        }
        self.threshold.store((sample * u64::MAX as f64) as u64, Ordering::Relaxed);
        *collector = next.map(collector::Job::spawn).transpose().map_err(ObserveError::Thread)?;
        self.mode.store(mode, Ordering::Relaxed);
        Ok(())
    }

    /// Ends it, and the thread with it.
    pub fn stop(&self) {
        self.mode.store(0, Ordering::Relaxed);
        if let Some(collector) = self.collector.lock().take() {
            collector.stop();
        }
    }

    /// Opens the log file anew, under its name, for it has been moved away.
    pub fn reopen(&self) {
        self.waiting.orders.lock().reopen = true;
        self.wake();
    }

    /// Whether this request is to be recorded, and what for. `random` is asked only when that
    /// matters.
    #[inline]
    pub fn wants(&self, random: impl FnOnce() -> u64) -> Option<Wanted> {
        let mode = self.mode.load(Ordering::Relaxed);
        if mode & (LOG | SAMPLED) == 0 {
            return None;
        }
        let sampled = mode & SAMPLED != 0 && random() <= self.threshold.load(Ordering::Relaxed);
        let wanted = mode & (LOG | QUERY) | if sampled { SAMPLED } else { 0 };
        (wanted & (LOG | SAMPLED) != 0).then_some(Wanted(wanted))
    }

    pub fn record(&self, record: Record) {
        let queue = self.waiting.records.get_or_init(|| ArrayQueue::new(QUEUE));
        if queue.push(record).is_err() {
            self.lose(1);
        }
        self.wake();
    }

    /// An event that an operator should hear of, though not each time. `about` is asked only if
    /// anybody listens.
    pub fn notice(&self, notice: Notice, about: impl FnOnce() -> String) {
        if self.mode.load(Ordering::Relaxed) & NOTICES != 0 {
            self.waiting.notices.add(notice, about());
            self.wake();
        }
    }

    /// A limit has been reached, by its name in the configuration. Cheap: it may be a flood.
    pub fn limit(&self, name: &'static str) {
        if self.mode.load(Ordering::Relaxed) & NOTICES != 0 {
            self.waiting.notices.limit(name);
            self.wake();
        }
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn lose(&self, records: usize) {
        self.lost.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Once for each batch: whoever comes while the collector is about to look does nothing.
    fn wake(&self) {
        if !self.waiting.something.swap(true, Ordering::SeqCst) {
            // With the lock, so that the collector is not between its look and its wait.
            let _orders = self.waiting.orders.lock();
            self.waiting.woken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;
    use crate::exchange::Took;

    fn record(wanted: Wanted) -> Record {
        Record {
            fields: Fields::capture([b"GET", b"a.test", b"/", b"", b"", b"", b"::1"]),
            wanted,
            began: Instant::now(),
            took: Took::default(),
            status: 200,
            minor: 1,
            received: 0,
            sent: 5,
            error: None,
        }
    }

    /// Waits in its first batch until it is let go, and counts.
    struct Slow {
        entered: mpsc::Sender<()>,
        go: mpsc::Receiver<()>,
        taken: Arc<AtomicU64>,
    }

    impl Sink for Slow {
        fn records(&mut self, records: &[&Record]) -> bool {
            self.taken.fetch_add(records.len() as u64, Ordering::Relaxed);
            let _ = self.entered.send(());
            let _ = self.go.recv();
            true
        }

        fn lines(&mut self, _: &[Vec<u8>]) -> bool {
            false
        }

        fn notices(&mut self, _: Vec<Noticed>) {}
    }

    #[test]
    fn a_sink_that_hangs_loses_records_and_holds_nobody_up() {
        let observer = Arc::new(Observer::default());
        assert_eq!(observer.wants(|| 0), None);
        let (entered, is_in) = mpsc::channel();
        let (let_go, go) = mpsc::channel();
        let taken = Arc::new(AtomicU64::new(0));
        let sink = Slow { entered, go, taken: Arc::clone(&taken) };
        let observe = Observe { sample: 1.0, sink: Some(Box::new(sink)), ..Observe::default() };
        observer.start(observe).unwrap();
        let wanted = observer.wants(|| u64::MAX).expect("all of them");
        observer.record(record(wanted));
        is_in.recv().unwrap();
        let more = QUEUE as u64 + 1000;
        (0..more).for_each(|_| observer.record(record(wanted)));
        assert_eq!(observer.lost(), 1000);
        drop(let_go);
        observer.stop();
        assert_eq!(taken.load(Ordering::Relaxed), more - 1000 + 1);
        assert_eq!(Arc::strong_count(&observer), 1, "the thread is gone");
        assert_eq!(observer.wants(|| 0), None);
    }

    #[test]
    fn a_sample_is_a_share() {
        let observer = Arc::new(Observer::default());
        observer.threshold.store((0.25 * u64::MAX as f64) as u64, Ordering::Relaxed);
        observer.mode.store(SAMPLED, Ordering::Relaxed);
        assert!(observer.wants(|| u64::MAX / 5).is_some());
        assert!(observer.wants(|| u64::MAX / 3).is_none());
        // The log wants them all.
        observer.mode.store(SAMPLED | LOG, Ordering::Relaxed);
        assert_eq!(observer.wants(|| u64::MAX), Some(Wanted(LOG)));
    }
}
