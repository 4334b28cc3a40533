//! WebSockets after the handshake: bytes both ways, nothing of them understood. A tunnel on which
//! nothing moves owns two sockets and no buffer.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::buffer::{Buf, BufferPool};
use crate::io::{Socket, Stream, fill, shut_down_writing, write_all};
use crate::stats::ServiceCounters;
use crate::timer::{Timer, deadline};
use crate::upstream::{LocalService, OpenUpstream};
use crate::worker::{TunnelGuard, Worker};

pub struct Tunnel {
    pub guard: TunnelGuard,
    pub client: TcpStream,
    pub upstream: Stream,
    /// Sent by the client together with the handshake.
    pub from_client: Buf,
    /// Sent by the endpoint together with the 101.
    pub from_upstream: Buf,
    pub service: Rc<LocalService>,
    /// Held, so that the connection to the endpoint counts as open.
    pub _counted: OpenUpstream,
}

impl Tunnel {
    pub async fn run(mut self) {
        let worker = Rc::clone(self.guard.worker());
        let client = (&self.client, &mut self.from_client);
        join(&worker, &self.service, client, (&self.upstream, &mut self.from_upstream)).await;
    }
}

/// One side of a tunnel. Every socket is one.
pub trait Side {
    /// Reads what there is, as [`fill`] does.
    async fn fill(&self, buf: &mut Buf, pool: &BufferPool) -> io::Result<usize>;

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()>;

    fn shut_down_writing(&self) -> io::Result<()>;
}

impl<S: Socket> Side for S {
    async fn fill(&self, buf: &mut Buf, pool: &BufferPool) -> io::Result<usize> {
        fill(self, buf, pool).await
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        write_all(self, bytes).await
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        shut_down_writing(self)
    }
}

/// Runs until both sides have closed, one has failed, nothing has moved for too long, or the
/// gateway stops. With each side comes what it has sent already.
pub async fn join(
    worker: &Worker,
    service: &Rc<LocalService>,
    (client, from_client): (&impl Side, &mut Buf),
    (upstream, from_upstream): (&impl Side, &mut Buf),
) {
    let counters = Counted::new(Rc::clone(service));
    let idle = worker.shared.config.timeouts.tunnel_idle;
    let quiet_until = Cell::new(deadline(idle));
    let mut timer = Timer::default();
    let mut stop = pin!(worker.close_tunnels.notified());
    if worker.tunnels_closing.get() {
        return;
    }

    let pump = |moved| Pump { pool: &worker.buffers, idle, quiet_until: &quiet_until, moved };
    let up = pump(&counters.tunnel_received_bytes);
    let down = pump(&counters.tunnel_sent_bytes);
    let mut up = pin!(up.run(client, upstream, from_client));
    let mut down = pin!(down.run(upstream, client, from_upstream));
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|cx| {
        if !up_done {
            match up.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => up_done = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        if !down_done {
            match down.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => down_done = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        timer.set_at(quiet_until.get());
        let over = (up_done && down_done)
            || timer.poll(cx).is_ready()
            || stop.as_mut().poll(cx).is_ready();
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// One direction.
struct Pump<'a> {
    pool: &'a BufferPool,
    idle: Option<Duration>,
    quiet_until: &'a Cell<Option<Instant>>,
    moved: &'a crate::stats::Counter,
}

impl Pump<'_> {
    /// `Ok` once the reader has closed, which the writer's peer has then been told.
    async fn run(self, reader: &impl Side, writer: &impl Side, buf: &mut Buf) -> io::Result<()> {
        // The handshake may have left one that is empty.
        buf.give_back(self.pool);
        loop {
            if !buf.is_empty() {
                writer.write_all(buf.filled()).await?;
                self.moved.add(buf.len() as u64);
                buf.clear();
                buf.give_back(self.pool);
                self.quiet_until.set(deadline(self.idle));
            }
            if reader.fill(buf, self.pool).await? == 0 {
                return writer.shut_down_writing();
            }
        }
    }
}

/// Counts a tunnel as open while it lives.
struct Counted(Rc<LocalService>);

impl Counted {
    fn new(service: Rc<LocalService>) -> Counted {
        service.counters.tunnels_open.add(1);
        service.counters.tunnels_total.add(1);
        Counted(service)
    }
}

impl std::ops::Deref for Counted {
    type Target = ServiceCounters;

    fn deref(&self) -> &ServiceCounters {
        &self.0.counters
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.tunnels_open.sub(1);
    }
}
