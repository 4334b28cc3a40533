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
        sleep(INTERVAL).await;
        let Some(pool) = weak.upgrade() else { return };
        let now = Instant::now();
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
        let Some(pool) = weak.upgrade() else { return };
        match answer {
            Ok(Ok(())) => {
                answered = Instant::now();
                is_lost = false;
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
