//! Parses request heads, checks them, and writes them for the endpoint.

mod error;
mod head;
mod info;
mod parse;
mod request_fields;
mod write;

pub use error::RequestError;
pub use head::RequestHead;
pub use info::{BodyLength, RequestInfo};
pub use parse::{check_target, parse};
pub use request_fields::count_passes;
pub use write::Forwarding;
