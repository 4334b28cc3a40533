//! Opens upstream connections, pools them by address, and chooses one for each request.
//!
//! Each worker has its own pools, so a checkout takes no lock.

mod balance;
mod connect;
mod h2;
mod health;
mod local_ports;
mod local_routes;
mod local_service;
mod open;
mod peer;
mod pool;
mod retry_budget;
mod stream;
mod watch;
pub mod websocket;

pub use crate::transport::Transport;
pub use balance::Attempt;
pub use local_ports::is_local_port;
pub use local_routes::LocalRoutes;
pub use local_service::{Checkout, LocalService, Reuse};
pub use peer::greet;
pub use pool::UpstreamTunnel;
pub use stream::UpstreamStream;
