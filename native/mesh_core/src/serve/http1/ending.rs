//! Ends a connection: closes it, drains it for a moment, or turns it into a tunnel.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::task::spawn_local;

use super::connection::{Http1Connection, Next};
use crate::runtime::Timer;
use crate::serve::exchange::Upgraded;
use crate::serve::tunnel::Tunnel;
use crate::serve::worker::{ConnectionGuard, TunnelGuard};
use crate::transport::poll_fill;
use crate::upstream::Transport;

/// How long to read after the last response while the client still sends. Otherwise a reset could discard
/// the response (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_MOST: Duration = Duration::from_secs(10);

impl<T: Transport + 'static> Http1Connection<'_, T> {
    /// How to continue after the last response. A client that does not know that it was the last may be
    /// sending more; others may have sent more already.
    pub fn after_last_response(&self, request_whole: bool) -> Next {
        let done = self.client_asked_close && request_whole;
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

    /// Closes the sending side, and drains for a moment.
    async fn linger(mut self) {
        if self.client.shut_down_writing().is_err() {
            return;
        }
        let mut max = Timer::default();
        max.set(Some(LINGER_MOST));
        loop {
            self.input.clear();
            self.input.release(&self.worker.buffers);
            self.timer.set(Some(LINGER));
            let more = poll_fn(|cx| {
                let filled = poll_fill(cx, &self.client, &mut self.input, &self.worker.buffers);
                if let Poll::Ready(read) = filled {
                    return Poll::Ready(matches!(read, Ok(n) if n > 0));
                }
                let over = self.timer.poll(cx).is_ready() || max.poll(cx).is_ready();
                if over { Poll::Ready(false) } else { Poll::Pending }
            });
            if !more.await {
                return;
            }
        }
    }

    pub fn into_tunnel(self, guard: ConnectionGuard, upgraded: Upgraded) {
        let tunnel = Tunnel {
            guard: TunnelGuard::new(guard),
            client: self.client,
            upstream: upgraded.upstream,
            from_client: self.input,
            from_upstream: upgraded.first_bytes,
            service: upgraded.service,
            _counted: upgraded.counted,
        };
        // A separate task, which is much smaller than a connection's.
        spawn_local(tunnel.run());
    }
}
