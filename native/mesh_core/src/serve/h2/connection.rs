//! One HTTP/2 connection: takes its streams, and sees to its end (RFC 9113 section 6.8): when
//! nothing has been asked for a while, when the gateway stops, when the client is a nuisance.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::server::{Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::{Method, Request};
use mesh_wire::client_addr::ClientAddr;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use super::session::{Running, Session};
use super::settings::{CONNECTION_WINDOW, FIRST_CONNECTION_WINDOW, MAX_ABANDONED, settings};
use super::socket::{Socket, linger};
use super::stream;
use crate::runtime::{Buf, MinRate, Share, Timer, deadline};
use crate::serve::worker::{FIRST_REQUEST, Open};
use crate::upstream::Transport;
use crate::upstream::transport::SILENT;

/// Patience with a client that has been told to go and has nothing under way: to answer, and to
/// take what is left for it.
const CLOSING: Duration = Duration::from_secs(5);

/// Serves a connection of which the preface is in `first`.
pub async fn serve<T: Transport + Unpin>(open: Open, address: ClientAddr, client: T, first: Buf) {
    let worker = Rc::clone(&open.worker);
    let config = &worker.shared.config;
    let closing = Rc::new(MinRate::new(Some(CLOSING), config.limits.body_rate));
    // Its streams may wait for as long as those of a tunnel.
    client.keep_alive(&SILENT);
    let client = Rc::new(client);
    let socket = Socket {
        stream: Rc::clone(&client),
        first,
        worker: Rc::clone(&worker),
        closing: Rc::clone(&closing),
    };
    let handshake = settings(&config.limits).handshake(socket);
    let head = config.timeouts.head.unwrap_or(Duration::MAX);
    let Ok(Ok(connection)) = timeout(head, handshake).await else { return };
    let driver = Driver {
        session: Session::new(open, address),
        connection,
        closing,
        is_closing: false,
        taken: 0,
        wide: None,
        idle_until: deadline(config.timeouts.idle),
        timer: Timer::default(),
    };
    if driver.run().await {
        linger(&*client).await;
    }
}

struct Driver<T> {
    session: Rc<Session>,
    connection: Connection<Socket<T>, Bytes>,
    closing: Rc<MinRate>,
    /// The client has been told to open no more streams.
    is_closing: bool,
    /// Requests taken so far.
    taken: u64,
    /// Of the budget, for a large window.
    wide: Option<Share>,
    /// When a connection without streams has been so for too long.
    idle_until: Option<Instant>,
    timer: Timer,
}

enum Event {
    /// A stream has ended.
    Ended,
    Retire,
    Timeout,
    Closed,
}

impl<T: Transport + Unpin> Driver<T> {
    /// Runs to the end of the connection; whether it is worth reading on for a moment.
    async fn run(mut self) -> bool {
        let worker = Rc::clone(&self.session.worker);
        let session = Rc::clone(&self.session);
        let mut retire = pin!(worker.retire.notified());
        let mut retired = worker.retiring.get();
        if retired {
            self.retire();
        }
        loop {
            let mut ended = pin!(session.ended.notified());
            let event = poll_fn(|cx| {
                if self.poll_connection(cx).is_ready() {
                    return Poll::Ready(Event::Closed);
                }
                if ended.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Ended);
                }
                if !retired && retire.as_mut().poll(cx).is_ready() {
                    retired = true;
                    return Poll::Ready(Event::Retire);
                }
                self.poll_timer(cx).map(|()| Event::Timeout)
            })
            .await;
            match event {
                Event::Ended => {
                    self.idle_until = deadline(worker.shared.config.timeouts.idle);
                    if session.abandoned.get() > MAX_ABANDONED {
                        // RFC 9113 section 10.5: it makes work that it does not want done.
                        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        self.is_closing = true;
                    }
                }
                Event::Timeout if self.is_closing => return false,
                Event::Retire => self.retire(),
                Event::Timeout => self.close(),
                Event::Closed => return true,
            }
        }
    }

    /// Begins the streams that have come, and moves all the others. Ready at the end of the
    /// connection; what was wrong, the client has been told (RFC 9113 section 5.4.1).
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok((request, respond))) = ready!(self.connection.poll_accept(cx)) {
            self.begin(request, respond);
        }
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = match (self.session.streams.get(), self.is_closing) {
            (0, true) => {
                self.closing.waiting();
                self.closing.deadline()
            }
            (0, false) => self.idle_until,
            // Each of them has its own patience.
            _ => None,
        };
        self.timer.set_at(at);
        self.timer.poll(cx)
    }

    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let most = self.session.worker.shared.config.limits.requests_per_connection;
        if most.is_some_and(|most| self.taken >= most) {
            // RFC 9113 section 8.7: not processed at all, so that it may be sent elsewhere.
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        self.taken += 1;
        if most.is_some_and(|most| self.taken >= most) {
            let worker = &self.session.worker;
            let limit = &worker.counters.limits.requests_per_connection;
            worker.reached(limit, "requests_per_connection");
            self.close();
        }
        if !request.body().is_end_stream() && request.method() != Method::CONNECT {
            self.widen();
        }
        if self.session.worker.retiring.get() {
            self.close();
        }
        let running = Running::new(&self.session);
        spawn_local(stream::serve(running, request, respond));
    }

    /// Takes more of uploads, if there is memory for it. For good: what a client has been granted
    /// cannot be taken back.
    fn widen(&mut self) {
        if self.wide.is_none() {
            let more = (CONNECTION_WINDOW - FIRST_CONNECTION_WINDOW) as usize;
            self.wide = self.session.worker.shared.upload_windows.take(more);
            if self.wide.is_some() {
                self.connection.set_target_window_size(CONNECTION_WINDOW);
            }
        }
    }

    /// The gateway stops soon. A new client is given time for a first stream: many open none after a
    /// GOAWAY, and it would come back to hear the same.
    fn retire(&mut self) {
        if self.taken > 0 {
            return self.close();
        }
        let first = deadline(Some(FIRST_REQUEST));
        self.idle_until = self.idle_until.map_or(first, |idle| first.map(|first| first.min(idle)));
    }

    /// Lets the client open no more streams, and finish those it has.
    fn close(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.connection.graceful_shutdown();
        }
    }
}
