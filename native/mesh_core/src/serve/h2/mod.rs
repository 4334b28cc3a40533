//! HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3), on the port of HTTP/1.1: a client
//! that begins with the connection preface gets it. The frames are the crate h2's; each stream is
//! checked like a request of HTTP/1.1, forwarded as one, and streamed both ways.

mod body;
mod connection;
mod names;
mod preface;
mod queue;
mod request;
mod response;
mod sender;
mod session;
mod settings;
mod sink;
mod socket;
mod stream;
mod tunnel;
mod websocket;

pub use connection::serve;
pub use preface::Preface;
