//! What two gateways tell each other about a request, in fields that never reach a client or an endpoint.
//!
//! The sender names the service. The receiver refuses a request that it cannot serve with a 421 that has a
//! reason, before any part of it has reached an endpoint. For a request whose body is too long to be kept, the
//! sender also asks for an interim response that says that an endpoint has been found.

/// The service that is to serve the request. Its value is the name in the receiver's routing table.
pub const SERVICE: &str = "exmesh-service";
/// Asks for the interim response [`GO_AHEAD`].
pub const GO: &str = "exmesh-go";
/// The reason of a refusal.
pub const REFUSED: &str = "exmesh-refused";

/// The status of a refusal (RFC 9110 section 15.5.20).
pub const REFUSAL: u16 = 421;
/// The status of the interim response that an endpoint has been found. It is not registered. An endpoint's own
/// 199 lacks the field [`GO`] and is passed on.
pub const GO_AHEAD: u16 = 199;

pub const GO_AHEAD_HEAD: &[u8] = b"HTTP/1.1 199 Go\r\nExmesh-Go: 1\r\n\r\n";

/// Asks a gateway whether it is there.
pub const PING: &[u8] = b"OPTIONS * HTTP/1.1\r\nHost: exmesh\r\n\r\n";
pub const PONG: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// Why a gateway does not serve a peer's request. Nothing of it has reached an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No endpoint of the service listens here, or it cannot be reached.
    NotHere,
    /// The gateway is stopping.
    Draining,
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NotHere => "not-here",
            Refusal::Draining => "draining",
        }
    }

    pub fn write(self, keep_alive: bool, out: &mut Vec<u8>) {
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        let name = self.name();
        out.extend_from_slice(
            format!(
                "HTTP/1.1 421 Misdirected Request\r\n{REFUSED}: {name}\r\n{close}Content-Length: 0\r\n\r\n"
            )
            .as_bytes(),
        );
    }
}

/// Appends the fields for a peer to a head, which ends with its empty line.
pub fn address(head: &mut Vec<u8>, service: &str, asks_to_go: bool) {
    head.truncate(head.len().saturating_sub(2));
    for part in [SERVICE, ": ", service, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    if asks_to_go {
        for part in [GO, ": 1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
    }
    head.extend_from_slice(b"\r\n");
}
