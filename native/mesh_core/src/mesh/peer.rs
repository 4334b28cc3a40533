//! A peer: the gateway of another node, where it listens, and how it fares.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustls::ClientConfig;
use serde::Serialize;

use super::identity::{self, Identity};
use crate::observe::{Notice, Observer};
use crate::transport::TlsSide;

/// A peer as the control plane describes it.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// Unique among all gateways that have ever run: a gateway that starts again is another peer.
    pub id: String,
    /// The name in logs: that of its node.
    pub name: String,
    /// Its public key, as SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    /// Where it may listen. The first that answers with its key is used.
    pub addresses: Vec<SocketAddr>,
}

/// What the workers last saw of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Not used yet.
    Unknown,
    Up,
    /// It has not answered in time. Others get its requests.
    Suspect,
    /// It has not answered for so long that its connections were closed.
    Lost,
    /// No connection could ever be opened.
    Unreachable,
}

pub struct Peer {
    pub id: Arc<str>,
    pub name: String,
    pub key: Vec<u8>,
    client: Arc<ClientConfig>,
    addresses: Mutex<Vec<SocketAddr>>,
    state: AtomicU8,
    error: Mutex<Option<String>>,
    gone: AtomicBool,
    /// Open connections to the peer, over all workers; of these the requests and tunnels in flight.
    pub connections: AtomicUsize,
    observer: Arc<Observer>,
}

impl Peer {
    pub fn new(spec: PeerSpec, own: &Identity, observer: &Arc<Observer>) -> io::Result<Arc<Peer>> {
        let client = own.client(spec.key.clone())?;
        Ok(Arc::new(Peer {
            id: spec.id.into(),
            name: spec.name,
            key: spec.key,
            client,
            addresses: Mutex::new(spec.addresses),
            state: AtomicU8::new(PeerState::Unknown as u8),
            error: Mutex::default(),
            gone: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            observer: Arc::clone(observer),
        }))
    }

    /// The connecting side of a connection to this peer.
    pub fn connect(&self) -> io::Result<TlsSide> {
        identity::connect(Arc::clone(&self.client))
    }

    /// Where to connect, the address that answered last at the front.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.lock().clone()
    }

    /// Replaces the addresses. One that answered stays at the front if it is still among them.
    pub fn move_to(&self, addresses: Vec<SocketAddr>) {
        let mut own = self.addresses.lock();
        let front = own.first().copied().filter(|_| self.state() == PeerState::Up);
        *own = addresses;
        if let Some(front) = front {
            prefer(&mut own, front);
        }
    }

    /// The peer has answered at this address.
    pub fn answered_at(&self, address: SocketAddr) {
        prefer(&mut self.addresses.lock(), address);
    }

    pub fn state(&self) -> PeerState {
        use PeerState::{Lost, Suspect, Unknown, Unreachable, Up};
        let states = [Unknown, Up, Suspect, Lost, Unreachable];
        states[usize::from(self.state.load(Ordering::Relaxed)).min(states.len() - 1)]
    }

    pub fn set_state(&self, state: PeerState, error: Option<String>) {
        let changed = self.state.swap(state as u8, Ordering::Relaxed) != state as u8;
        let about = || match &error {
            Some(error) => format!("{}: {error}", self.name),
            None => self.name.clone(),
        };
        match state {
            _ if !changed => {}
            PeerState::Unknown => {}
            PeerState::Up => self.observer.notice(Notice::PeerUp, about),
            PeerState::Suspect => self.observer.notice(Notice::PeerSuspect, about),
            PeerState::Lost => self.observer.notice(Notice::PeerLost, about),
            PeerState::Unreachable => self.observer.notice(Notice::PeerUnreachable, about),
        }
        if changed || error.is_some() {
            *self.error.lock() = error;
        }
    }

    pub fn retire(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// The control plane no longer knows the peer.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub fn stats(&self) -> PeerStats {
        PeerStats {
            id: self.id.to_string(),
            name: self.name.clone(),
            state: self.state(),
            address: self.addresses.lock().first().map(SocketAddr::to_string),
            error: self.error.lock().clone(),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }
}

fn prefer(addresses: &mut [SocketAddr], address: SocketAddr) {
    if let Some(at) = addresses.iter().position(|known| *known == address) {
        addresses[..=at].rotate_right(1);
    }
}

#[derive(Debug, Serialize)]
pub struct PeerStats {
    pub id: String,
    pub name: String,
    pub state: PeerState,
    pub address: Option<String>,
    /// Why it is not up.
    pub error: Option<String>,
    pub connections: usize,
}

/// A peer in a route. Two are equal if they have the same id.
#[derive(Clone)]
pub struct PeerRef(pub Arc<Peer>);

#[cfg(test)]
impl PeerRef {
    pub fn for_test(id: &str) -> PeerRef {
        let own = Identity::new(Arc::default()).expect("a key");
        let id = id.to_string();
        let spec = PeerSpec { name: id.clone(), id, key: Vec::new(), addresses: Vec::new() };
        PeerRef(Peer::new(spec, &own, &Arc::default()).expect("a peer"))
    }
}

impl PartialEq for PeerRef {
    fn eq(&self, other: &PeerRef) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for PeerRef {}

impl Hash for PeerRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for PeerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}
