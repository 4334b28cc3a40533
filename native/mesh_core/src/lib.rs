//! The data plane of ex_service_mesh_router: routes requests of HTTP/1.1 and HTTP/2 clients by host and
//! forwards them to upstreams that speak HTTP/1.1 or HTTP/2. A plain library that knows nothing of the BEAM.
//!
//! [`Gateway::open`] binds the sockets, [`Gateway::set_routes`] sets the routing table, and each thread
//! that calls [`Gateway::run_worker`] serves until [`Gateway::stop`].
//!
//! Modules import in one direction only: `gateway` > `serve` > `upstream` > `routing` > `calls` > `observe` >
//! `runtime`, `error`, `config`. `tests/layers.rs` checks it.

#![forbid(unsafe_code)]

pub mod calls;
pub mod config;
pub mod observe;

mod error;
mod gateway;
mod mesh;
mod routing;
mod runtime;
mod serve;
#[cfg(test)]
mod tests;
mod transport;
mod upstream;

pub use config::Config;
pub use error::Side;
pub use gateway::Gateway;
pub use mesh::{PeerError, PeerSpec, PeerState, PeerStats};
pub use mesh_wire::proxy_protocol::ProxyProtocol;
pub use mesh_wire::request::BodyLength;
pub use routing::{
    LocalPreference, Resolved, RouteError, Rule, ServiceSpec, UpstreamAddr, UpstreamSpec,
};
pub use serve::{Inherited, MeshInfo, OpenError, WorkerError, listener_address};
pub use upstream::is_local_port;
