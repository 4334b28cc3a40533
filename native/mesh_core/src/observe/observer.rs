//! The observer: what workers tell records and notices to.
//!
//! Workers never wait for it. A record goes into a bounded queue; a record that finds the queue full is
//! dropped and counted. Notices are added up where they happen. One small thread, which exists only
//! while something is wanted, takes both away in batches and hands them to the sinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::collector::{Collector, Job};
use super::notice::Notice;
use super::record::{LOG, NOTICES, QUERY, Record, SAMPLED, Wanted};
use super::sink::{Observe, ObserveError};
use super::waiting::Waiting;

#[derive(Default)]
pub struct Observer {
    mode: AtomicU8,
    /// A random number up to this one is a request to be sampled.
    threshold: AtomicU64,
    waiting: Arc<Waiting>,
    collector: Mutex<Option<Collector>>,
}

impl Observer {
    /// Begins to observe, in place of what was observed before; what of that is still waiting has
    /// been handed out when this returns. A log file that cannot be opened changes nothing; without
    /// a thread nothing is observed.
    pub fn start(&self, observe: Observe) -> Result<(), ObserveError> {
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
                let job = Job::new(observe, Arc::clone(&self.waiting));
                Some(job.map_err(ObserveError::LogFile)?)
            }
        };
        self.mode.store(0, Ordering::Relaxed);
        if let Some(before) = collector.take() {
            before.stop();
        }
        self.threshold.store((sample * u64::MAX as f64) as u64, Ordering::Relaxed);
        *collector = next.map(Job::spawn).transpose().map_err(ObserveError::Thread)?;
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
        self.waiting.wake();
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
        self.waiting.record(record);
    }

    /// An event that an operator should hear of, though not each time. `about` is asked only if
    /// anybody listens.
    pub fn notice(&self, notice: Notice, about: impl FnOnce() -> String) {
        if self.mode.load(Ordering::Relaxed) & NOTICES != 0 {
            self.waiting.notices.add(notice, about());
            self.waiting.wake();
        }
    }

    /// A limit has been reached, by its name in the configuration. Cheap: it may be a flood.
    pub fn limit(&self, name: &'static str) {
        if self.mode.load(Ordering::Relaxed) & NOTICES != 0 {
            self.waiting.notices.limit(name);
            self.waiting.wake();
        }
    }

    pub fn lost(&self) -> u64 {
        self.waiting.lost()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::super::notice::Noticed;
    use super::super::record::Fields;
    use super::super::sink::Sink;
    use super::super::timings::Timings;
    use super::super::waiting::QUEUE;
    use super::*;

    fn record(wanted: Wanted) -> Record {
        Record {
            fields: Fields::capture([b"GET", b"a.test", b"/", b"", b"", b"", b"::1"]),
            wanted,
            began: Instant::now(),
            timings: Timings::default(),
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
        assert_eq!(Arc::strong_count(&observer.waiting), 1, "the thread is gone");
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
