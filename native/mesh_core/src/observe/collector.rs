//! The thread that takes records and notices away. Woken once for a batch; then it waits a moment
//! for the batch to grow, since a wake-up costs a worker more than a record does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::format::Formatter;
use super::log_file::LogFile;
use super::notice::{Notice, Noticed};
use super::record::Record;
use super::sink::{Observe, Sink};
use super::waiting::{Orders, Waiting};

const GATHER: Duration = Duration::from_millis(20);
/// Notices are handed out no more often than this.
const NOTICE_EVERY: Duration = Duration::from_secs(1);

pub struct Collector {
    thread: JoinHandle<()>,
    waiting: Arc<Waiting>,
}

impl Collector {
    /// Hands out what is waiting, and returns when the thread is gone.
    pub fn stop(self) {
        self.waiting.orders.lock().stop = true;
        self.waiting.woken.notify_one();
        // It panicked, if anything: nothing is left to be done about that.
        let _ = self.thread.join();
        *self.waiting.orders.lock() = Orders::default();
    }
}

/// What the thread does.
pub struct Job {
    waiting: Arc<Waiting>,
    sink: Option<Box<dyn Sink>>,
    log: Option<Log>,
    noticed_at: Option<Instant>,
    lost_before: u64,
}

struct Log {
    formatter: Formatter,
    file: Option<LogFile>,
}

impl Job {
    pub fn new(observe: Observe, waiting: Arc<Waiting>) -> io::Result<Job> {
        let log = match observe.access_log {
            None => None,
            Some(log) => Some(Log {
                formatter: Formatter::new(log.format),
                file: log.path.map(LogFile::open).transpose()?,
            }),
        };
        let lost_before = waiting.lost();
        Ok(Job { waiting, sink: observe.sink, log, noticed_at: None, lost_before })
    }

    pub fn spawn(self) -> io::Result<Collector> {
        let waiting = Arc::clone(&self.waiting);
        let thread = std::thread::Builder::new().name("mesh_observe".into());
        Ok(Collector { thread: thread.spawn(move || self.run())?, waiting })
    }

    fn run(mut self) {
        let mut records = Vec::new();
        loop {
            let stopping = self.wait();
            // Before the look: what comes after it wakes anew.
            self.waiting.something.store(false, Ordering::SeqCst);
            self.waiting.take_records(&mut records);
            self.hand_out(&records);
            records.clear();
            records.shrink_to(1024);
            self.hand_out_notices(stopping);
            if stopping {
                return;
            }
        }
    }

    /// Returns when there is something to do; whether that is to stop.
    fn wait(&mut self) -> bool {
        let waiting = &self.waiting;
        let mut orders = waiting.orders.lock();
        while !orders.stop && !waiting.something.load(Ordering::SeqCst) {
            let left = !waiting.notices.is_empty() || self.waiting.lost() != self.lost_before;
            match self.noticed_at.filter(|_| left) {
                None => waiting.woken.wait(&mut orders),
                Some(at) => {
                    if waiting.woken.wait_until(&mut orders, at + NOTICE_EVERY).timed_out() {
                        break;
                    }
                }
            }
        }
        let until = Instant::now() + GATHER;
        while !orders.stop && !orders.reopen {
            if waiting.woken.wait_until(&mut orders, until).timed_out() {
                break;
            }
        }
        let reopen = std::mem::take(&mut orders.reopen);
        let stop = orders.stop;
        drop(orders);
        if reopen
            && let Some(Log { file: Some(file), .. }) = &mut self.log
            && let Err(error) = file.reopen()
        {
            self.waiting.notices.add(Notice::LogFile, error.to_string());
        }
        stop
    }

    fn hand_out(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        self.log(records);
        let Some(sink) = &mut self.sink else { return };
        let sampled: Vec<&Record> = records.iter().filter(|r| r.is_sampled()).collect();
        if !sampled.is_empty() && !sink.records(&sampled) {
            self.waiting.lose(sampled.len());
        }
    }

    fn log(&mut self, records: &[Record]) {
        let Some(log) = &mut self.log else { return };
        let logged = || records.iter().filter(|r| r.is_logged());
        log.formatter.begin();
        let done = match &mut log.file {
            Some(file) => {
                logged().for_each(|record| log.formatter.write(record, &mut file.buffer));
                let written = file.write();
                if let Err(error) = &written {
                    self.waiting.notices.add(Notice::LogFile, error.to_string());
                }
                written.is_ok()
            }
            None => {
                let lines: Vec<Vec<u8>> = logged().map(|r| log.formatter.line(r)).collect();
                let sink = self.sink.as_mut().filter(|_| !lines.is_empty());
                sink.is_none_or(|sink| sink.lines(&lines))
            }
        };
        if !done {
            self.waiting.lose(logged().count());
        }
    }

    fn hand_out_notices(&mut self, at_once: bool) {
        let lost = self.waiting.lost();
        let due = at_once || self.noticed_at.is_none_or(|at| at.elapsed() >= NOTICE_EVERY);
        let Some(sink) = &mut self.sink else { return };
        if !due || (self.waiting.notices.is_empty() && lost == self.lost_before) {
            return;
        }
        let mut notices = self.waiting.notices.take();
        if lost > self.lost_before {
            let count = lost - self.lost_before;
            notices.push(Noticed { notice: Notice::RecordsLost, about: String::new(), count });
        }
        self.lost_before = lost;
        self.noticed_at = Some(Instant::now());
        sink.notices(notices);
    }
}
