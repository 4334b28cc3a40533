//! Why a request head is refused.

use crate::host::BadHost;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// It breaks the protocol; the text says how.
    Malformed(&'static str),
    BadHost(BadHost),
    TooManyFields,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    NotImplemented(&'static str),
    /// It has passed through this gateway several times.
    Loop,
}
