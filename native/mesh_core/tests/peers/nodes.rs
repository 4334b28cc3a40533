//! Gateways that know each other, as on several nodes.

use std::sync::{Arc, Mutex};

use mesh_core::config::MeshConfig;
use mesh_core::observe::{CountedNotice, Notice, ObserveConfig, Record, ServiceTotals, Sink};
use mesh_core::{
    Config, MeshInfo, PeerSpec, PeerState, PeerStats, ServiceSpec, UpstreamAddr, UpstreamSpec,
};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::mesh::Mesh;

/// A gateway in a mesh, with its worker threads.
pub struct Node {
    pub mesh: Mesh,
    pub info: MeshInfo,
    name: String,
    notices: Notices,
}

#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<CountedNotice>>>);

impl Sink for Notices {
    fn records(&mut self, _: &[&Record]) -> bool {
        true
    }

    fn lines(&mut self, _: &[Vec<u8>]) -> bool {
        true
    }

    fn notices(&mut self, notices: Vec<CountedNotice>) {
        self.0.lock().expect("a lock").extend(notices);
    }
}

impl Node {
    pub fn start(name: &str, config: Config) -> Node {
        let mesh = Mesh::start(config, Vec::new(), None);
        let config =
            MeshConfig { ips: vec![[127, 0, 0, 1].into()], port: 0, prefer_local: Some(2) };
        let info = mesh.gateway.open_mesh(&config).expect("a mesh port");
        let notices = Notices::default();
        let sink: Option<Box<dyn Sink>> = Some(Box::new(notices.clone()));
        mesh.gateway
            .observe(ObserveConfig { access_log: None, sample: 0.0, sink })
            .expect("a sink");
        Node { mesh, info, name: name.to_string(), notices }
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
        self.route_with_last_resort(upstreams, &[]);
    }

    /// The same with upstreams that are used only if none of the first can be.
    pub fn route_with_last_resort(&self, first: &[UpstreamAddr], last: &[UpstreamAddr]) {
        let first = first.iter().cloned().map(UpstreamSpec::from);
        let last = last.iter().cloned().map(UpstreamSpec::from);
        let last = last.map(|it| UpstreamSpec { last_resort: true, ..it });
        let hosts = vec!["a.test".into()];
        let spec = ServiceSpec { name: "A".into(), hosts, upstreams: first.chain(last).collect() };
        self.mesh.gateway.set_routes(vec![spec], Some("a.test")).expect("routes");
    }

    pub fn client(&self) -> Client {
        Client::connect(self.mesh.address())
    }

    /// What this node has sent, received from its clients.
    pub fn stats(&self) -> ServiceTotals {
        self.mesh.stats().services.get("A").cloned().unwrap_or_default()
    }

    /// What this node has served for others.
    pub fn served_for_peers(&self) -> ServiceTotals {
        self.mesh.stats().from_peers.get("A").cloned().unwrap_or_default()
    }

    pub fn peer_stats(&self, other: &Node) -> PeerStats {
        let stats = self.mesh.gateway.peer_stats();
        stats.into_iter().find(|peer| peer.name == other.name).expect("a known peer")
    }

    pub fn wait_for_state(&self, other: &Node, state: PeerState) {
        let what = format!("{} is {state:?}", other.name);
        eventually(&what, || self.peer_stats(other).state == state);
    }

    /// Notices about a subject that contains this text.
    pub fn count_notices(&self, notice: Notice, about: &str) -> u64 {
        let all = self.notices.0.lock().expect("a lock");
        let of_it = all.iter().filter(|it| it.notice == notice && it.about.contains(about));
        of_it.map(|it| it.count).sum()
    }

    pub fn wait_for_notice(&self, notice: Notice, about: &str) {
        let what = format!("a notice {notice:?} about {about}");
        eventually(&what, || self.count_notices(notice, about) > 0);
    }

    /// Connections to the mesh port that this node has not closed, as the system sees them.
    pub fn open_sockets(&self) -> usize {
        const OPEN: [&str; 2] = ["01", "08"];
        let port = format!(":{:04X}", self.info.addresses[0].port());
        let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc");
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.filter(|columns| columns[1].ends_with(&port) && OPEN.contains(&columns[3])).count()
    }

    pub fn is_well(&self) {
        assert_eq!(self.mesh.stats().gateway.panics, 0);
    }
}

/// Nodes that know each other.
pub fn nodes<const N: usize>() -> [Node; N] {
    nodes_with(&Config::default())
}

pub fn nodes_with<const N: usize>(config: &Config) -> [Node; N] {
    let names: [&str; N] = std::array::from_fn(|i| ["a", "b", "c"][i]);
    let nodes = names.map(|name| Node::start(name, config.clone()));
    let specs: Vec<_> = nodes.iter().map(Node::spec).collect();
    for (own, node) in nodes.iter().enumerate() {
        let others = specs.iter().enumerate().filter(|(i, _)| *i != own);
        node.knows(&others.map(|(_, spec)| spec.clone()).collect::<Vec<_>>());
    }
    nodes
}
