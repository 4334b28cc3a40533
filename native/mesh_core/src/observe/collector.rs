//! The thread that delivers records and notices to sinks.
//!
//! It is woken once per batch and then waits for the batch to grow, because a wake-up costs a worker more
//! than a record.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::collector_queue::{CollectorQueue, Commands};
use super::format::Formatter;
use super::log_file::LogFile;
use super::notice::{CountedNotice, Notice};
use super::record::Record;
use super::sink::{ObserveConfig, Sink};

const BATCH_DELAY: Duration = Duration::from_millis(20);
/// Minimum time between two deliveries of notices.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

pub struct Collector {
    thread: JoinHandle<()>,
    queue: Arc<CollectorQueue>,
}

impl Collector {
    /// Delivers what is queued, and returns when the thread has ended.
    pub fn stop(self) {
        self.queue.commands.lock().stop = true;
        self.queue.wakeup.notify_one();
        // An error means that the thread panicked, which leaves nothing to do.
        let _ = self.thread.join();
        *self.queue.commands.lock() = Commands::default();
    }
}

/// The state of the thread.
pub struct Job {
    queue: Arc<CollectorQueue>,
    sink: Option<Box<dyn Sink>>,
    log: Option<Log>,
    notices_sent_at: Option<Instant>,
    lost_before: u64,
}

struct Log {
    formatter: Formatter,
    file: Option<LogFile>,
}

impl Job {
    pub fn new(observe: ObserveConfig, queue: Arc<CollectorQueue>) -> io::Result<Job> {
        let log = match observe.access_log {
            None => None,
            Some(log) => Some(Log {
                formatter: Formatter::new(log.format),
                file: log.path.map(LogFile::open).transpose()?,
            }),
        };
        let lost_before = queue.lost();
        Ok(Job { queue, sink: observe.sink, log, notices_sent_at: None, lost_before })
    }

    pub fn spawn(self) -> io::Result<Collector> {
        let queue = Arc::clone(&self.queue);
        let thread = std::thread::Builder::new().name("mesh_observe".into());
        Ok(Collector { thread: thread.spawn(move || self.run())?, queue })
    }

    fn run(mut self) {
        let mut records = Vec::new();
        loop {
            let stopping = self.wait();
            // Before taking the records: later ones wake the thread again.
            self.queue.has_work.store(false, Ordering::SeqCst);
            self.queue.take_records(&mut records);
            self.deliver(&records);
            records.clear();
            records.shrink_to(1024);
            self.deliver_notices(stopping);
            if stopping {
                return;
            }
        }
    }

    /// Waits for work. Returns whether to stop.
    fn wait(&mut self) -> bool {
        let queue = &self.queue;
        let mut commands = queue.commands.lock();
        while !commands.stop && !queue.has_work.load(Ordering::SeqCst) {
            let left = !queue.notices.is_empty() || self.queue.lost() != self.lost_before;
            match self.notices_sent_at.filter(|_| left) {
                None => queue.wakeup.wait(&mut commands),
                Some(at) => {
                    if queue.wakeup.wait_until(&mut commands, at + NOTICE_INTERVAL).timed_out() {
                        break;
                    }
                }
            }
        }
        let until = Instant::now() + BATCH_DELAY;
        while !commands.stop && !commands.reopen {
            if queue.wakeup.wait_until(&mut commands, until).timed_out() {
                break;
            }
        }
        let reopen = std::mem::take(&mut commands.reopen);
        let stop = commands.stop;
        drop(commands);
        if reopen
            && let Some(Log { file: Some(file), .. }) = &mut self.log
            && let Err(error) = file.reopen()
        {
            self.queue.notices.add(Notice::LogFile, error.to_string());
        }
        stop
    }

    fn deliver(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        self.log(records);
        let Some(sink) = &mut self.sink else { return };
        let sampled: Vec<&Record> = records.iter().filter(|r| r.is_sampled()).collect();
        if !sampled.is_empty() && !sink.records(&sampled) {
            self.queue.lose(sampled.len());
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
                    self.queue.notices.add(Notice::LogFile, error.to_string());
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
            self.queue.lose(logged().count());
        }
    }

    fn deliver_notices(&mut self, at_once: bool) {
        let lost = self.queue.lost();
        let due = at_once || self.notices_sent_at.is_none_or(|at| at.elapsed() >= NOTICE_INTERVAL);
        let Some(sink) = &mut self.sink else { return };
        if !due || (self.queue.notices.is_empty() && lost == self.lost_before) {
            return;
        }
        let mut notices = self.queue.notices.take();
        if lost > self.lost_before {
            let count = lost - self.lost_before;
            notices.push(CountedNotice {
                notice: Notice::RecordsLost,
                about: String::new(),
                count,
            });
        }
        self.lost_before = lost;
        self.notices_sent_at = Some(Instant::now());
        sink.notices(notices);
    }
}
