//! Gateways of several nodes: requests that one forwards to another.

#[path = "../support/mod.rs"]
mod support;

mod forwarding;
mod nodes;
