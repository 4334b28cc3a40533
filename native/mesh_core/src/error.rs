//! Defines the errors of a request, and maps them to a side, a status and a message for the client.
//!
//! Messages must not reveal anything internal.

use std::borrow::Cow;
use std::io;

use mesh_wire::host::BadHost;
use mesh_wire::mesh::Refusal;
use mesh_wire::request::RequestError;
use mesh_wire::response::BadResponse;

/// RFC 9113 section 7: the stream was refused before anything of it was processed.
pub const REFUSED_STREAM: u32 = 7;

/// The side that caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
    Gateway,
}

#[derive(Debug)]
pub enum Error {
    /// The request violates the protocol; the text says how.
    BadRequest(&'static str),
    BadHost(BadHost),
    /// The request line alone is longer than a head may be.
    TargetTooLong,
    HeadTooLong,
    TooManyFields,
    BodyTooLong,
    HeadTimeout,
    BodyTimeout,
    /// The client stopped reading the response.
    ReaderTimeout,
    NotImplemented(&'static str),
    /// An `https` target arrived without TLS, and not from a trusted proxy.
    Misdirected,
    /// The request has passed through this gateway too often.
    Loop,
    Version,
    UnknownService(String),
    NotListening,
    /// The endpoint did not return while the request was held.
    HeldTooLong,
    Overloaded,
    TooManyConnections,
    /// The gateway ran out of descriptors or ports, so it could not try to connect.
    OutOfSockets(io::Error),
    Connect(io::Error),
    /// This machine has no route to the endpoint's address, or no permission. The text is for the log.
    Unreachable(String),
    ConnectTimeout,
    /// The endpoint did not respond in time.
    ResponseTimeout,
    /// The endpoint closed or reset the connection before its response was complete.
    UpstreamClosed,
    BadResponse(&'static str),
    /// The endpoint has reset the request's stream, with this code (RFC 9113 section 7).
    UpstreamReset(u32),
    /// The endpoint does not speak HTTP/2, as its address says. The text is for the log.
    NotHttp2(String),
    /// A peer's request is not served here. Nothing of it has reached an endpoint.
    Refused(Refusal),
    /// A peer has refused the request, and no other upstream could be tried.
    RefusedByPeer,
    /// The client closed or reset the connection, so there is no one to answer.
    ClientGone,
}

/// The response that the gateway sends for an error.
pub struct Answer {
    pub status: u16,
    pub reason: &'static str,
    pub message: Cow<'static, str>,
    /// `Retry-After`, in seconds (RFC 9110 section 10.2.3).
    pub retry_after: Option<u32>,
}

impl Answer {
    /// The status of gRPC for the answer, by gRPC's own table of HTTP statuses (http-grpc-status-mapping.md).
    pub fn grpc_status(&self) -> u16 {
        match self.status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => 2,
        }
    }
}

impl Error {
    pub fn side(&self) -> Side {
        match self {
            Error::Connect(_)
            | Error::Unreachable(_)
            | Error::ConnectTimeout
            | Error::NotListening
            | Error::HeldTooLong
            | Error::ResponseTimeout
            | Error::UpstreamClosed
            | Error::BadResponse(_)
            | Error::UpstreamReset(_)
            | Error::NotHttp2(_)
            | Error::RefusedByPeer => Side::Upstream,
            Error::Loop
            | Error::Refused(_)
            | Error::Overloaded
            | Error::TooManyConnections
            | Error::OutOfSockets(_) => Side::Gateway,
            _ => Side::Downstream,
        }
    }

    /// The configuration key of the timeout that the client exceeded.
    pub fn timeout_key(&self) -> Option<&'static str> {
        match self {
            Error::HeadTimeout => Some("timeouts.head"),
            Error::BodyTimeout | Error::ReaderTimeout => Some("timeouts.idle"),
            _ => None,
        }
    }

    /// How the peer violated the protocol. Clients are told about their own violations only.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Error::BadRequest(why) | Error::BadResponse(why) => Some(why),
            _ => None,
        }
    }

    /// Nothing of the request has been sent, and another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Connect(_)
                | Error::ConnectTimeout
                | Error::NotListening
                | Error::NotHttp2(_)
                | Error::RefusedByPeer
        )
    }

    /// `None` if the client is gone.
    pub fn answer(&self) -> Option<Answer> {
        let (status, reason, message): (u16, &'static str, Cow<'static, str>) = match self {
            Error::BadRequest(why) => (400, "Bad Request", (*why).into()),
            Error::BadHost(why) => (400, "Bad Request", why.to_string().into()),
            Error::TargetTooLong => (414, "URI Too Long", "the request target is too long".into()),
            Error::HeadTooLong => {
                (431, "Request Header Fields Too Large", "the request head is too long".into())
            }
            Error::TooManyFields => (
                431,
                "Request Header Fields Too Large",
                "the request has too many header fields".into(),
            ),
            Error::BodyTooLong => (413, "Content Too Large", "the request body is too long".into()),
            Error::HeadTimeout => {
                (408, "Request Timeout", "the request head did not arrive in time".into())
            }
            Error::BodyTimeout => {
                (408, "Request Timeout", "the request body stopped arriving".into())
            }
            Error::NotImplemented(what) => (501, "Not Implemented", (*what).into()),
            Error::Misdirected => (
                421,
                "Misdirected Request",
                "an https target came without TLS, from a peer that is not a trusted proxy".into(),
            ),
            Error::Loop => (
                502,
                "Bad Gateway",
                "the request goes round in circles: an upstream leads back to the gateway".into(),
            ),
            Error::Version => {
                (505, "HTTP Version Not Supported", "this port speaks HTTP/1.1 and HTTP/1.0".into())
            }
            Error::UnknownService(host) => {
                (404, "Not Found", format!("unknown service: {host}").into())
            }
            Error::NotListening => {
                (503, "Service Unavailable", "the service is not listening".into())
            }
            Error::HeldTooLong => {
                (503, "Service Unavailable", "the service did not come back in time".into())
            }
            Error::Overloaded => {
                (503, "Service Unavailable", "the gateway has no room for more".into())
            }
            Error::TooManyConnections => (
                503,
                "Service Unavailable",
                "there are too many connections from this address".into(),
            ),
            Error::OutOfSockets(_) => {
                (503, "Service Unavailable", "the gateway can open no more connections".into())
            }
            Error::Connect(_) => (502, "Bad Gateway", "the service refused the connection".into()),
            Error::Unreachable(_) => {
                (502, "Bad Gateway", "the gateway has no way to reach the service".into())
            }
            Error::ConnectTimeout => {
                (504, "Gateway Timeout", "the service did not accept the connection in time".into())
            }
            Error::ResponseTimeout => {
                (504, "Gateway Timeout", "the service did not answer in time".into())
            }
            Error::UpstreamClosed => (
                502,
                "Bad Gateway",
                "the service closed the connection without a whole response".into(),
            ),
            Error::BadResponse(_) => {
                (502, "Bad Gateway", "the service gave a response that is not valid HTTP".into())
            }
            Error::UpstreamReset(REFUSED_STREAM) => {
                (503, "Service Unavailable", "the service refused the request".into())
            }
            Error::UpstreamReset(_) => (
                502,
                "Bad Gateway",
                "the service ended the request without a whole response".into(),
            ),
            Error::NotHttp2(_) => (502, "Bad Gateway", "the service does not speak HTTP/2".into()),
            Error::RefusedByPeer => {
                (503, "Service Unavailable", "no other node serves the service".into())
            }
            // A peer gets `Refusal::write` instead.
            Error::Refused(_) | Error::ReaderTimeout | Error::ClientGone => return None,
        };
        let retry_after = (status == 503).then_some(1);
        Some(Answer { status, reason, message, retry_after })
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Error {
        match error {
            RequestError::Malformed(why) => Error::BadRequest(why),
            RequestError::BadHost(why) => Error::BadHost(why),
            RequestError::TooManyFields => Error::TooManyFields,
            RequestError::Version => Error::Version,
            RequestError::NotImplemented(what) => Error::NotImplemented(what),
            RequestError::Loop => Error::Loop,
        }
    }
}

impl From<BadResponse> for Error {
    fn from(BadResponse(why): BadResponse) -> Error {
        Error::BadResponse(why)
    }
}
