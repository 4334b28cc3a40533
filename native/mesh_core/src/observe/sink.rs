//! What is to be observed, and who takes it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::format::Format;
use super::notice::Noticed;
use super::record::Record;

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
