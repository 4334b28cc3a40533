//! One client connection: request after request, until somebody has had enough.

mod ending;
mod refusal;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::account::{Head, InFlight};
use crate::buffer::Buf;
use crate::error::Error;
use crate::exchange::{Exchange, Finished, Outcome};
use crate::h2::{self, Preface};
use crate::http1::head::{self, EmptyLines, Found, HeadScan};
use crate::http1::request::{self, BodyLength, Forwarding, RequestInfo};
use crate::ids::{self, RequestId};
use crate::io::{fill_now, poll_fill, reset_on_close};
use crate::observe::Draft;
use crate::peer::Peer;
use crate::proxy_protocol::Announced;
use crate::tasks::Newcomer;
use crate::timer::{Timer, after, deadline};
use crate::upstream::LocalService;
use crate::worker::{Admission, Worker};

/// When draining begins: how long a connection without a request may still bring one. It may be on
/// its way already, and its client could not tell a closed connection from a lost request.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// A new connection has at least this long to bring its first one: its client may be about to send.
pub const FIRST_REQUEST: Duration = Duration::from_secs(2);

pub use refusal::turn_away;

use refusal::Replied;

pub struct Connection<'t> {
    pub worker: Rc<Worker>,
    pub client: TcpStream,
    pub peer: Peer,
    /// What the client has sent and nobody has taken yet.
    pub input: Buf,
    pub timer: &'t mut Timer,
    /// Of the request under way.
    pub request_id: RequestId,
    /// What is to be recorded of it.
    draft: Option<Draft>,
    /// When the last exchange ended: spares another look at the clock.
    answered: Option<Instant>,
    /// Requests taken so far.
    taken: u64,
    /// The client has said itself that the last of them is the last.
    said_last: bool,
    hears_of_drain: bool,
}

/// A request whose head has been taken.
pub struct Accepted {
    pub info: RequestInfo,
    pub service: Rc<LocalService>,
    /// The head for the endpoint.
    pub head: Vec<u8>,
    pub head_read: Instant,
}

/// A request that goes no further, and as much as is known about it.
struct Refused {
    error: Error,
    info: Option<RequestInfo>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused { error, info: None }
    }
}

/// How the connection goes on.
enum Next {
    Request,
    /// Close at once, with a reset if that has been asked for.
    Close,
    /// Say that nothing more will come, and close after reading on for a moment.
    Linger,
}

/// Serves a connection to its end. The timer is its task's.
pub async fn serve(newcomer: Box<Newcomer>, timer: &mut Timer) {
    let Newcomer { mut open, client, address } = *newcomer;
    let worker = Rc::clone(&open.worker);
    let mut connection = Connection {
        peer: Peer::new(address, &worker.shared.config.trusted_proxies),
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
    fill_now(&connection.client, &mut connection.input, &worker.buffers);
    if let Err(error) = connection.read_announcement().await {
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
            Ok(Some(accepted)) => match connection.exchange(accepted).await {
                Ok(finished) if finished.upgraded.is_some() => {
                    connection.into_tunnel(open, finished);
                    return;
                }
                Ok(finished) if finished.keep_alive => Next::Request,
                Ok(finished) => connection.last(finished.request_whole),
                Err(next) => next,
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

impl Connection<'_> {
    /// Waits, without a buffer, until the client sends something, and reads it. `false` ends the
    /// connection.
    async fn wait_for_request(&mut self, mut drain: Pin<&mut Notified<'_>>) -> bool {
        let answered = self.answered.take();
        let mut empty_lines = EmptyLines::default();
        if self.begins_request(&mut empty_lines) {
            return true;
        }
        let mut last = false;
        let since = answered.unwrap_or_else(Instant::now);
        let idle = self.worker.shared.config.timeouts.idle;
        self.timer.set_at(idle.and_then(|idle| after(since, idle)));
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
            // Asked once, this task will be woken; after that the flag says it all.
            let asked = std::mem::replace(&mut self.hears_of_drain, true);
            let draining =
                self.worker.draining.get() || (!asked && drain.as_mut().poll(cx).is_ready());
            if draining && !std::mem::replace(&mut last, true) {
                let first = after(since, FIRST_REQUEST).filter(|_| self.taken == 0);
                self.timer.set_at(deadline(Some(LAST_REQUEST)).max(first));
            }
            self.timer.poll(cx).map(|()| false)
        })
        .await
    }

    /// Whether what has come is the beginning of a request, and not only empty lines before one:
    /// these are dropped, and their buffer is given back.
    #[inline]
    fn begins_request(&mut self, empty_lines: &mut EmptyLines) -> bool {
        match self.input.filled().first() {
            Some(b'\r') => self.skip_empty_lines(empty_lines),
            Some(_) => true,
            None => {
                self.input.give_back(&self.worker.buffers);
                false
            }
        }
    }

    #[cold]
    fn skip_empty_lines(&mut self, empty_lines: &mut EmptyLines) -> bool {
        let (skipped, begins) = empty_lines.skip(self.input.filled());
        self.input.consume(skipped);
        self.input.give_back(&self.worker.buffers);
        begins
    }

    /// Reads the PROXY protocol header with which a trusted peer begins, and takes the client that
    /// it announces for the peer from now on.
    async fn read_announcement(&mut self) -> Result<(), Error> {
        let worker = Rc::clone(&self.worker);
        let config = &worker.shared.config;
        let Some(version) = config.proxy_protocol.filter(|_| self.peer.trusted) else {
            return Ok(());
        };
        self.timer.set(config.timeouts.head);
        loop {
            match version.read(self.input.filled()).map_err(Error::BadRequest)? {
                Announced::Whole { size, client, tls } => {
                    if let Some(address) = client {
                        self.peer = Peer::new(address, &config.trusted_proxies);
                    }
                    self.peer.tls = tls;
                    self.input.consume(size);
                    return Ok(());
                }
                Announced::Partial if self.read_more().await? == 0 => {
                    return Err(Error::ClientGone);
                }
                Announced::Partial => {}
            }
        }
    }

    /// Whether the client begins with the preface of HTTP/2. Nothing of HTTP/1.1 begins with "PRI "
    /// (RFC 9113 section 3.4).
    async fn speaks_http2(&mut self) -> Result<bool, Error> {
        self.timer.set(self.worker.shared.config.timeouts.head);
        loop {
            match Preface::of(self.input.filled()) {
                Preface::No => return Ok(false),
                Preface::Whole => return Ok(true),
                Preface::Partial if self.read_more().await? == 0 => return Err(Error::ClientGone),
                Preface::Partial => {}
            }
        }
    }

    /// Reads until there is a whole head, and takes it. `None`: the client closed before it began.
    async fn read_head(&mut self) -> Result<Option<Accepted>, Refused> {
        let worker = Rc::clone(&self.worker);
        let limits = &worker.shared.config.limits;
        let head_timeout = worker.shared.config.timeouts.head;
        let most = limits.head_bytes;
        let mut scan = HeadScan::default();
        let mut looked = false;
        self.timer.set(None);
        self.request_id = RequestId::None;
        self.draft = None;
        loop {
            if !self.input.is_empty() {
                // Mostly a head comes whole, and the parser finds its end.
                if !looked && let Some(accepted) = self.accept()? {
                    return Ok(Some(accepted));
                }
                match scan.find(self.input.filled()) {
                    Found::Whole(size) if size > most => return Err(self.too_long().into()),
                    Found::Whole(_) => {
                        let malformed = Error::BadRequest("the request head is malformed");
                        return self.accept()?.ok_or(malformed.into()).map(Some);
                    }
                    Found::BareLf => {
                        return Err(Error::BadRequest("a line does not end with CRLF").into());
                    }
                    Found::Partial { new_line } => {
                        // What can be told to be wrong already is, so that nonsense (TLS, say) is
                        // not waited on. Once per line: a trickle of bytes must not cost a parse each.
                        if new_line && looked {
                            let mut storage = head::storage();
                            request::parse(self.input.filled(), &mut storage, limits)?;
                        }
                        if self.input.len() >= most {
                            return Err(self.too_long().into());
                        }
                        if !looked {
                            self.timer.set(head_timeout);
                        }
                        looked = true;
                        self.input.make_room(most);
                    }
                }
            }
            match self.read_more().await? {
                0 if self.input.is_empty() => return Ok(None),
                0 => return Err(Error::ClientGone.into()),
                _ => {}
            }
        }
    }

    /// Which part of a head that is too long makes it so.
    fn too_long(&self) -> Error {
        let most = self.worker.shared.config.limits.head_bytes;
        match memchr::memchr(b'\n', self.input.filled()) {
            Some(end) if end < most => Error::HeadTooLong,
            _ => Error::TargetTooLong,
        }
    }

    /// Reads what there is, for as long as the timer allows. 0: the client has closed.
    async fn read_more(&mut self) -> Result<usize, Error> {
        poll_fn(|cx| {
            let filled = poll_fill(cx, &self.client, &mut self.input, &self.worker.buffers);
            match filled {
                Poll::Ready(read) => Poll::Ready(read.map_err(|_| Error::ClientGone)),
                Poll::Pending => self.timer.poll(cx).map(|()| Err(Error::HeadTimeout)),
            }
        })
        .await
    }

    /// Checks the head, finds the service, and writes the head for the endpoint. `None`: the head
    /// is not whole.
    fn accept(&mut self) -> Result<Option<Accepted>, Refused> {
        let shared = &self.worker.shared;
        let limits = &shared.config.limits;
        let mut storage = head::storage();
        let Some(request) = request::parse(self.input.filled(), &mut storage, limits)? else {
            return Ok(None);
        };
        let size = request.size();
        if size > limits.head_bytes {
            return Err(self.too_long().into());
        }
        #[cfg(test)]
        assert_ne!(request.method(), "PANIC", "a test asks for it");
        let head_read = Instant::now();
        let mut info = request.info;
        self.said_last = !info.keep_alive;
        // The last one that this connection may bring is told so in its response.
        self.taken += 1;
        if limits.requests_per_connection.is_some_and(|most| self.taken >= most) {
            info.keep_alive = false;
            let limit = &self.worker.counters.limits.requests_per_connection;
            self.worker.reached(limit, "requests_per_connection");
        }
        if shared.config.request_id {
            self.request_id = match request.request_id() {
                Some(given) => RequestId::Given(given.into()),
                None => RequestId::Made(self.worker.ids.id()),
            };
        }
        let begins_trace = shared.config.start_trace && request.trace_id().is_none();
        let traceparent = begins_trace.then(|| ids::traceparent(&self.worker.ids));
        let head = || Head::of(&request, traceparent.as_ref());
        self.draft = self.worker.draft(&self.peer, head_read, head);
        let refused = |error| Refused { error, info: Some(info) };
        if let (BodyLength::Length(length), Some(most)) = (info.body, limits.body_bytes)
            && length > most
        {
            return Err(refused(Error::BodyTooLong));
        }
        if request.is_https() && !self.peer.speaks_https() {
            return Err(refused(Error::Misdirected));
        }
        if request.max_forwards == Some(0) {
            // RFC 9110 section 7.6.2: it goes no further, so this is its final recipient.
            return Err(refused(Error::NotImplemented("Max-Forwards ends here")));
        }
        let Some((service, default_host)) = self.worker.routes.find(request.host.as_ref()) else {
            let host = request.host.as_ref().map_or("", |h| h.as_str()).to_string();
            return Err(refused(Error::UnknownService(host)));
        };
        let forwarding = Forwarding {
            peer: &self.peer,
            listener_port: shared.port,
            default_host: default_host.as_deref().unwrap_or(""),
            request_id: &self.request_id,
            traceparent,
        };
        let mut head = self.worker.take_head();
        request.write(&forwarding, &mut head);
        self.input.consume(size);
        // An answer can take its time, and whoever waits for it needs no buffer.
        self.input.give_back(&self.worker.buffers);
        Ok(Some(Accepted { info, service, head, head_read }))
    }

    /// Forwards one request. An error is how the connection goes on after it has been dealt with.
    async fn exchange(&mut self, accepted: Accepted) -> Result<Finished, Next> {
        let service = Rc::clone(&accepted.service);
        let counters = &service.counters;
        let (info, head_read) = (accepted.info, accepted.head_read);
        let in_flight = InFlight::new(&service, info.method);
        let mut exchange = Exchange::new(self, accepted);
        let result = exchange.run().await;
        let Outcome { ended, request_whole } = exchange.finish();
        self.answered = after(head_read, Duration::from_nanos(ended.took.total));
        ended.took.record(&counters.latency);
        drop(in_flight);
        let started = ended.status > 0;
        if started {
            counters.response(ended.status);
        }
        let draft = self.draft.take();
        let error = match result {
            Ok(finished) => {
                self.worker.record(draft, &self.request_id, Some(&service), ended);
                return Ok(finished);
            }
            Err(error) => error,
        };
        self.worker.failed(&service, &error);
        if started {
            // What the client has is not whole, and it must be able to tell.
            reset_on_close(&self.client);
            self.worker.record(draft, &self.request_id, Some(&service), ended.failed(&error));
            return Err(Next::Close);
        }
        let Replied { next, status, sent } = self.reply(&error, Some(info), request_whole).await;
        counters.answered(status, sent);
        let ended = ended.answered(status, sent).failed(&error);
        self.worker.record(draft, &self.request_id, Some(&service), ended);
        Err(next)
    }
}
