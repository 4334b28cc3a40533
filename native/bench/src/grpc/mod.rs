//! gRPC over HTTP/2 without TLS: the endpoint and the load of its scenarios, both on the crate `h2`.
//! A path says what a call is, so that the endpoint decodes no message:
//!
//! - `/bench.Bench/COUNTxSIZE`: COUNT messages of SIZE bytes, when the request has ended
//! - `/bench.Bench/echo`: what comes, as it comes

pub mod endpoint;
pub mod load;
mod messages;

/// Windows that no scenario waits for: what the proxies do is measured, not what they wait for.
const WINDOW: u32 = 16 << 20;
const SERVICE: &str = "/bench.Bench/";
const ECHO: &str = "echo";
