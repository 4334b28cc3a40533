//! Drives one HTTP/2 connection: accepts streams, and ends the connection (RFC 9113 section 6.8) when it is
//! idle, when the gateway stops, or when the client misbehaves.

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

use super::session::{Session, StreamGuard};
use super::settings::{CONNECTION_WINDOW, FIRST_CONNECTION_WINDOW, MAX_ABANDONED, settings};
use super::socket::{Socket, linger};
use super::stream;
use crate::runtime::{Buf, MinRate, Share, Timer, deadline};
use crate::serve::worker::{ConnectionGuard, FIRST_REQUEST};
use crate::transport::{Cork, KEEPALIVE};
use crate::upstream::Transport;

/// How long a client that was sent GOAWAY and has no streams may take to close and to read the rest.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a connection whose preface is in `first`.
pub async fn serve<T: Transport + Unpin>(
    guard: ConnectionGuard,
    address: ClientAddr,
    client: T,
    first: Buf,
) {
    let worker = Rc::clone(&guard.worker);
    let config = &worker.shared.config;
    let closing = Rc::new(MinRate::new(Some(CLOSE_TIMEOUT), config.limits.body_rate));
    // Streams may wait for as long as tunnels.
    client.set_keepalive(&KEEPALIVE);
    let client = Rc::new(client);
    let cork = Rc::<Cork>::default();
    let socket = Socket {
        stream: Rc::clone(&client),
        cork: Rc::clone(&cork),
        first,
        worker: Rc::clone(&worker),
        closing: Rc::clone(&closing),
    };
    let handshake = settings(&config.limits).handshake(socket);
    let head = config.timeouts.head.unwrap_or(Duration::MAX);
    let Ok(Ok(connection)) = timeout(head, handshake).await else { return };
    let driver = Driver {
        session: Session::new(guard, address),
        connection,
        client: Rc::clone(&client),
        cork,
        closing,
        is_closing: false,
        requests: 0,
        window_share: None,
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
    client: Rc<T>,
    cork: Rc<Cork>,
    closing: Rc<MinRate>,
    /// The client has been told to open no more streams.
    is_closing: bool,
    requests: u64,
    /// The budget's share for a large window.
    window_share: Option<Share>,
    /// When a connection without streams times out.
    idle_until: Option<Instant>,
    timer: Timer,
}

enum Event {
    Ended,
    LameDuck,
    Timeout,
    Closed,
}

impl<T: Transport + Unpin> Driver<T> {
    /// Runs to the end of the connection. Returns whether to drain it for a moment.
    async fn run(mut self) -> bool {
        let worker = Rc::clone(&self.session.worker);
        let session = Rc::clone(&self.session);
        let mut lame_duck_started = pin!(worker.lame_duck.raised());
        let mut is_lame_duck = worker.lame_duck.is_raised();
        if is_lame_duck {
            self.lame_duck();
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
                if !is_lame_duck && lame_duck_started.as_mut().poll(cx).is_ready() {
                    is_lame_duck = true;
                    return Poll::Ready(Event::LameDuck);
                }
                self.poll_timer(cx).map(|()| Event::Timeout)
            })
            .await;
            match event {
                Event::Ended => {
                    self.idle_until = deadline(worker.shared.config.timeouts.idle);
                    if session.abandoned.get() > MAX_ABANDONED {
                        // RFC 9113 section 10.5: the client causes work whose results it does not want.
                        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        self.is_closing = true;
                    }
                }
                Event::Timeout if self.is_closing => return false,
                Event::LameDuck => self.lame_duck(),
                Event::Timeout => self.close(),
                Event::Closed => return true,
            }
        }
    }

    /// Accepts new streams and drives all others. Ready at the end of the connection; h2 has reported
    /// errors to the client (RFC 9113 section 5.4.1).
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (cork, client) = (Rc::clone(&self.cork), Rc::clone(&self.client));
        let closing = Rc::clone(&self.closing);
        let sent = |n| closing.moved(n);
        let polled = cork.poll_with(cx, &*client, sent, |cx| self.poll_streams(cx)).map(drop);
        if self.session.streams.get() == 0 {
            cork.rest();
        }
        polled
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
            // Each stream has its own deadlines.
            _ => None,
        };
        self.timer.set_at(at);
        self.timer.poll(cx)
    }

    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let max = self.session.worker.shared.config.limits.requests_per_connection;
        if max.is_some_and(|max| self.requests >= max) {
            // RFC 9113 section 8.7: not processed, so the client may retry elsewhere.
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        self.requests += 1;
        if max.is_some_and(|max| self.requests >= max) {
            let worker = &self.session.worker;
            let limit = &worker.counters.limits.requests_per_connection;
            worker.reached(limit, "requests_per_connection");
            self.close();
        }
        if !request.body().is_end_stream() && request.method() != Method::CONNECT {
            self.widen_window();
        }
        if self.session.worker.lame_duck.is_raised() {
            self.close();
        }
        let guard = StreamGuard::new(&self.session);
        spawn_local(stream::serve(guard, request, respond));
    }

    /// Enlarges the connection's window for uploads, if there is memory. Permanent: a granted window cannot
    /// be revoked.
    fn widen_window(&mut self) {
        if self.window_share.is_none() {
            let more = (CONNECTION_WINDOW - FIRST_CONNECTION_WINDOW) as usize;
            self.window_share = self.session.worker.shared.upload_windows.take(more);
            if self.window_share.is_some() {
                self.connection.set_target_window_size(CONNECTION_WINDOW);
            }
        }
    }

    /// The gateway stops soon. A new client gets time for its first stream: after a GOAWAY many would open
    /// none and reconnect, only to get another GOAWAY.
    fn lame_duck(&mut self) {
        if self.requests > 0 {
            return self.close();
        }
        let first = deadline(Some(FIRST_REQUEST));
        self.idle_until = self.idle_until.map_or(first, |idle| first.map(|first| first.min(idle)));
    }

    /// Lets the client finish its streams, but open no more.
    fn close(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.connection.graceful_shutdown();
        }
    }
}
