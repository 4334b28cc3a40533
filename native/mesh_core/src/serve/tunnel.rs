//! Relays bytes of a WebSocket in both directions after the handshake, without interpreting them.
//!
//! A tunnel without traffic owns two sockets and no buffer.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::worker::{TunnelGuard, Worker};
use crate::config::Timeouts;
use crate::observe::{Counter, ServiceCounters};
use crate::runtime::{Buf, BufferPool, Timer, deadline};
use crate::transport::{KEEPALIVE, fill, finish, write_all};
use crate::upstream::{LocalService, Transport, UpstreamStream, UpstreamTunnel};

pub struct Tunnel<T> {
    pub guard: TunnelGuard,
    pub client: T,
    pub upstream: UpstreamStream,
    /// Bytes that the client sent after the handshake.
    pub from_client: Buf,
    /// Bytes that the endpoint sent after the 101.
    pub from_upstream: Buf,
    pub service: Rc<LocalService>,
    pub _counted: UpstreamTunnel,
}

impl<T: Transport> Tunnel<T> {
    pub async fn run(mut self) {
        let worker = Rc::clone(self.guard.worker());
        // A tunnel may be silent for hours. Only keepalive notices that a machine is gone.
        self.client.set_keepalive(&KEEPALIVE);
        self.upstream.set_keepalive(&KEEPALIVE);
        let client = (&self.client, &mut self.from_client);
        let timeouts = &worker.shared.config_for(T::IS_PEER).timeouts;
        let upstream = (&self.upstream, &mut self.from_upstream);
        relay(&worker, timeouts, &self.service, client, upstream).await;
    }
}

/// Relays until both sides have closed, the client is gone, the tunnel is idle for too long, or the gateway
/// stops. After one side has closed, the other has `tunnel_close` to close too. Each side comes with the
/// bytes it has already sent.
pub async fn relay(
    worker: &Worker,
    timeouts: &Timeouts,
    service: &Rc<LocalService>,
    (client, from_client): (&impl Transport, &mut Buf),
    (upstream, from_upstream): (&impl Transport, &mut Buf),
) {
    let counters = TunnelCount::new(Rc::clone(service));
    let idle_deadline = IdleDeadline::new(timeouts.tunnel_idle);
    let mut timer = Timer::default();
    let Some(open) = worker.tunnels.open() else { return };
    let mut stop = pin!(open.close_requested());

    let pump = |moved| Pump { pool: &worker.buffers, idle_deadline: &idle_deadline, moved };
    let up = pump(&counters.tunnel_received_bytes);
    let down = pump(&counters.tunnel_sent_bytes);
    let mut up = pin!(async {
        match up.run(client, upstream, from_client).await {
            // The endpoint's last bytes are still on the way to the client. A client that is not read from
            // may stop reading.
            Err(PumpError::Writer) => {
                idle_deadline.shorten(timeouts.tunnel_close);
                discard(client, from_client, &worker.buffers).await
            }
            ended => ended,
        }
    });
    let mut down = pin!(async {
        match down.run(upstream, client, from_upstream).await {
            Err(PumpError::Reader) if upstream.reset_code().is_some() => Err(PumpError::Reader),
            // A reset by the endpoint also ends its stream: everything before it has been read.
            Err(PumpError::Reader) => finish(client).await.map_err(|_| PumpError::Writer),
            ended => ended,
        }
    });
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|cx| {
        if !up_done && let Poll::Ready(ended) = up.as_mut().poll(cx) {
            if ended.is_err() {
                return Poll::Ready(());
            }
            up_done = true;
            // The endpoint may still have data to send.
            idle_deadline.shorten(timeouts.tunnel_close);
        }
        if !down_done && let Poll::Ready(ended) = down.as_mut().poll(cx) {
            if ended.is_err() {
                return Poll::Ready(());
            }
            down_done = true;
            // Data from the client does not extend the limit.
            idle_deadline.cap(timeouts.tunnel_close);
        }
        upstream.read_ahead(cx);
        timer.set_at(idle_deadline.until.get());
        let over = (up_done && down_done)
            || timer.poll(cx).is_ready()
            || stop.as_mut().poll(cx).is_ready();
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// When a tunnel has been idle for too long.
struct IdleDeadline {
    idle: Cell<Option<Duration>>,
    until: Cell<Option<Instant>>,
}

impl IdleDeadline {
    fn new(idle: Option<Duration>) -> IdleDeadline {
        IdleDeadline { idle: Cell::new(idle), until: Cell::new(deadline(idle)) }
    }

    fn moved(&self) {
        if let Some(idle) = self.idle.get() {
            self.until.set(deadline(Some(idle)));
        }
    }

    /// Shortens the idle time to `to`.
    fn shorten(&self, to: Option<Duration>) {
        if let Some(to) = to {
            self.idle.set(Some(self.idle.get().map_or(to, |idle| idle.min(to))));
            self.moved();
        }
    }

    /// Ends the tunnel after this time, even with traffic.
    fn cap(&self, after: Option<Duration>) {
        self.shorten(after);
        if after.is_some() {
            self.idle.set(None);
        }
    }
}

/// The side of a direction that failed.
enum PumpError {
    Reader,
    Writer,
}

struct Pump<'a> {
    pool: &'a BufferPool,
    idle_deadline: &'a IdleDeadline,
    moved: &'a Counter,
}

impl Pump<'_> {
    /// Returns `Ok` once the reader has closed and the writer's peer has been told.
    async fn run(
        self,
        reader: &impl Transport,
        writer: &impl Transport,
        buf: &mut Buf,
    ) -> Result<(), PumpError> {
        // The handshake may have left an empty buffer.
        buf.release(self.pool);
        loop {
            if !buf.is_empty() {
                write_all(writer, buf.filled()).await.map_err(|_| PumpError::Writer)?;
                self.moved.add(buf.len() as u64);
                buf.clear();
                buf.release(self.pool);
                self.idle_deadline.moved();
            }
            if fill(reader, buf, self.pool).await.map_err(|_| PumpError::Reader)? == 0 {
                return finish(writer).await.map_err(|_| PumpError::Writer);
            }
        }
    }
}

/// Reads and drops data until the client closes. Closing with unread data would reset the connection and
/// discard what the client has not read (RFC 9112 section 9.6 says the same of HTTP). The tunnel's deadline
/// bounds it.
async fn discard(
    client: &impl Transport,
    buf: &mut Buf,
    pool: &BufferPool,
) -> Result<(), PumpError> {
    loop {
        buf.clear();
        buf.release(pool);
        if fill(client, buf, pool).await.map_err(|_| PumpError::Reader)? == 0 {
            return Ok(());
        }
    }
}

/// Counts a tunnel as open until dropped.
struct TunnelCount(Rc<LocalService>);

impl TunnelCount {
    fn new(service: Rc<LocalService>) -> TunnelCount {
        service.counters.tunnels_open.add(1);
        service.counters.tunnels_total.add(1);
        TunnelCount(service)
    }
}

impl std::ops::Deref for TunnelCount {
    type Target = ServiceCounters;

    fn deref(&self) -> &ServiceCounters {
        &self.0.counters
    }
}

impl Drop for TunnelCount {
    fn drop(&mut self) {
        self.0.counters.tunnels_open.sub(1);
    }
}
