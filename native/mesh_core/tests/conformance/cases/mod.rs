//! The tables, one file per topic.

pub mod host;
pub mod request_line;

use super::case::Case;

/// What every table needs.
mod prelude {
    pub use crate::case::Level::*;
    pub use crate::case::{Act, Case, case};
    pub use crate::check::Look::*;
    pub use crate::check::*;
    pub use crate::support::client::{get, get_target, post};
    pub use crate::support::endpoint::{Do, ok, reply, send};
}

/// Every topic with its cases.
pub fn all() -> Vec<(&'static str, Vec<Case>)> {
    vec![("request_line", request_line::cases()), ("host", host::cases())]
}
