//! One request and its response: forwarded as two streams at once, so that early responses, slow
//! uploads and events all take their own time. The same for HTTP/1.1 and HTTP/2 clients.
//!
//! The *uplink* sends the head and the body, then watches whether the client is still there. The
//! *downlink* reads responses and passes them on; when it is done, the exchange is. What differs between the
//! protocols of clients is behind two traits, [`RequestBody`] and [`ResponseSink`].

mod client;
mod downlink;
mod forward;
mod read_head;
mod state;
mod uplink;

pub use client::{Part, RequestBody, ResponseSink};
pub use forward::{Exchange, Finished, Outcome, Upgraded};
pub use state::State;
