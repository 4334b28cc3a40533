//! Collects and checks the values of the request fields that the gateway needs.

use super::error::RequestError;
use super::info::BodyLength;
use crate::error_format::ErrorFormat;
use crate::fields::{self, FieldKind};
use crate::ids::SingleValue;

/// How many gateways of this kind a request may pass. Beyond that, an upstream leads back to this gateway
/// (RFC 9110 section 7.6.3).
const MAX_PASSES: usize = 4;

/// Adds the gateways of this kind that `via` names.
pub fn count_passes(passes: &mut usize, via: &[u8]) -> Result<(), RequestError> {
    *passes += fields::members(via).filter(|m| m.ends_with(b" mesh")).count();
    if *passes > MAX_PASSES { Err(RequestError::Loop) } else { Ok(()) }
}

/// The values of the request fields, collected in one pass.
#[derive(Default)]
pub(super) struct RequestFields<'b> {
    pub(super) host: Option<&'b [u8]>,
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) connection: fields::ConnectionOptions,
    pub(super) websocket: bool,
    pub(super) error_format: ErrorFormat,
    pub(super) max_forwards: Option<u64>,
    pub(super) passes: usize,
    pub(super) request_id: SingleValue<'b>,
    pub(super) traceparent: SingleValue<'b>,
}

impl<'b> RequestFields<'b> {
    pub(super) fn add(&mut self, kind: FieldKind, value: &'b [u8]) -> Result<(), RequestError> {
        match kind {
            FieldKind::Host if self.host.replace(value).is_some() => {
                return Err(RequestError::Malformed("there is more than one Host field"));
            }
            FieldKind::ContentLength => {
                let length = fields::content_length(value)
                    .ok_or(RequestError::Malformed("Content-Length is not a number"))?;
                if self.content_length.replace(length).is_some() {
                    return Err(RequestError::Malformed(
                        "there is more than one Content-Length field",
                    ));
                }
            }
            FieldKind::TransferEncoding => self.transfer_encoding(value)?,
            FieldKind::Connection => self.connection.add(value).map_err(RequestError::Malformed)?,
            FieldKind::Upgrade => {
                self.websocket |=
                    fields::members(value).any(|m| m.eq_ignore_ascii_case(b"websocket"));
            }
            FieldKind::Accept => self.error_format = ErrorFormat::from_accept(value),
            FieldKind::Via => count_passes(&mut self.passes, value)?,
            FieldKind::MaxForwards => self.max_forwards = fields::content_length(value),
            FieldKind::XRequestId => self.request_id.add(value),
            FieldKind::Traceparent => self.traceparent.add(value),
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
        // RFC 9112 section 6.3, rule 4: the length of the body is unknown.
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
