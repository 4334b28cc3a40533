//! Serves HTTP/2 clients without TLS, by prior knowledge (RFC 9113 section 3.3), on the same port as HTTP/1.1.
//!
//! The h2 crate handles frames. Each stream is checked and forwarded like an HTTP/1.1 request.

mod body;
mod connection;
mod metadata;
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
