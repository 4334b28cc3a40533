//! Gateways that know each other, as on several nodes.

use mesh_core::config::MeshConfig;
use mesh_core::{Config, MeshInfo, PeerSpec, ServiceSpec, UpstreamAddr, UpstreamSpec};

use crate::support::mesh::Mesh;

/// A gateway in a mesh, with its worker threads.
pub struct Node {
    pub mesh: Mesh,
    pub info: MeshInfo,
    name: String,
}

impl Node {
    pub fn start(name: &str, config: Config) -> Node {
        let mesh = Mesh::start(config, Vec::new(), None);
        let config =
            MeshConfig { ips: vec![[127, 0, 0, 1].into()], port: 0, prefer_local: Some(2) };
        let info = mesh.gateway.open_mesh(&config).expect("a mesh port");
        Node { mesh, info, name: name.to_string() }
    }

    /// What other nodes are told about this one.
    pub fn spec(&self) -> PeerSpec {
        PeerSpec {
            id: format!("{}-1", self.name),
            name: self.name.clone(),
            key: self.info.key.clone(),
            addresses: self.info.addresses.clone(),
        }
    }

    pub fn knows(&self, peers: &[PeerSpec]) {
        self.mesh.gateway.set_peers(peers.to_vec()).expect("peers");
    }

    /// The upstream that is another node.
    pub fn peer(&self, other: &Node) -> UpstreamAddr {
        self.mesh.gateway.peer(&other.spec().id).expect("a known peer")
    }

    /// Routes `a.test`, the service `A`, to these upstreams.
    pub fn routes(&self, upstreams: &[UpstreamAddr]) {
        let upstreams = upstreams.iter().cloned().map(UpstreamSpec::from).collect();
        let spec = ServiceSpec { name: "A".into(), hosts: vec!["a.test".into()], upstreams };
        self.mesh.gateway.set_routes(vec![spec], None).expect("routes");
    }
}

/// Nodes that know each other.
pub fn nodes<const N: usize>() -> [Node; N] {
    let names: [&str; N] = std::array::from_fn(|i| ["a", "b", "c"][i]);
    let nodes = names.map(|name| Node::start(name, Config::default()));
    let specs: Vec<_> = nodes.iter().map(Node::spec).collect();
    for (own, node) in nodes.iter().enumerate() {
        let others = specs.iter().enumerate().filter(|(i, _)| *i != own);
        node.knows(&others.map(|(_, spec)| spec.clone()).collect::<Vec<_>>());
    }
    nodes
}
