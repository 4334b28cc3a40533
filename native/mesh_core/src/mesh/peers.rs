//! This gateway in the mesh: its identity, and the peers that it knows.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::identity::{Identity, Pins};
use super::peer::{Peer, PeerSpec, PeerStats};
use crate::observe::Observer;

pub struct Mesh {
    pub identity: Identity,
    observer: Arc<Observer>,
    pins: Arc<Pins>,
    by_key: ArcSwap<HashMap<Vec<u8>, Arc<Peer>>>,
    peers: Mutex<BTreeMap<Arc<str>, Arc<Peer>>>,
    /// The addresses where peers may be.
    networks: ArcSwap<HashSet<IpAddr>>,
}

/// Why a list of peers is wrong.
#[derive(Debug)]
pub enum PeerError {
    /// Two peers with one id, or with one key.
    Twice(String),
    /// A peer has changed its key.
    OtherKey(String),
    Tls(io::Error),
    /// The mesh has not been opened.
    Closed,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::Twice(name) => write!(f, "peer {name} has the id or the key of another"),
            PeerError::OtherKey(name) => write!(f, "peer {name} has another key than before"),
            PeerError::Closed => f.write_str("the mesh is not open"),
            PeerError::Tls(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for PeerError {}

impl Mesh {
    pub fn new(observer: Arc<Observer>) -> io::Result<Mesh> {
        let pins: Arc<Pins> = Arc::default();
        Ok(Mesh {
            identity: Identity::new(Arc::clone(&pins))?,
            observer,
            pins,
            by_key: ArcSwap::default(),
            peers: Mutex::default(),
            networks: ArcSwap::default(),
        })
    }

    /// Replaces all peers. On an error the old ones stay.
    pub fn set_peers(&self, specs: Vec<PeerSpec>) -> Result<(), PeerError> {
        let mut peers = self.peers.lock();
        let mut next = BTreeMap::new();
        let mut by_key = HashMap::new();
        let mut networks = HashSet::new();
        let mut moved = Vec::new();
        for spec in specs {
            networks.extend(spec.addresses.iter().map(|address| address.ip().to_canonical()));
            let name = spec.name.clone();
            let peer = match peers.get(spec.id.as_str()) {
                Some(known) if known.key != spec.key => return Err(PeerError::OtherKey(name)),
                Some(known) => {
                    moved.push((Arc::clone(known), spec.addresses));
                    Arc::clone(known)
                }
                None => Peer::new(spec, &self.identity, &self.observer).map_err(PeerError::Tls)?,
            };
            let same_key = by_key.insert(peer.key.clone(), Arc::clone(&peer));
            let same_id = next.insert(Arc::clone(&peer.id), peer);
            if same_key.is_some() || same_id.is_some() {
                return Err(PeerError::Twice(name));
            }
        }
        for (peer, addresses) in moved {
            peer.move_to(addresses);
        }
        let gone = peers.iter().filter(|(id, _)| !next.contains_key(*id));
        gone.for_each(|(_, peer)| peer.retire());
        self.pins.store(Arc::new(by_key.keys().cloned().collect()));
        self.by_key.store(Arc::new(by_key));
        self.networks.store(Arc::new(networks));
        *peers = next;
        Ok(())
    }

    pub fn peer(&self, id: &str) -> Option<Arc<Peer>> {
        self.peers.lock().get(id).cloned()
    }

    /// The peer with this public key.
    pub fn peer_with_key(&self, key: &[u8]) -> Option<Arc<Peer>> {
        self.by_key.load().get(key).cloned()
    }

    /// Whether a peer may connect from this address. Others may, too, but not as often.
    pub fn is_address_of_peer(&self, ip: IpAddr) -> bool {
        self.networks.load().contains(&ip.to_canonical())
    }

    pub fn stats(&self) -> Vec<PeerStats> {
        self.peers.lock().values().map(|peer| peer.stats()).collect()
    }
}
