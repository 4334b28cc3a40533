//! What every table of cases needs.

pub use crate::case::Level::*;
pub use crate::case::{Act, Case, Check, case};
pub use crate::check::*;
pub use crate::support::client::{get, get_target, post};
pub use crate::support::endpoint::{Do, ok, reply, send};
