//! What the gateway tells of itself: counters, durations, ids. Over real sockets.

#[path = "../support/mod.rs"]
mod support;

mod counters;
mod ids;
mod records;
