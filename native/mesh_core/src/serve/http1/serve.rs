//! Serves one client connection, request after request, until either side closes it.

use std::pin::pin;
use std::rc::Rc;

use mesh_wire::client_addr::ClientAddr;
use mesh_wire::ids::RequestId;
use tokio::task::spawn_local;

use super::connection::{Connection, Next};
use super::exchange::Served;
use super::refusal::turn_away;
use crate::error::Error;
use crate::runtime::{Buf, Timer};
use crate::serve::h2;
use crate::serve::worker::{Accepted, Admission};
use crate::upstream::transport::fill_early;

/// Serves a connection to its end. The timer is its task's.
pub async fn serve(accepted: Box<Accepted>, timer: &mut Timer) {
    let Accepted { mut open, client, address } = *accepted;
    let worker = Rc::clone(&open.worker);
    let mut connection = Connection {
        peer: ClientAddr::new(address, &worker.shared.config.trusted_proxies),
        client,
        input: Buf::new(),
        timer,
        request_id: RequestId::None,
        draft: None,
        answered: None,
        taken: 0,
        said_last: false,
        hears_of_drain: false,
        worker: Rc::clone(&worker),
    };
    // Mostly the request has come with its connection: the event loop need not tell of it.
    fill_early(&connection.client, &mut connection.input, &worker.buffers);
    if let Err(error) = connection.read_proxy_header().await {
        let next = connection.refuse(error.into()).await;
        return connection.end(next).await;
    }
    match open.admit(connection.peer.ip) {
        Admission::Served => {}
        Admission::Refused => {
            worker.counters.connections_refused.add(1);
            let next = connection.refuse_all(&Error::TooManyConnections).await;
            return connection.end(next).await;
        }
        Admission::TurnedAway => {
            return turn_away(&worker, &connection.client, &Error::TooManyConnections);
        }
    }
    let mut drain = pin!(worker.drain.notified());
    let mut fresh = true;
    while connection.wait_for_request(drain.as_mut()).await {
        if std::mem::take(&mut fresh) && connection.input.filled().starts_with(b"P") {
            match connection.speaks_http2().await {
                Ok(true) => {
                    let Connection { peer, client, input, .. } = connection;
                    // A task of its own: one of HTTP/1.1 is not to be as large.
                    spawn_local(h2::serve(open, peer, client, input));
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
                Served::Tunnel(upgraded) => return connection.into_tunnel(open, upgraded),
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
