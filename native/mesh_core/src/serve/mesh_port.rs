//! The port where peers connect.

use std::net::{SocketAddr, TcpListener};

use super::listener::{OpenError, bind_all};
use crate::config::MeshConfig;
use crate::mesh::Mesh;

/// The open mesh: who the peers are, and where they connect to.
pub struct MeshPort {
    pub mesh: Mesh,
    listeners: Vec<TcpListener>,
    pub info: MeshInfo,
}

/// What other nodes need to know.
#[derive(Clone, Debug, Default)]
pub struct MeshInfo {
    pub key: Vec<u8>,
    pub addresses: Vec<SocketAddr>,
}

impl MeshPort {
    pub fn open(config: &MeshConfig, mesh: Mesh) -> Result<MeshPort, OpenError> {
        let listeners = bind_all(&config.ips, config.port)?;
        let addresses =
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let info = MeshInfo { key: mesh.identity.public_key.clone(), addresses };
        Ok(MeshPort { mesh, listeners, info })
    }

    /// Duplicates the listening sockets for one worker's event loop.
    pub fn listeners(&self) -> std::io::Result<Vec<TcpListener>> {
        self.listeners.iter().map(TcpListener::try_clone).collect()
    }
}
