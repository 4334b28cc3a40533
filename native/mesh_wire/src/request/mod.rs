//! Request heads: parsed, checked, and written for the endpoint.

mod error;
mod gathered;
mod head;
mod info;
mod parse;
mod write;

pub use error::RequestError;
pub use gathered::count_passes;
pub use head::RequestHead;
pub use info::{BodyLength, RequestInfo};
pub use parse::{check_target, parse};
pub use write::Forwarding;
