//! An HTTP/1.1 client connection, and its wait for the next request.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mesh_wire::client_addr::ClientAddr;
use mesh_wire::head::EmptyLines;
use mesh_wire::ids::RequestId;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::Error;
use crate::observe::Draft;
use crate::runtime::{Buf, Timer, deadline};
use crate::serve::worker::{FIRST_REQUEST, Worker};
use crate::transport::{Transport, poll_fill};

/// How long a connection may still bring a request when draining begins. One may be on its way, and its
/// client could not tell a closed connection from a lost request.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

pub struct Http1Connection<'t, T> {
    pub worker: Rc<Worker>,
    pub client: T,
    pub client_addr: ClientAddr,
    /// Received bytes that have not been processed.
    pub input: Buf,
    pub timer: &'t mut Timer,
    pub request_id: RequestId,
    pub draft: Option<Draft>,
    /// When the last exchange ended. Saves a read of the clock.
    pub answered: Option<Instant>,
    pub requests: u64,
    /// The client's last request asked to close the connection.
    pub client_asked_close: bool,
    pub watches_drain: bool,
    /// The peer waits for word that an endpoint has been found.
    pub asks_to_go: bool,
}

pub enum Next {
    Request,
    /// Close at once, with a reset if that has been set.
    Close,
    /// Close the sending side, then drain for a moment before closing.
    Linger,
}

impl<'t, T: Transport> Http1Connection<'t, T> {
    pub fn new(worker: &Rc<Worker>, client: T, address: SocketAddr, timer: &'t mut Timer) -> Self {
        Http1Connection {
            client_addr: ClientAddr::new(address, &worker.shared.config.trusted_proxies),
            client,
            input: Buf::new(),
            timer,
            request_id: RequestId::None,
            draft: None,
            answered: None,
            requests: 0,
            client_asked_close: false,
            watches_drain: false,
            asks_to_go: false,
            worker: Rc::clone(worker),
        }
    }

    pub fn config(&self) -> &Config {
        self.worker.shared.config_for(T::IS_PEER)
    }
    /// Waits for the client's next bytes without a buffer, and reads them. Returns `false` if the
    /// connection must end.
    pub async fn wait_for_request(&mut self, mut drain: Pin<&mut Notified<'_>>) -> bool {
        let answered = self.answered.take();
        let mut empty_lines = EmptyLines::default();
        if self.begins_request(&mut empty_lines) {
            return true;
        }
        let mut last = false;
        let since = answered.unwrap_or_else(Instant::now);
        let idle = self.config().timeouts.idle;
        self.timer.set_at(idle.and_then(|idle| since.checked_add(idle)));
        poll_fn(|cx| {
            while let Poll::Ready(read) =
                poll_fill(cx, &self.client, &mut self.input, &self.worker.buffers)
            {
                if !matches!(read, Ok(n) if n > 0) {
                    return Poll::Ready(false);
                }
                if self.begins_request(&mut empty_lines) {
                    return Poll::Ready(true);
                }
            }
            // Polled once, the notification will wake this task. Afterwards the flag suffices.
            let asked = std::mem::replace(&mut self.watches_drain, true);
            let draining =
                self.worker.draining.is_raised() || (!asked && drain.as_mut().poll(cx).is_ready());
            if draining && T::IS_PEER {
                // A request may be on its way. Instead of time it gets a refusal.
                return Poll::Ready(false);
            }
            if draining && !std::mem::replace(&mut last, true) {
                let first = since.checked_add(FIRST_REQUEST).filter(|_| self.requests == 0);
                self.timer.set_at(deadline(Some(DRAIN_GRACE)).max(first));
            }
            self.timer.poll(cx).map(|()| false)
        })
        .await
    }

    /// Whether a request begins. Drops empty lines before it, and releases their buffer.
    #[inline]
    fn begins_request(&mut self, empty_lines: &mut EmptyLines) -> bool {
        match self.input.filled().first() {
            Some(b'\r') => self.skip_empty_lines(empty_lines),
            Some(_) => true,
            None => {
                self.input.release(&self.worker.buffers);
                false
            }
        }
    }

    #[cold]
    fn skip_empty_lines(&mut self, empty_lines: &mut EmptyLines) -> bool {
        let (skipped, begins) = empty_lines.skip(self.input.filled());
        self.input.consume(skipped);
        self.input.release(&self.worker.buffers);
        begins
    }

    /// Reads more, until the timer fires. Returns 0 if the client has closed.
    pub async fn read_more(&mut self) -> Result<usize, Error> {
        poll_fn(|cx| {
            let filled = poll_fill(cx, &self.client, &mut self.input, &self.worker.buffers);
            match filled {
                Poll::Ready(read) => Poll::Ready(read.map_err(|_| Error::ClientGone)),
                Poll::Pending => self.timer.poll(cx).map(|()| Err(Error::HeadTimeout)),
            }
        })
        .await
    }
}
