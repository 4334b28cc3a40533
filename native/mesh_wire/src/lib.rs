//! Parses and writes the protocols of the gateway: request and response heads, chunked bodies, `Host`,
//! forwarding fields, request ids and the PROXY protocol.
//!
//! Every function depends on its input alone: no I/O, no clock, no state shared between connections.
//! `native/fuzz` and `native/bench/benches` use this crate directly.

#![forbid(unsafe_code)]

pub mod chunked;
pub mod client_addr;
pub mod error_format;
pub mod fields;
pub mod forwarded;
pub mod head;
pub mod host;
pub mod ids;
pub mod lines;
pub mod mesh;
pub mod method;
pub mod proxy_protocol;
pub mod request;
pub mod response;
