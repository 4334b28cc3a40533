//! The gateways of other nodes: who they are, and how two gateways prove it to each other.

mod identity;
mod peer;
mod peers;

pub use identity::is_protocol;
pub use peer::{Peer, PeerRef, PeerSpec, PeerState, PeerStats};
pub use peers::{Mesh, PeerError};
