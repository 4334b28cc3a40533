//! Observes the gateway: counters, histograms, records of single requests, the access log, and notices for
//! operators.

mod clock;
mod collector;
mod collector_queue;
mod counter;
mod counters;
mod escape;
mod format;
mod histogram;
mod log_file;
mod notice;
mod observer;
mod record;
mod sink;
mod stats;
mod timings;
pub(crate) mod wall_clock;

pub use counter::Counter;
pub use counters::{LatencyTotals, ServiceCounters, ServiceTotals, WorkerCounters, WorkerTotals};
pub use format::{Format, side_name};
pub use histogram::{COARSE, RELATIVE_ERROR, Summary};
pub use notice::{CountedNotice, Notice};
pub use record::{Failure, Hop, Record, RecordField, RecordFields, RecordFlags};
pub use sink::{AccessLog, ObserveConfig, ObserveError, Sink};
pub use stats::{RemovedServices, ServiceStats, Stats};
pub use timings::Timings;

pub(crate) use observer::Observer;
pub(crate) use record::Draft;
pub(crate) use timings::Stopwatch;
