//! Serves one client connection, request after request, until either side closes it.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use mesh_wire::mesh::{PING, PONG};
use tokio::task::spawn_local;

use super::connection::{Http1Connection, Next};
use super::exchange::Served;
use super::refusal::turn_away;
use crate::error::Error;
use crate::mesh::Peer;
use crate::runtime::Timer;
use crate::serve::h2;
use crate::serve::worker::{Accepted, Admission, ConnectionGuard};
use crate::transport::{TlsSocket, fill_early, write_all};

/// Serves a connection to its end. The timer belongs to the task.
pub async fn serve(accepted: Box<Accepted>, timer: &mut Timer) {
    let Accepted { mut guard, client, address } = *accepted;
    let worker = Rc::clone(&guard.worker);
    let mut connection = Http1Connection::new(&worker, client, address, timer);
    // The request has usually arrived with the connection, before the event loop reports it.
    fill_early(&connection.client, &mut connection.input, &worker.buffers);
    if let Err(error) = connection.read_proxy_header().await {
        let next = connection.refuse(error.into()).await;
        return connection.end(next).await;
    }
    match guard.admit(connection.client_addr.ip) {
        Admission::Served => {}
        Admission::Refused => {
            worker.counters.connections_refused.add(1);
            let next = connection.refuse_connection(&Error::TooManyConnections).await;
            return connection.end(next).await;
        }
        Admission::TurnedAway => {
            return turn_away(&worker, &connection.client, &Error::TooManyConnections);
        }
    }
    let mut drain = pin!(worker.draining.raised());
    let mut fresh = true;
    while connection.wait_for_request(drain.as_mut()).await {
        if std::mem::take(&mut fresh) && connection.input.filled().starts_with(b"P") {
            match connection.speaks_http2().await {
                Ok(true) => {
                    let Http1Connection { client_addr, client, input, .. } = connection;
                    // A separate task, so that HTTP/1.1 tasks stay smaller.
                    spawn_local(h2::serve(guard, client_addr, client, input));
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    let next = connection.refuse(error.into()).await;
                    return connection.end(next).await;
                }
            }
        }
        let next = match connection.read_head().await {
            Ok(None) => return,
            Ok(Some(routed)) => match connection.exchange(routed).await {
                Served::Tunnel(upgraded) => return connection.into_tunnel(guard, *upgraded),
                Served::Next(next) => next,
            },
            Err(refused) => {
                let refused = connection.explain(refused);
                connection.refuse(refused).await
            }
        };
        if !matches!(next, Next::Request) {
            return connection.end(next).await;
        }
    }
}

/// Serves the connection of a peer to its end.
pub async fn serve_peer(
    mut guard: ConnectionGuard,
    client: TlsSocket,
    address: SocketAddr,
    peer: Arc<Peer>,
) {
    let worker = Rc::clone(&guard.worker);
    let mut timer = Timer::default();
    let mut connection = Http1Connection::new(&worker, client, address, &mut timer);
    let mut drain = pin!(worker.draining.raised());
    loop {
        let begins = connection.wait_for_request(drain.as_mut()).await;
        if peer.is_gone() || (!begins && worker.draining.is_raised()) {
            guard.set_counts(true);
            return connection.leave().await;
        }
        if !begins {
            return;
        }
        if connection.input.filled() == PING {
            if worker.draining.is_raised() {
                guard.set_counts(true);
                return connection.leave().await;
            }
            connection.input.clear();
            connection.input.release(&worker.buffers);
            if write_all(&connection.client, PONG).await.is_err() {
                return;
            }
            continue;
        }
        guard.set_counts(true);
        let next = match connection.read_head().await {
            Ok(None) => return,
            Ok(Some(routed)) => match connection.exchange(routed).await {
                Served::Tunnel(upgraded) => return connection.into_tunnel(guard, *upgraded),
                Served::Next(next) => next,
            },
            Err(refused) => connection.refuse(refused).await,
        };
        guard.set_counts(false);
        if !matches!(next, Next::Request) {
            return connection.end(next).await;
        }
    }
}
