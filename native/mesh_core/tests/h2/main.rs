//! HTTP/2 by prior knowledge (RFC 9113) over real sockets: a client of the crate h2 where a client
//! behaves, frames by hand where it does not, and endpoints that speak HTTP/1.1 as ever.

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod bodies;
mod connection;
mod refusals;
mod requests;
mod retries;
mod websocket;
