//! Gateways of several nodes: requests that one forwards to another.

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod called;
mod dial;
mod forwarding;
mod last_part;
mod nodes;
mod pool;
mod refusal;
mod relay;
mod same;
mod silence;
mod strangers;
mod tunnels;
