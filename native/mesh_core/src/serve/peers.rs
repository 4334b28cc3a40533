//! Accepts the connections of peers.
//!
//! A stranger gets no byte of HTTP, and little work: a handshake has a second, strangers may begin few of them,
//! and those from an address where no peer is known cannot take the places of peers.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::http1;
use super::mesh_port::MeshPort;
use super::worker::{ConnectionGuard, Worker};
use crate::mesh::{Mesh, Peer, is_protocol};
use crate::observe::Notice;
use crate::transport::TlsSocket;

/// For a handshake.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// How many handshakes a worker has at once with addresses of peers, and with others.
const MAX_HANDSHAKES: usize = 1024;
const MAX_STRANGERS: usize = 64;
/// How many handshakes with strangers a worker begins per second: a twentieth of its time.
const STRANGERS_PER_SECOND: usize = 200;
/// How many connections of peers a worker has at most.
const MAX_CONNECTIONS: u64 = 65_536;
/// A peer that has vanished is forgotten after this time, and by the system's limit if it has not
/// acknowledged something. No TCP_USER_TIMEOUT: it also ends connections whose reader only pauses.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);
const CLOSED: &str = "it closed the connection before the handshake was complete";
/// Pause after a failed `accept`, and of a worker that has more connections than another.
const PAUSE: Duration = Duration::from_millis(20);
const YIELD_TIME: Duration = Duration::from_millis(1);
const MAX_LEAD: u64 = 4;

/// Begins to accept peers. The tasks end with the set.
pub fn accept(worker: &Rc<Worker>, port: &Arc<MeshPort>) -> io::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let room = Rc::new(Room::default());
    for listener in port.listeners()? {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.spawn_local(run(Rc::clone(worker), Arc::clone(port), listener, Rc::clone(&room)));
    }
    Ok(tasks)
}

async fn run(
    worker: Rc<Worker>,
    port: Arc<MeshPort>,
    listener: tokio::net::TcpListener,
    room: Rc<Room>,
) {
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => {
                let known = port.mesh.is_address_of_peer(address.ip());
                if let Some(place) = room.take(known, &worker) {
                    spawn_local(serve(Rc::clone(&worker), Arc::clone(&port), tcp, address, place));
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                worker.shared.observer.notice(Notice::Accept, || error.to_string());
                sleep(PAUSE).await;
            }
        }
        // Otherwise the worker that wakes up first would get all connections of a peer.
        let open = worker.counters.peer_connections_open.get();
        let fewest = worker.shared.fewest_peers_open();
        if open > fewest + MAX_LEAD + fewest / 8 {
            sleep(YIELD_TIME).await;
        }
    }
}

/// The handshakes of one worker.
#[derive(Default)]
struct Room {
    peers: Cell<usize>,
    strangers: Cell<usize>,
    /// Handshakes with strangers since the second began.
    begun: Cell<usize>,
    second: Cell<Option<Instant>>,
}

/// The place of a handshake, until dropped.
struct Place {
    room: Rc<Room>,
    known: bool,
}

impl Room {
    fn take(self: &Rc<Self>, known: bool, worker: &Worker) -> Option<Place> {
        if worker.counters.peer_connections_open.get() >= MAX_CONNECTIONS {
            return None;
        }
        let (taken, max) =
            if known { (&self.peers, MAX_HANDSHAKES) } else { (&self.strangers, MAX_STRANGERS) };
        if taken.get() >= max || (!known && !self.may_begin(Instant::now())) {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Place { room: Rc::clone(self), known })
    }

    fn may_begin(&self, now: Instant) -> bool {
        if self.second.get().is_none_or(|began| now - began >= Duration::from_secs(1)) {
            self.second.set(Some(now));
            self.begun.set(0);
        }
        self.begun.set(self.begun.get() + 1);
        self.begun.get() <= STRANGERS_PER_SECOND
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = if self.known { &self.room.peers } else { &self.room.strangers };
        taken.set(taken.get() - 1);
    }
}

async fn serve(
    worker: Rc<Worker>,
    port: Arc<MeshPort>,
    tcp: TcpStream,
    address: SocketAddr,
    place: Place,
) {
    let (stream, peer) = match welcome(&port.mesh, tcp).await {
        Ok(welcomed) => welcomed,
        // A peer gives up on a gateway that was stopped for a moment.
        Err(why) if why == CLOSED && place.known => return,
        Err(why) => {
            let about = || format!("{}: {why}", address.ip().to_canonical());
            return worker.shared.observer.notice(Notice::MeshStranger, about);
        }
    };
    drop(place);
    let guard = ConnectionGuard::of_peer(&worker);
    drop(worker);
    http1::serve_peer(guard, stream, address, peer).await;
}

/// Completes the handshake. Returns the connection of a peer, and the peer.
async fn welcome(mesh: &Mesh, tcp: TcpStream) -> Result<(TlsSocket, Arc<Peer>), String> {
    let _ = SockRef::from(&tcp).set_tcp_keepalive(&KEEPALIVE);
    let side = mesh.identity.accept().map_err(|error| error.to_string())?;
    let stream = TlsSocket::new(tcp, side);
    match timeout(HANDSHAKE, stream.handshake()).await {
        Err(_) => return Err("no handshake within 1 second".into()),
        Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(CLOSED.into());
        }
        Ok(Err(error)) => return Err(format!("it is not a known peer: {error}")),
        Ok(Ok(())) => {}
    }
    if !is_protocol(stream.protocol().as_deref()) {
        return Err("it speaks another protocol".into());
    }
    let key = stream.peer_key().unwrap_or_default();
    let peer = mesh.peer_with_key(&key).ok_or("it is not a known peer")?;
    Ok((stream, peer))
}
