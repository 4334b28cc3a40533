//! How a connection ends: closed, read on for a moment, or as a tunnel.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::task::spawn_local;

use super::connection::{Connection, Next};
use crate::runtime::Timer;
use crate::serve::exchange::Upgraded;
use crate::serve::tunnel::Tunnel;
use crate::serve::worker::{Open, TunnelGuard};
use crate::upstream::Transport;
use crate::upstream::transport::poll_fill;

/// After a last response with the client still sending: how long to go on reading, so that it gets
/// to see the response before a reset would discard it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_MOST: Duration = Duration::from_secs(10);

impl<T: Transport + 'static> Connection<'_, T> {
    /// How to go on after a last response. A client that does not know that it was the last may be
    /// sending more, and one that does may have sent more all the same.
    pub fn last(&self, request_whole: bool) -> Next {
        let done = self.said_last && request_whole;
        if done && self.input.is_empty() && self.client.is_quiet(false) {
            Next::Close
        } else {
            Next::Linger
        }
    }

    pub async fn end(self, next: Next) {
        if let Next::Linger = next {
            self.linger().await;
        }
    }

    /// Says that nothing more will come, and reads what still does, for a moment.
    async fn linger(mut self) {
        if self.client.shut_down_writing().is_err() {
            return;
        }
        let mut most = Timer::default();
        most.set(Some(LINGER_MOST));
        loop {
            self.input.clear();
            self.input.give_back(&self.worker.buffers);
            self.timer.set(Some(LINGER));
            let more = poll_fn(|cx| {
                let filled = poll_fill(cx, &self.client, &mut self.input, &self.worker.buffers);
                if let Poll::Ready(read) = filled {
                    return Poll::Ready(matches!(read, Ok(n) if n > 0));
                }
                let over = self.timer.poll(cx).is_ready() || most.poll(cx).is_ready();
                if over { Poll::Ready(false) } else { Poll::Pending }
            });
            if !more.await {
                return;
            }
        }
    }

    pub fn into_tunnel(self, open: Open, upgraded: Upgraded) {
        let tunnel = Tunnel {
            guard: TunnelGuard::new(open),
            client: self.client,
            upstream: upgraded.upstream,
            from_client: self.input,
            from_upstream: upgraded.first_bytes,
            service: upgraded.service,
            _open: upgraded.open,
        };
        // A task of its own, which is a good deal smaller than that of a connection.
        spawn_local(tunnel.run());
    }
}
