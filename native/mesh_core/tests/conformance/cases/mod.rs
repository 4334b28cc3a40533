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

use crate::case::Case;
