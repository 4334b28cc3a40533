//! Connections to upstreams: opened, pooled by address, and chosen for a request. Each worker has its own, so
//! that a checkout takes no lock.

mod connect;
mod health;
mod local_ports;
mod local_routes;
mod local_service;
mod open;
mod pool;
mod stream;
pub mod transport;

pub use local_ports::is_own;
pub use local_routes::LocalRoutes;
pub use local_service::{Checkout, LocalService, Want};
pub use open::OpenUpstream;
pub use stream::Stream;
pub use transport::Transport;
