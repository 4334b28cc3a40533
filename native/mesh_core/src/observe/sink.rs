//! Defines the observation settings, and the sink for records.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::format::Format;
use super::notice::CountedNotice;
use super::record::Record;

#[derive(Default)]
pub struct ObserveConfig {
    pub access_log: Option<AccessLog>,
    /// The share of requests, from 0 to 1, whose records go to the sink.
    pub sample: f64,
    /// Receives records, notices, and the lines of an access log without a file.
    pub sink: Option<Box<dyn Sink>>,
}

pub struct AccessLog {
    pub format: Format,
    /// Log query strings, which may contain secrets.
    pub query: bool,
    /// The log file. `None` sends lines to the sink.
    pub path: Option<PathBuf>,
}

/// Why observation could not start.
#[derive(Debug)]
pub enum ObserveError {
    LogFile(io::Error),
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

/// Receives batches on the collector's thread. Returns `false` if it dropped a batch.
pub trait Sink: Send {
    fn records(&mut self, records: &[&Record]) -> bool;
    fn lines(&mut self, lines: &[Vec<u8>]) -> bool;
    /// Notices are few and never dropped.
    fn notices(&mut self, notices: Vec<CountedNotice>);
}
