//! WebSockets after the handshake: bytes both ways, nothing of them understood. A tunnel on which
//! nothing moves owns two sockets and no buffer.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::worker::{TunnelGuard, Worker};
use crate::observe::{Counter, ServiceCounters};
use crate::runtime::{Buf, BufferPool, Timer, deadline};
use crate::upstream::transport::{SILENT, fill, write_all};
use crate::upstream::{LocalService, OpenUpstream, Stream, Transport};

pub struct Tunnel<T> {
    pub guard: TunnelGuard,
    pub client: T,
    pub upstream: Stream,
    /// Sent by the client together with the handshake.
    pub from_client: Buf,
    /// Sent by the endpoint together with the 101.
    pub from_upstream: Buf,
    pub service: Rc<LocalService>,
    /// Held, so that the connection to the endpoint counts as open.
    pub _open: OpenUpstream,
}

impl<T: Transport> Tunnel<T> {
    pub async fn run(mut self) {
        let worker = Rc::clone(self.guard.worker());
        // Nothing may pass for hours: only so is it noticed that a machine is gone.
        self.client.keep_alive(&SILENT);
        self.upstream.keep_alive(&SILENT);
        let client = (&self.client, &mut self.from_client);
        join(&worker, &self.service, client, (&self.upstream, &mut self.from_upstream)).await;
    }
}

/// Runs until both sides have closed, the client has gone, nothing has moved for too long, or the
/// gateway stops. After one side's end the other has `tunnel_close` to end as well. With each side
/// comes what it has sent already.
pub async fn join(
    worker: &Worker,
    service: &Rc<LocalService>,
    (client, from_client): (&impl Transport, &mut Buf),
    (upstream, from_upstream): (&impl Transport, &mut Buf),
) {
    let counters = Counted::new(Rc::clone(service));
    let timeouts = &worker.shared.config.timeouts;
    let patience = Patience::new(timeouts.tunnel_idle);
    let mut timer = Timer::default();
    let Some(open) = worker.tunnels.open() else { return };
    let mut stop = pin!(open.told_to_close());

    let pump = |moved| Pump { pool: &worker.buffers, patience: &patience, moved };
    let up = pump(&counters.tunnel_received_bytes);
    let down = pump(&counters.tunnel_sent_bytes);
    let mut up = pin!(async {
        match up.run(client, upstream, from_client).await {
            // What the endpoint said before it closed is still on its way to the client, and a
            // client that is not read from may be unable to read.
            Err(Broken::Writer) => {
                patience.shorten(timeouts.tunnel_close);
                discard(client, from_client, &worker.buffers).await
            }
            ended => ended,
        }
    });
    let mut down = pin!(async {
        match down.run(upstream, client, from_upstream).await {
            // An endpoint that resets has ended, too: all that it sent before has been read.
            Err(Broken::Reader) => client.shut_down_writing().map_err(|_| Broken::Writer),
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
            // The endpoint may still have much to say.
            patience.shorten(timeouts.tunnel_close);
        }
        if !down_done && let Poll::Ready(ended) = down.as_mut().poll(cx) {
            if ended.is_err() {
                return Poll::Ready(());
            }
            down_done = true;
            // Whatever the client sends now does not make it longer.
            patience.end(timeouts.tunnel_close);
        }
        timer.set_at(patience.until.get());
        let over = (up_done && down_done)
            || timer.poll(cx).is_ready()
            || stop.as_mut().poll(cx).is_ready();
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// How long a tunnel may go on without anything moving.
struct Patience {
    idle: Cell<Option<Duration>>,
    until: Cell<Option<Instant>>,
}

impl Patience {
    fn new(idle: Option<Duration>) -> Patience {
        Patience { idle: Cell::new(idle), until: Cell::new(deadline(idle)) }
    }

    fn moved(&self) {
        if let Some(idle) = self.idle.get() {
            self.until.set(deadline(Some(idle)));
        }
    }

    /// From now on no longer than this.
    fn shorten(&self, to: Option<Duration>) {
        if let Some(to) = to {
            self.idle.set(Some(self.idle.get().map_or(to, |idle| idle.min(to))));
            self.moved();
        }
    }

    /// The tunnel is over by then at the latest, even if something moves.
    fn end(&self, after: Option<Duration>) {
        self.shorten(after);
        if after.is_some() {
            self.idle.set(None);
        }
    }
}

/// Which side of a direction has failed.
enum Broken {
    Reader,
    Writer,
}

/// One direction.
struct Pump<'a> {
    pool: &'a BufferPool,
    patience: &'a Patience,
    moved: &'a Counter,
}

impl Pump<'_> {
    /// `Ok` once the reader has closed, which the writer's peer has then been told.
    async fn run(
        self,
        reader: &impl Transport,
        writer: &impl Transport,
        buf: &mut Buf,
    ) -> Result<(), Broken> {
        // The handshake may have left one that is empty.
        buf.give_back(self.pool);
        loop {
            if !buf.is_empty() {
                write_all(writer, buf.filled()).await.map_err(|_| Broken::Writer)?;
                self.moved.add(buf.len() as u64);
                buf.clear();
                buf.give_back(self.pool);
                self.patience.moved();
            }
            if fill(reader, buf, self.pool).await.map_err(|_| Broken::Reader)? == 0 {
                return writer.shut_down_writing().map_err(|_| Broken::Writer);
            }
        }
    }
}

/// Reads on until the client closes, and drops what comes: closing with something unread would
/// reset the connection, and cost the client what it has not read yet (RFC 9112 section 9.6 has the
/// same for HTTP). The tunnel's end bounds it.
async fn discard(client: &impl Transport, buf: &mut Buf, pool: &BufferPool) -> Result<(), Broken> {
    loop {
        buf.clear();
        buf.give_back(pool);
        if fill(client, buf, pool).await.map_err(|_| Broken::Reader)? == 0 {
            return Ok(());
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
