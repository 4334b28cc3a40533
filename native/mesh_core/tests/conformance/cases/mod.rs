//! The tables, one file per topic.

macro_rules! topics {
    ($($topic:ident),* $(,)?) => {
        $(pub mod $topic;)*

        /// Every topic with its cases.
        pub fn all() -> Vec<(&'static str, Vec<Case>)> {
            vec![$((stringify!($topic), $topic::cases())),*]
        }
    };
}

topics!(
    request_line,
    host,
    framing,
    smuggling,
    hop_by_hop,
    forwarded,
    upgrade,
    responses,
    interim,
    persistence,
    streaming
);

use super::case::Case;

/// What every table needs.
pub mod prelude {
    pub use crate::case::Level::*;
    pub use crate::case::{Act, Case, Check, case};
    pub use crate::check::Look::*;
    pub use crate::check::*;
    pub use crate::support::client::{get, get_target, post};
    pub use crate::support::endpoint::{Do, ok, reply, send};
}
