//! The reasons to reject a request head.

use crate::host::BadHost;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The request violates the protocol; the text says how.
    Malformed(&'static str),
    BadHost(BadHost),
    TooManyFields,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    NotImplemented(&'static str),
    /// The request has passed through gateways of this kind too often.
    Loop,
}
