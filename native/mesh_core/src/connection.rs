//! One client connection: request after request, until somebody has had enough.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::task::spawn_local;

use crate::buffer::Buf;
use crate::error::{Error, Side};
use crate::exchange::{self, Exchange, Finished};
use crate::http1::head::{self, Found, HeadScan};
use crate::http1::request::{self, BodyLength, Forwarding, Method, RequestInfo};
use crate::io::{poll_fill, reset_on_close, shut_down_writing, write_all};
use crate::peer::Peer;
use crate::proxy_protocol::Announced;
use crate::reply::{self, Framing, Prefer};
use crate::timer::Timer;
use crate::tunnel::Tunnel;
use crate::upstream::LocalService;
use crate::worker::{Open, TunnelGuard, Worker};

/// After a last response with the client still sending: how long to go on reading, so that it gets
/// to see the response before a reset would discard it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_MOST: Duration = Duration::from_secs(10);

pub struct Connection {
    pub worker: Rc<Worker>,
    pub client: TcpStream,
    pub peer: Peer,
    /// What the client has sent and nobody has taken yet.
    pub input: Buf,
    pub timer: Timer,
    /// Requests taken so far.
    taken: u64,
    hears_of_drain: bool,
}

/// A request whose head has been taken.
pub struct Accepted {
    pub info: RequestInfo,
    pub service: Rc<LocalService>,
    /// The head for the endpoint.
    pub head: Vec<u8>,
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
    Close,
    /// Close after reading on for a moment.
    Linger,
}

/// Serves a connection to its end.
pub async fn serve(open: Open, client: TcpStream, address: SocketAddr) {
    let worker = Rc::clone(&open.worker);
    let mut connection = Connection {
        peer: Peer::new(address, &worker.shared.config.trusted_proxies),
        client,
        input: Buf::new(),
        timer: Timer::default(),
        taken: 0,
        hears_of_drain: false,
        worker: Rc::clone(&worker),
    };
    if let Err(error) = connection.read_announcement().await {
        let next = connection.refuse(error.into()).await;
        return connection.end(next).await;
    }
    let Some(_admitted) = worker.shared.clients.admit(connection.peer.ip) else {
        worker.counters.connections_refused.add(1);
        let next = connection.reply(&Error::TooManyConnections, None, false).await;
        return connection.end(next).await;
    };
    let mut drain = pin!(worker.drain.notified());
    while connection.wait_for_request(drain.as_mut()).await {
        let next = match connection.read_head().await {
            Ok(None) => return,
            Ok(Some(accepted)) => match connection.exchange(accepted).await {
                Ok(finished) if finished.upgraded.is_some() => {
                    connection.into_tunnel(open, finished);
                    return;
                }
                Ok(finished) if finished.keep_alive => Next::Request,
                Ok(finished) if finished.request_whole => Next::Close,
                Ok(_) => Next::Linger,
                Err(next) => next,
            },
            Err(refused) => connection.refuse(refused).await,
        };
        if !matches!(next, Next::Request) {
            return connection.end(next).await;
        }
    }
}

/// Answers a client that there is no room for it. Best effort: it is not waited for.
pub fn turn_away(stream: TcpStream) {
    if let Some(answer) = Error::Overloaded.answer() {
        let mut out = Vec::new();
        let framing = Framing { keep_alive: false, head_only: false, minor: 1 };
        reply::write(&answer, Prefer::Text, framing, &mut out);
        let _ = stream.try_write(&out);
    }
}

impl Connection {
    /// Waits, without a buffer, until the client sends something, and reads it. `false` ends the
    /// connection.
    async fn wait_for_request(&mut self, mut drain: Pin<&mut Notified<'_>>) -> bool {
        if !self.input.is_empty() {
            return true;
        }
        self.input.give_back(&self.worker.buffers);
        if self.worker.draining.get() {
            return false;
        }
        self.timer.set(self.worker.shared.config.timeouts.idle);
        poll_fn(|cx| {
            let filled = poll_fill(cx, &self.client, &mut self.input, &self.worker.buffers);
            if let Poll::Ready(read) = filled {
                return Poll::Ready(matches!(read, Ok(n) if n > 0));
            }
            // Asked once, this task will be woken; after that the flag says it all.
            let asked = std::mem::replace(&mut self.hears_of_drain, true);
            let over = self.worker.draining.get()
                || (!asked && drain.as_mut().poll(cx).is_ready())
                || self.timer.poll(cx).is_ready();
            if over { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
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
                Announced::Whole { size, client } => {
                    if let Some(address) = client {
                        self.peer = Peer::new(address, &config.trusted_proxies);
                    }
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

    /// Reads until there is a whole head, and takes it. `None`: the client closed before it began.
    async fn read_head(&mut self) -> Result<Option<Accepted>, Refused> {
        let worker = Rc::clone(&self.worker);
        let limits = &worker.shared.config.limits;
        let head_timeout = worker.shared.config.timeouts.head;
        let most = limits.head_bytes;
        let mut scan = HeadScan::default();
        let mut looked = false;
        self.timer.set(None);
        loop {
            if !self.input.is_empty() {
                // Mostly a head comes whole, and the parser finds its end.
                if !looked && let Some(accepted) = self.accept()? {
                    return Ok(Some(accepted));
                }
                match scan.find(self.input.filled()) {
                    Found::Whole(size) if size > most => return Err(Error::HeadTooLong.into()),
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
                            let one_line = !self.input.filled().contains(&b'\n');
                            let error =
                                if one_line { Error::TargetTooLong } else { Error::HeadTooLong };
                            return Err(error.into());
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
            return Err(Error::HeadTooLong.into());
        }
        let mut info = request.info;
        // The last one that this connection may bring is told so in its response.
        info.keep_alive &= limits.requests_per_connection.is_none_or(|most| self.taken + 1 < most);
        let refused = |error| Refused { error, info: Some(info) };
        if let (BodyLength::Length(length), Some(most)) = (info.body, limits.body_bytes)
            && length > most
        {
            return Err(refused(Error::BodyTooLong));
        }
        if request.max_forwards == Some(0) {
            // RFC 9110 section 7.6.2: it goes no further, so this is its final recipient.
            return Err(refused(Error::NotImplemented("Max-Forwards ends here")));
        }
        let Some(service) = self.worker.routes.find(request.host.as_ref()) else {
            let host = request.host.as_ref().map_or("", |h| h.as_str()).to_string();
            return Err(refused(Error::UnknownService(host)));
        };
        let default_host =
            if request.host.is_none() { self.worker.routes.default_host() } else { String::new() };
        let forwarding = Forwarding {
            peer: &self.peer,
            listener_port: shared.port,
            default_host: &default_host,
        };
        let mut head = self.worker.take_head();
        request.write(&forwarding, &mut head);
        self.input.consume(size);
        self.taken += 1;
        Ok(Some(Accepted { info, service, head }))
    }

    /// Forwards one request. An error is how the connection goes on after it has been dealt with.
    async fn exchange(&mut self, accepted: Accepted) -> Result<Finished, Next> {
        let counters = &Rc::clone(&accepted.service).counters;
        let info = accepted.info;
        counters.requests.add(1);
        counters.in_flight.add(1);
        let mut exchange = Exchange::new(self, accepted);
        let result = exchange.run().await;
        let exchange::Outcome { response_started, request_whole } = exchange.finish();
        counters.in_flight.sub(1);
        match result {
            Ok(finished) => {
                counters.response(finished.status);
                Ok(finished)
            }
            Err(error) => {
                match error.side() {
                    Side::Downstream => counters.downstream_errors.add(1),
                    Side::Upstream => counters.upstream_errors.add(1),
                    Side::Gateway => {}
                }
                if response_started {
                    // What the client has is not whole, and it must be able to tell.
                    reset_on_close(&self.client);
                    return Err(Next::Close);
                }
                if let Some(answer) = error.answer() {
                    counters.response(answer.status);
                }
                Err(self.reply(&error, Some(info), request_whole).await)
            }
        }
    }

    async fn refuse(&mut self, refused: Refused) -> Next {
        let counters = &self.worker.counters;
        match refused.error {
            Error::UnknownService(_) => counters.requests_unrouted.add(1),
            _ => counters.requests_refused.add(1),
        }
        // The head has been left where it is: whatever comes next would be taken for it.
        let whole = match refused.info {
            Some(info) if info.body == BodyLength::None => self.skip_head(),
            _ => false,
        };
        self.reply(&refused.error, refused.info, whole).await
    }

    /// Drops the head of a well-formed request that was refused.
    fn skip_head(&mut self) -> bool {
        match HeadScan::default().find(self.input.filled()) {
            Found::Whole(size) => {
                self.input.consume(size);
                true
            }
            _ => false,
        }
    }

    /// Answers in the gateway's own name.
    async fn reply(&mut self, error: &Error, info: Option<RequestInfo>, whole: bool) -> Next {
        let Some(answer) = error.answer() else { return Next::Close };
        let framing = Framing {
            keep_alive: whole && info.is_some_and(|i| i.keep_alive) && !self.worker.draining.get(),
            // A head that is malformed further on still says what must not be answered with a body.
            head_only: info
                .map_or(self.input.filled().starts_with(b"HEAD "), |i| i.method == Method::Head),
            minor: info.map_or(1, |i| i.minor),
        };
        let mut out = self.worker.take_head();
        reply::write(&answer, info.map_or(Prefer::Text, |i| i.prefer), framing, &mut out);
        let idle = self.worker.shared.config.timeouts.idle;
        self.timer.set(idle);
        let written = {
            let mut write = pin!(write_all(&self.client, &out));
            let timer = &mut self.timer;
            poll_fn(|cx| match write.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending => timer.poll(cx).map(|()| false),
            })
            .await
        };
        self.worker.give_head(out);
        match (written, framing.keep_alive) {
            (false, _) => Next::Close,
            (true, true) => Next::Request,
            (true, false) if whole => Next::Close,
            (true, false) => Next::Linger,
        }
    }

    async fn end(self, next: Next) {
        if let Next::Linger = next {
            self.linger().await;
        }
    }

    /// Says that nothing more will come, and reads what still does, for a moment.
    async fn linger(mut self) {
        if shut_down_writing(&self.client).is_err() {
            return;
        }
        let mut most = Timer::default();
        most.set(Some(LINGER_MOST));
        loop {
            self.input.clear();
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

    fn into_tunnel(self, open: Open, finished: Finished) {
        let Some(upgraded) = finished.upgraded else { return };
        let tunnel = Tunnel {
            guard: TunnelGuard::new(open),
            client: self.client,
            upstream: upgraded.upstream,
            from_client: self.input,
            from_upstream: upgraded.first_bytes,
            service: upgraded.service,
        };
        // A task of its own, which is a good deal smaller than that of a connection.
        spawn_local(tunnel.run());
    }
}
