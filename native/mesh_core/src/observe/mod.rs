//! What the gateway tells of itself: counters, histograms, records of single requests, the access log, and
//! notices for an operator.

mod clock;
mod collector;
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
mod waiting;
pub(crate) mod wall_clock;

pub use counter::Counter;
pub use counters::{LatencyTotals, ServiceCounters, ServiceTotals, WorkerCounters, WorkerTotals};
pub use format::{Format, side_name};
pub use histogram::{COARSE, RELATIVE_ERROR, Summary};
pub use notice::{Notice, Noticed};
pub use record::{Failure, Field, Fields, Record, Wanted};
pub use sink::{AccessLog, Observe, ObserveError, Sink};
pub use stats::{Gone, ServiceStats, Stats};
pub use timings::Timings;

pub(crate) use observer::Observer;
pub(crate) use record::Draft;
pub(crate) use timings::Stopwatch;
