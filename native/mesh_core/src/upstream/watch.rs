//! Watches a peer that is in use: asks it for an answer twice a second.
//!
//! A process that is stopped, a machine without power and a cut cable look the same to TCP: silence, which is
//! also how a long poll looks. Only the lack of an answer to a question says that the peer is gone.

use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};

use super::peer::{self, PeerStream};
use super::pool::Pool;
use crate::mesh::{Peer, PeerState};
use crate::routing::UpstreamAddr;

const INTERVAL: Duration = Duration::from_millis(500);
/// For an answer. After that the peer is suspect.
const ANSWER: Duration = Duration::from_secs(1);
/// Without an answer for this time the peer is lost: its connections are closed.
const LOST: Duration = Duration::from_secs(5);
/// A peer without requests is watched for this long, and longer while it does not answer: it gets no requests
/// then.
const UNUSED: Duration = Duration::from_secs(10);

/// Watches the peer of a pool while it is in use.
#[inline(never)]
pub fn watch(pool: &Rc<Pool>) {
    pool.mark_used();
    if pool.is_watched.replace(true) {
        return;
    }
    if let UpstreamAddr::Peer(peer) = &pool.address.address {
        spawn_local(run(Rc::downgrade(pool), Arc::clone(&peer.0)));
    }
}

async fn run(weak: Weak<Pool>, peer: Arc<Peer>) {
    let mut link = None;
    let mut answered = Instant::now();
    let mut used = answered;
    let mut is_lost = false;
    loop {
        let due = Instant::now() + INTERVAL;
        sleep(INTERVAL).await;
        let Some(pool) = weak.upgrade() else { return };
        let now = Instant::now();
        if was_stopped(due) {
            answered = now;
        }
        if pool.take_used() {
            used = now;
        } else if pool.is_retired() || (now - used >= UNUSED && !pool.is_suspect.get()) {
            pool.is_watched.set(false);
            return;
        }
        // Not held while waiting: it ends with its service and its requests.
        drop(pool);
        let limit = now + ANSWER;
        let limit = if is_lost { limit } else { limit.min(answered + LOST) };
        let answer = timeout_at(limit, ask(&mut link, &peer)).await;
        if was_stopped(limit) {
            answered = Instant::now();
        }
        let Some(pool) = weak.upgrade() else { return };
        match answer {
            Ok(Ok(())) => {
                answered = Instant::now();
                if std::mem::take(&mut is_lost) {
                    pool.returned.set(Some(answered));
                }
                pool.set_suspect(false);
                peer.set_state(PeerState::Up, None);
            }
            // An answer, too: it finishes what it has. That it serves nothing new concerns requests.
            Ok(Err(error))
                if peer::is_refusal(&error) && peer.state() != PeerState::Unreachable =>
            {
                link = None;
                answered = Instant::now();
                is_lost = false;
                pool.set_suspect(false);
                peer.set_state(PeerState::Up, None);
            }
            failed => {
                link = None;
                let error = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "it did not answer within 1 second".into(),
                };
                pool.set_suspect(true);
                if !is_lost && answered.elapsed() >= LOST {
                    is_lost = true;
                    pool.lose_connections();
                }
                let state = match peer.state() {
                    // It has never answered.
                    PeerState::Unreachable => PeerState::Unreachable,
                    _ if is_lost => PeerState::Lost,
                    _ => PeerState::Suspect,
                };
                peer.set_state(state, Some(error));
            }
        }
    }
}

/// Whether this process itself, or its machine, was stopped until long after `due`. That it has heard nothing
/// meanwhile says nothing of the peer.
fn was_stopped(due: Instant) -> bool {
    due.elapsed() > ANSWER
}

async fn ask(link: &mut Option<Rc<PeerStream>>, peer: &Arc<Peer>) -> io::Result<()> {
    match link {
        Some(link) => peer::ping(link).await,
        None => {
            // It has answered once when it is open.
            *link = Some(peer::open(peer).await?);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::thread;

    use mesh_wire::mesh::{PING, PONG};
    use tokio::net::TcpListener;
    use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

    use super::*;
    use crate::calls::CallConfig;
    use crate::mesh::{Mesh, PeerRef, PeerSpec};
    use crate::routing::Address;
    use crate::transport::{TlsSocket, Transport, write_all};
    use crate::upstream::pool::UpstreamLoad;
    use crate::upstream::stream::UpstreamStream;

    fn runtime() -> LocalRuntime {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().build_local(LocalOptions::default()).expect("a runtime")
    }

    fn spec(name: &str, mesh: &Mesh, address: SocketAddr) -> PeerSpec {
        let key = mesh.identity.public_key.clone();
        PeerSpec { id: name.into(), name: name.into(), key, addresses: vec![address] }
    }

    /// Answers each question.
    async fn answer(mesh: &Mesh, listener: TcpListener) {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let stream = TlsSocket::new(tcp, mesh.identity.accept().expect("TLS"));
            spawn_local(async move {
                stream.handshake().await.expect("a handshake");
                let mut question = [0; PING.len()];
                loop {
                    std::future::poll_fn(|cx| stream.poll_read_ready(cx))
                        .await
                        .expect("a question");
                    match stream.try_read(&mut question) {
                        Ok(n) if n > 0 => write_all(&stream, PONG).await.expect("sent"),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        _ => return,
                    }
                }
            });
        }
    }

    /// A stopped process or machine hears no answers when it goes on. That says nothing of the peers.
    #[test]
    fn a_gateway_that_was_stopped_itself_loses_no_peer() {
        let [own, other] = [(); 2].map(|()| Mesh::new(Arc::default()).expect("a key"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        other.set_peers(vec![spec("own", &own, address)]).expect("peers");
        own.set_peers(vec![spec("other", &other, address)]).expect("peers");
        listener.set_nonblocking(true).expect("a socket");
        thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::from_std(listener).expect("a socket");
                answer(&other, listener).await;
            });
        });
        runtime().block_on(async {
            let peer = own.peer("other").expect("a peer");
            let address = UpstreamAddr::Peer(PeerRef(Arc::clone(&peer)));
            let pool = Pool::new(Arc::new(Address::new(1, address)), &CallConfig::default());
            let stream = UpstreamStream::Peer(peer::open(&peer).await.expect("a connection"));
            pool.note(&stream);
            let _request = UpstreamLoad::new(&pool, false);
            watch(&pool);
            for _ in 0..4 {
                sleep(INTERVAL).await;
            }
            thread::sleep(LOST + ANSWER);
            for _ in 0..4 {
                sleep(INTERVAL).await;
                assert!(stream.is_quiet(true), "the connection is open");
            }
            assert_eq!(peer.state(), PeerState::Up);
        });
    }
}
