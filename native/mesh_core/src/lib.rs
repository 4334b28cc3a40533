//! The data plane of ex_service_mesh_router: a listener, a routing table by host, and streaming
//! HTTP/1.1 forwarding to upstreams, for clients of HTTP/1.1 and HTTP/2. A plain library that knows
//! nothing of the BEAM.
//!
//! [`Gateway::open`] binds the sockets, [`Gateway::set_routes`] says where requests go, and each
//! thread that calls [`Gateway::run_worker`] serves until [`Gateway::stop`].

#![forbid(unsafe_code)]

pub mod config;
pub mod histogram;
pub mod host;
pub mod http1;
pub mod observe;
pub mod stats;

mod accept;
mod account;
mod address;
mod buffer;
mod clients;
mod connection;
#[cfg(test)]
mod crash_tests;
mod digits;
mod drain;
mod error;
mod exchange;
mod forwarded;
mod gateway;
mod h2;
mod ids;
mod io;
mod listener;
mod own;
mod peer;
mod proxy_protocol;
mod reply;
mod routes;
mod stall;
mod table;
mod tasks;
mod timer;
mod tunnel;
mod upstream;
mod wall;
#[cfg(test)]
mod wall_tests;
mod worker;

pub use address::UpstreamAddr;
pub use config::Config;
pub use error::Side;
pub use exchange::Took;
pub use gateway::{Gateway, WorkerError};
pub use listener::OpenError;
pub use own::is_own;
pub use proxy_protocol::ProxyProtocol;
pub use table::{Resolved, RouteError, Rule, ServiceSpec};

/// What the fuzz targets need beyond the public interface. Nothing here is promised to anyone.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::error::Error;
    pub use crate::ids::RequestId;
    pub use crate::peer::Peer;
    pub use crate::proxy_protocol::Announced;
}
