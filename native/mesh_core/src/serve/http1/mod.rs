//! Serves clients of HTTP/1.1 and HTTP/1.0.

mod body;
mod connection;
mod ending;
mod exchange;
mod refusal;
mod request;
mod serve;
mod sink;

pub use refusal::turn_away;
pub use serve::{serve, serve_peer};
