//! Requests that processes of this VM answer without a socket: the same answers as from an endpoint, bounded
//! queues in both directions, and no request that hangs, whatever a process or a client does.

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod faults;
mod requests;
mod socket;
