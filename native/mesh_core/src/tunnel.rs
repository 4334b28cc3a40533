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
use crate::worker::TunnelGuard;

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
    /// Runs until both sides have closed, one has failed, nothing has moved for too long, or the
    /// gateway stops.
    pub async fn run(mut self) {
        let worker = Rc::clone(self.guard.worker());
        let counters = Counted::new(Rc::clone(&self.service));
        let idle = worker.shared.config.timeouts.tunnel_idle;
        let quiet_until = Cell::new(deadline(idle));
        let mut timer = Timer::default();
        let mut stop = pin!(worker.close_tunnels.notified());
        if worker.tunnels_closing.get() {
            return;
        }

        let (client, upstream) = (&self.client, &self.upstream);
        let pump = |moved| Pump { pool: &worker.buffers, idle, quiet_until: &quiet_until, moved };
        let up = pump(&counters.request_body_bytes);
        let down = pump(&counters.response_body_bytes);
        let mut up = pin!(up.run(client, upstream, &mut self.from_client));
        let mut down = pin!(down.run(upstream, client, &mut self.from_upstream));
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
    async fn run(
        self,
        reader: &impl Socket,
        writer: &impl Socket,
        buf: &mut Buf,
    ) -> io::Result<()> {
        loop {
            if !buf.is_empty() {
                write_all(writer, buf.filled()).await?;
                self.moved.add(buf.len() as u64);
                buf.clear();
                buf.give_back(self.pool);
                self.quiet_until.set(deadline(self.idle));
            }
            if fill(reader, buf, self.pool).await? == 0 {
                return shut_down_writing(writer);
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
