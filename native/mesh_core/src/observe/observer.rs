//! Accepts records and notices from workers.
//!
//! Workers never wait. Records go into a bounded queue; when it is full they are dropped and counted.
//! Notices are aggregated at once. One thread, which exists only while something is observed, delivers both
//! in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::collector::{Collector, Job};
use super::collector_queue::CollectorQueue;
use super::notice::Notice;
use super::record::{LOG, NOTICES, QUERY, Record, RecordFlags, SAMPLED};
use super::sink::{ObserveConfig, ObserveError};

#[derive(Default)]
pub struct Observer {
    mode: AtomicU8,
    /// Requests whose random number is at most this are sampled.
    threshold: AtomicU64,
    queue: Arc<CollectorQueue>,
    collector: Mutex<Option<Collector>>,
}

impl Observer {
    /// Replaces the observation settings. Everything queued has been delivered when this returns. If the
    /// log file cannot be opened, nothing changes; if the thread cannot be started, nothing is observed.
    pub fn start(&self, observe: ObserveConfig) -> Result<(), ObserveError> {
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
                let job = Job::new(observe, Arc::clone(&self.queue));
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

    /// Stops observing, and ends the thread.
    pub fn stop(&self) {
        self.mode.store(0, Ordering::Relaxed);
        if let Some(collector) = self.collector.lock().take() {
            collector.stop();
        }
    }

    /// Reopens the log file under its name after a rotation.
    pub fn reopen(&self) {
        self.queue.commands.lock().reopen = true;
        self.queue.wake();
    }

    /// Whether to record this request, and for what. Calls `random` only if requests are sampled.
    #[inline]
    pub fn record_flags(&self, random: impl FnOnce() -> u64) -> Option<RecordFlags> {
        let mode = self.mode.load(Ordering::Relaxed);
        if mode & (LOG | SAMPLED) == 0 {
            return None;
        }
        let sampled = mode & SAMPLED != 0 && random() <= self.threshold.load(Ordering::Relaxed);
        let wanted = mode & (LOG | QUERY) | if sampled { SAMPLED } else { 0 };
        (wanted & (LOG | SAMPLED) != 0).then_some(RecordFlags(wanted))
    }

    pub fn record(&self, record: Record) {
        self.queue.record(record);
    }

    /// Reports an event for operators. Calls `about` only if notices are wanted.
    pub fn notice(&self, notice: Notice, about: impl FnOnce() -> String) {
        if self.mode.load(Ordering::Relaxed) & NOTICES != 0 {
            self.queue.notices.add(notice, about());
            self.queue.wake();
        }
    }

    /// Reports a limit by its configuration key. Cheap, because a flood may reach it.
    pub fn limit(&self, name: &'static str) {
        if self.mode.load(Ordering::Relaxed) & NOTICES != 0 {
            self.queue.notices.limit(name);
            self.queue.wake();
        }
    }

    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::super::collector_queue::QUEUE_LEN;
    use super::super::notice::CountedNotice;
    use super::super::record::RecordFields;
    use super::super::sink::Sink;
    use super::super::timings::Timings;
    use super::*;

    fn record(wanted: RecordFlags) -> Record {
        Record {
            fields: RecordFields::capture([b"GET", b"a.test", b"/", b"", b"", b"", b"::1"]),
            wanted,
            began: Instant::now(),
            timings: Timings::default(),
            status: 200,
            minor: 1,
            received: 0,
            sent: 5,
            error: None,
            hop: None,
            grpc_status: None,
        }
    }

    /// Blocks in its first batch until released, and counts records.
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

        fn notices(&mut self, _: Vec<CountedNotice>) {}
    }

    #[test]
    fn a_blocked_sink_loses_records_and_blocks_no_worker() {
        let observer = Arc::new(Observer::default());
        assert_eq!(observer.record_flags(|| 0), None);
        let (entered, is_in) = mpsc::channel();
        let (let_go, go) = mpsc::channel();
        let taken = Arc::new(AtomicU64::new(0));
        let sink = Slow { entered, go, taken: Arc::clone(&taken) };
        let observe =
            ObserveConfig { sample: 1.0, sink: Some(Box::new(sink)), ..ObserveConfig::default() };
        observer.start(observe).unwrap();
        let wanted = observer.record_flags(|| u64::MAX).expect("all of them");
        observer.record(record(wanted));
        is_in.recv().unwrap();
        let more = QUEUE_LEN as u64 + 1000;
        (0..more).for_each(|_| observer.record(record(wanted)));
        assert_eq!(observer.lost(), 1000);
        drop(let_go);
        observer.stop();
        assert_eq!(taken.load(Ordering::Relaxed), more - 1000 + 1);
        assert_eq!(Arc::strong_count(&observer.queue), 1, "the thread is gone");
        assert_eq!(observer.record_flags(|| 0), None);
    }

    #[test]
    fn the_sample_rate_selects_a_share_of_requests() {
        let observer = Arc::new(Observer::default());
        observer.threshold.store((0.25 * u64::MAX as f64) as u64, Ordering::Relaxed);
        observer.mode.store(SAMPLED, Ordering::Relaxed);
        assert!(observer.record_flags(|| u64::MAX / 5).is_some());
        assert!(observer.record_flags(|| u64::MAX / 3).is_none());
        // The log needs every request.
        observer.mode.store(SAMPLED | LOG, Ordering::Relaxed);
        assert_eq!(observer.record_flags(|| u64::MAX), Some(RecordFlags(LOG)));
    }
}
