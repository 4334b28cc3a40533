//! The bytes of the protocols that the gateway speaks: request and response heads, chunked bodies, `Host`,
//! forwarded fields, ids and the PROXY protocol.
//!
//! Everything here is a function of its input: no I/O, no clock, no state shared between connections. Fuzzing
//! (`native/fuzz`) and the benchmarks of single functions (`native/bench/benches`) use this crate directly.

#![forbid(unsafe_code)]

pub mod chunked;
pub mod client_addr;
pub mod fields;
pub mod forwarded;
pub mod head;
pub mod host;
pub mod ids;
pub mod lines;
pub mod method;
pub mod prefer;
pub mod proxy_protocol;
pub mod request;
pub mod response;
