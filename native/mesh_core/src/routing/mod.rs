//! Maps hosts to services, and services to the addresses of their upstreams, in an immutable table.

mod address;
mod service;
mod table;

pub use address::{Address, UpstreamAddr};
pub use service::{Service, ServiceSpec, UpstreamSpec};
pub use table::{LocalPreference, Resolved, RouteError, Rule, Table};
