//! Describes a request after its head has been copied.

use crate::error_format::ErrorFormat;
use crate::method::Method;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Length(u64),
    Chunked,
}

/// What the gateway needs to know about a request after its head has been copied.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo {
    pub method: Method,
    /// HTTP/1.`minor`.
    pub minor: u8,
    pub body: BodyLength,
    pub keep_alive: bool,
    /// The request is a valid WebSocket handshake.
    pub websocket: bool,
    pub error_format: ErrorFormat,
    /// `Connection` names fields, which may be trailers: none is passed on.
    pub names_fields: bool,
}
