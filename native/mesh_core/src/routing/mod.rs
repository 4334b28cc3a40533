//! Where requests go: an immutable table from host to service, and the addresses of the upstreams.

mod address;
mod service;
mod table;

pub use address::{Address, UpstreamAddr};
pub use service::{Service, ServiceSpec};
pub use table::{Resolved, RouteError, Rule, Table};
