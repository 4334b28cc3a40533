//! HTTP/2 to endpoints, by prior knowledge.
//!
//! A stream ([`H2Stream`]) is a byte stream like any other: it gets a request of HTTP/1.1 and gives a response of
//! HTTP/1.1, so that every check, limit and timer of an exchange applies. It serves one request. Each worker has
//! its own connections to an address ([`H2Connections`]); a request waits while all of them are full.

mod connection;
mod connections;
mod driver;
mod failure;
mod heads;
mod request;
mod resets;
mod response;
mod response_bytes;
mod socket;
mod stream;

pub use connection::H2Connection;
pub use connections::H2Connections;
pub use driver::{NotHttp2, begin};
pub use failure::Failure;
pub use socket::UpstreamSocket;
pub use stream::H2Stream;
