//! Why a stream of an endpoint failed.

use ::h2::{Error, Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The endpoint has not begun with the request (RFC 9113 section 8.7): it may be sent again.
    Unprocessed,
    /// The endpoint has reset the stream.
    Reset(Reason),
    /// The connection has ended.
    Closed,
    /// The endpoint violates HTTP/2.
    Invalid,
    /// The request has no form in HTTP/2.
    Request(&'static str),
}

impl Failure {
    pub fn of(error: &Error) -> Failure {
        match error.reason() {
            // Only streams above the last one of a GOAWAY get it as their error.
            Some(_) if error.is_go_away() && error.is_remote() => Failure::Unprocessed,
            Some(reason) if error.is_reset() && error.is_remote() => Failure::Reset(reason),
            Some(_) if error.is_library() => Failure::Invalid,
            _ => Failure::Closed,
        }
    }
}
