//! What the fields of a request say that the gateway must know, and what of it cannot be.

use super::error::RequestError;
use super::info::BodyLength;
use crate::fields::{self, Field};
use crate::ids::Line;
use crate::prefer::Prefer;

/// Gateways of this kind that a request may have come through. More of them are one of them, whose
/// upstream leads back to it (RFC 9110 section 7.6.3).
const MAX_PASSES: usize = 4;

/// Counts how often the request has come through gateways of this kind.
pub fn count_passes(passes: &mut usize, via: &[u8]) -> Result<(), RequestError> {
    *passes += fields::members(via).filter(|m| m.ends_with(b" mesh")).count();
    if *passes > MAX_PASSES { Err(RequestError::Loop) } else { Ok(()) }
}

/// What the fields of a request say, gathered in one pass.
#[derive(Default)]
pub(super) struct Gathered<'b> {
    pub(super) host: Option<&'b [u8]>,
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) connection: fields::Connection,
    pub(super) websocket: bool,
    pub(super) prefer: Prefer,
    pub(super) max_forwards: Option<u64>,
    pub(super) passes: usize,
    pub(super) request_id: Line<'b>,
    pub(super) traceparent: Line<'b>,
}

impl<'b> Gathered<'b> {
    pub(super) fn take(&mut self, kind: Field, value: &'b [u8]) -> Result<(), RequestError> {
        match kind {
            Field::Host if self.host.replace(value).is_some() => {
                return Err(RequestError::Malformed("there is more than one Host field"));
            }
            Field::ContentLength => {
                let length = fields::content_length(value)
                    .ok_or(RequestError::Malformed("Content-Length is not a number"))?;
                if self.content_length.replace(length).is_some() {
                    return Err(RequestError::Malformed(
                        "there is more than one Content-Length field",
                    ));
                }
            }
            Field::TransferEncoding => self.transfer_encoding(value)?,
            Field::Connection => self.connection.take(value).map_err(RequestError::Malformed)?,
            Field::Upgrade => {
                self.websocket |=
                    fields::members(value).any(|m| m.eq_ignore_ascii_case(b"websocket"));
            }
            Field::Accept => self.prefer = Prefer::of(value),
            Field::Via => count_passes(&mut self.passes, value)?,
            Field::MaxForwards => self.max_forwards = fields::content_length(value),
            Field::XRequestId => self.request_id.take(value),
            Field::Traceparent => self.traceparent.take(value),
            _ => {}
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), RequestError> {
        if self.chunked {
            return Err(RequestError::Malformed("a body is chunked more than once"));
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
            return Ok(());
        }
        let last = fields::members(value).last();
        if last.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
            let all_chunked = fields::members(value).all(|m| m.eq_ignore_ascii_case(b"chunked"));
            return Err(if all_chunked {
                RequestError::Malformed("a body is chunked more than once")
            } else {
                RequestError::NotImplemented("no transfer coding but chunked is supported")
            });
        }
        // RFC 9112 section 6.3, rule 4: the length cannot be known.
        Err(RequestError::Malformed("the last transfer coding is not chunked"))
    }

    pub(super) fn body(&self, minor: u8) -> Result<BodyLength, RequestError> {
        match (self.chunked, self.content_length) {
            (true, Some(_)) => {
                Err(RequestError::Malformed("there are both Content-Length and Transfer-Encoding"))
            }
            // RFC 9112 section 6.1: HTTP/1.0 has no transfer codings.
            (true, None) if minor == 0 => {
                Err(RequestError::Malformed("HTTP/1.0 has no Transfer-Encoding"))
            }
            (true, None) => Ok(BodyLength::Chunked),
            (false, None | Some(0)) => Ok(BodyLength::None),
            (false, Some(length)) => Ok(BodyLength::Length(length)),
        }
    }
}
