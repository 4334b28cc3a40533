//! Forwards one request and its response as two concurrent streams, so that early responses, slow uploads
//! and events each take their time. The same for HTTP/1.1 and HTTP/2 clients.
//!
//! The *uplink* sends the head and the body, then watches for the client to leave. The *downlink* reads
//! responses and passes them on; the exchange ends with it. Two traits, [`RequestBody`] and
//! [`ResponseSink`], hide the client's protocol.

mod client;
mod downlink;
mod forward;
mod kept;
mod read_head;
mod state;
mod uplink;

pub use client::{Part, RequestBody, ResponseSink};
pub use forward::{Exchange, Finished, Outcome, Upgraded};
pub use state::ExchangeState;
