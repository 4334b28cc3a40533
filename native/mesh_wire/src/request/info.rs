//! What the gateway must know about a request.

use crate::method::Method;
use crate::prefer::Prefer;

/// How the body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    None,
    Length(u64),
    Chunked,
}

/// What the gateway must know about a request after its head has been copied.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo {
    pub method: Method,
    /// HTTP/1.`minor`.
    pub minor: u8,
    pub body: BodyLength,
    pub keep_alive: bool,
    /// Asks for a WebSocket, by all the rules for asking.
    pub websocket: bool,
    pub prefer: Prefer,
    /// `Connection` names fields that are for the gateway only, and maybe trailers.
    pub names_fields: bool,
}
