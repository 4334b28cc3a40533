//! One connection to an endpoint: begins it, drives it, and counts its streams.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::h2::client::{Builder, Connection, SendRequest};
use ::h2::{Ping, PingPong, RecvStream, SendStream};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::resets::Resets;
use super::socket::{H2Socket, Heard, ReadAhead, UpstreamSocket};
use crate::runtime::{Timer, deadline};
use crate::transport::Cork;
use crate::upstream::open::OpenUpstream;

/// How much of one response waits in memory for a slow client.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The window of all responses of a connection never limits: a client that does not read must not stop others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// What small frames may take beyond their content until their streams take them. A connection with more is closed.
const FRAME_OVERHEAD: usize = 64 * 1024 * 1024;
/// How much of one request waits for the connection's socket.
const SEND_BUFFER: usize = 64 * 1024;
/// Longest response head. `limits.head_bytes` allows less.
const MAX_HEAD: u32 = 1024 * 1024;
/// How long frames of a stream that the gateway has reset are expected. h2 forgets a stream then, answers what still
/// comes with another reset, and ends the connection at the 1,024th.
const LATE: Duration = Duration::from_secs(30);
/// How many of them it remembers.
const MAX_LATE: usize = 1024;
/// How many responses of a connection may be malformed: half of what h2 tolerates.
const MAX_MALFORMED: u32 = 512;
/// How many streams wait for their end after a whole response.
const MAX_ENDING: usize = 64;
/// How often an endpoint with open streams is asked for a sign of life. Bandit and Cowboy end a connection from which
/// nothing has come for 60 seconds, whatever they are sending.
const PERIOD: Duration = Duration::from_secs(25);
/// gRPC servers end connections that ask more often than every five minutes: they are asked after this silence.
const SILENCE: Duration = Duration::from_secs(330);
/// How long it may then take to send anything.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a request may wait for the first bytes of the endpoint's window until new requests use another connection.
const STALL: Duration = Duration::from_secs(1);

pub struct H2Connection {
    pub requests: SendRequest<Bytes>,
    socket: Weak<UpstreamSocket>,
    heard: Rc<Heard>,
    streams: Cell<usize>,
    resets: Resets,
    malformed: Cell<u32>,
    /// Streams whose response is whole, before the endpoint has ended them: one that ends now would be reset.
    ending: RefCell<Vec<(RecvStream, SendStream<Bytes>)>>,
    /// It has had a stream before, so the endpoint may just have closed it.
    was_used: Cell<bool>,
    idle_since: Cell<Instant>,
    /// The system has been asked for the end of the connection since frames were last sent.
    was_probed: Cell<bool>,
    /// A gRPC call has been sent.
    is_grpc: Cell<bool>,
    /// Since when a request waits whose body has got no window. The window of a new stream is not empty, so it is the
    /// connection's that others have taken: the endpoint does not read them, or has lost count.
    stalled_since: Cell<Option<Instant>>,
    /// Wakes requests that wait for room.
    room: Rc<Notify>,
    _open: OpenUpstream,
}

/// What an endpoint does instead of HTTP/2.
#[derive(Debug)]
pub struct NotHttp2(pub &'static str);

impl H2Connection {
    /// Begins HTTP/2, and waits for the endpoint's settings: an endpoint that speaks another protocol gets no
    /// request.
    pub async fn begin(
        socket: UpstreamSocket,
        room: &Rc<Notify>,
        open: OpenUpstream,
    ) -> Result<Rc<H2Connection>, NotHttp2> {
        let patience = Patience { period: PERIOD, silence: SILENCE, answer: ANSWER };
        H2Connection::begin_with(socket, room, open, patience).await
    }

    async fn begin_with(
        socket: UpstreamSocket,
        room: &Rc<Notify>,
        open: OpenUpstream,
        patience: Patience,
    ) -> Result<Rc<H2Connection>, NotHttp2> {
        socket.set_keepalive();
        let socket = Rc::new(socket);
        let heard = Rc::<Heard>::default();
        let cork = Rc::<Cork>::default();
        let io = H2Socket {
            socket: Rc::clone(&socket),
            cork: Rc::clone(&cork),
            heard: Rc::clone(&heard),
            ahead: ReadAhead::default(),
        };
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .data_frame_budget(FRAME_OVERHEAD)
            .max_send_buffer_size(SEND_BUFFER)
            .reset_stream_duration(LATE)
            .max_concurrent_reset_streams(MAX_LATE)
            .max_header_list_size(MAX_HEAD);
        let handshake = builder.handshake(io).await;
        let (requests, mut connection) = handshake.map_err(|_| NotHttp2(heard.explain()))?;
        poll_fn(|cx| match std::pin::Pin::new(&mut connection).poll(cx) {
            Poll::Ready(_) => Poll::Ready(Err(NotHttp2(heard.explain()))),
            Poll::Pending if heard.has_settings() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let begun = Rc::new(H2Connection {
            requests,
            socket: Rc::downgrade(&socket),
            heard: Rc::clone(&heard),
            streams: Cell::new(0),
            resets: Resets::default(),
            malformed: Cell::new(0),
            ending: RefCell::default(),
            was_used: Cell::new(false),
            was_probed: Cell::new(false),
            stalled_since: Cell::new(None),
            idle_since: Cell::new(Instant::now()),
            is_grpc: Cell::new(false),
            room: Rc::clone(room),
            _open: open,
        });
        let driver = Driver {
            pings: connection.ping_pong(),
            connection,
            socket,
            cork,
            heard,
            of: Rc::downgrade(&begun),
            patience,
            timer: Timer::default(),
            asked: false,
            most: begun.requests.current_max_send_streams(),
        };
        let room = Rc::clone(room);
        spawn_local(async move {
            driver.run().await;
            // Requests that wait for this connection may open another one.
            room.notify_waiters();
        });
        Ok(begun)
    }

    /// How many more streams there may be: as many as the endpoint accepts, and as may all be reset before it takes that
    /// for an attack.
    pub fn room(&self) -> usize {
        self.room_of_endpoint().min(self.resets.left().saturating_sub(self.open()))
    }

    /// How many more streams the endpoint accepts, of which requests with a body have a chance.
    pub fn room_of_endpoint(&self) -> usize {
        if self.is_stalled() {
            return 0;
        }
        self.requests.current_max_send_streams().saturating_sub(self.open())
    }

    /// How many streams are open at the endpoint.
    fn open(&self) -> usize {
        self.streams.get() + self.ending.borrow().len()
    }

    /// Whether the endpoint accepts WebSockets over HTTP/2 (RFC 8441 section 3).
    pub fn takes_websockets(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// Whether new streams may be opened: the endpoint has sent no GOAWAY, and the connection is open. `probe` asks
    /// the system, which may know more than the event loop.
    pub fn is_usable(&self, probe: bool) -> bool {
        let ready = self.requests.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        let is_lost = self.is_idle() && self.is_stalled() || self.malformed.get() >= MAX_MALFORMED;
        !matches!(ready, Poll::Ready(Err(_))) && !is_lost && (!probe || self.probe())
    }

    fn is_stalled(&self) -> bool {
        self.stalled_since.get().is_some_and(|since| since.elapsed() >= STALL)
    }

    /// A request waits that has got nothing of the endpoint's window.
    pub fn window_is_missing(&self) {
        if self.stalled_since.get().is_none() {
            self.stalled_since.set(Some(Instant::now()));
        }
    }

    /// A request has got some of the endpoint's window.
    pub fn window_has_come(&self) {
        if self.stalled_since.get().is_some() {
            self.stalled_since.set(None);
            self.room.notify_waiters();
        }
    }

    fn probe(&self) -> bool {
        let is_open = || self.socket.upgrade().is_some_and(|it| it.is_open());
        let open = self.was_probed.get() || is_open();
        self.was_probed.set(open);
        open
    }

    pub fn mark_grpc(&self) {
        self.is_grpc.set(true);
    }

    /// A stream is reset.
    pub fn note_reset(&self) {
        self.resets.add();
    }

    /// A response was malformed, for which h2 resets its stream.
    pub fn note_malformed(&self) {
        self.malformed.set(self.malformed.get() + 1);
    }

    /// Lets the endpoint end a stream. `false` if too many wait for that, or they would leave no room.
    pub fn let_end(&self, body: RecvStream, stream: SendStream<Bytes>) -> bool {
        let is_last = self.open() >= self.requests.current_max_send_streams();
        let mut ending = self.ending.borrow_mut();
        let has_room = ending.len() < MAX_ENDING && !is_last;
        if has_room {
            ending.push((body, stream));
        }
        has_room
    }

    /// Drops the streams that have ended. What comes instead of an end resets the stream.
    fn drop_ended(&self, cx: &mut Context<'_>) {
        self.ending.borrow_mut().retain_mut(|(body, _)| {
            loop {
                match body.poll_data(cx) {
                    Poll::Pending => return true,
                    Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                    Poll::Ready(_) => {
                        self.room.notify_one();
                        return false;
                    }
                }
            }
        });
    }

    pub fn mark_used(&self) -> bool {
        self.was_used.replace(true)
    }

    pub fn is_idle_since(&self, oldest: Instant) -> bool {
        self.streams.get() == 0 && self.idle_since.get() < oldest
    }

    pub fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }
}

/// Counts a stream until dropped.
pub struct Place(pub Rc<H2Connection>, Cell<u32>);

impl Place {
    pub fn new(connection: &Rc<H2Connection>) -> Place {
        connection.streams.set(connection.streams.get() + 1);
        Place(Rc::clone(connection), Cell::new(0))
    }

    /// The stream has this id.
    pub fn opened(&self, stream: u32) {
        self.1.set(stream);
        self.0.heard.heads.opened(stream);
    }

    /// The stream has ended the connection.
    pub fn is_at_fault(&self) -> bool {
        self.0.heard.heads.too_many(self.1.get())
    }

    /// The endpoint has sent all of the response, of which h2 has given out `data` bytes.
    pub fn is_whole(&self, data: u64) -> bool {
        self.0.heard.heads.is_whole(self.1.get(), data)
    }

    /// The response is one head.
    pub fn is_one_head(&self) -> bool {
        self.0.heard.heads.is_one_head(self.1.get())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let streams = self.0.streams.get() - 1;
        self.0.streams.set(streams);
        self.0.heard.heads.closed(self.1.get());
        self.0.was_probed.set(false);
        if streams == 0 {
            self.0.idle_since.set(Instant::now());
        }
        self.0.room.notify_one();
    }
}

struct Driver {
    connection: Connection<H2Socket, Bytes>,
    socket: Rc<UpstreamSocket>,
    cork: Rc<Cork>,
    pings: Option<PingPong>,
    heard: Rc<Heard>,
    of: Weak<H2Connection>,
    patience: Patience,
    timer: Timer,
    /// A sign of life has been asked for.
    asked: bool,
    /// How many streams the endpoint accepted at once when it was last looked at.
    most: usize,
}

/// See [`PERIOD`], [`SILENCE`] and [`ANSWER`].
#[derive(Clone, Copy)]
struct Patience {
    period: Duration,
    silence: Duration,
    answer: Duration,
}

impl Driver {
    /// Wakes requests that wait, once the endpoint accepts more streams than before.
    fn note_room(&mut self) {
        let Some(of) = self.of.upgrade() else { return };
        let most = of.requests.current_max_send_streams();
        if std::mem::replace(&mut self.most, most) < most {
            of.room.notify_waiters();
        }
    }

    /// Reads and sends frames. Ready at the end of the connection.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Driver { connection, socket, cork, of, .. } = self;
        if let Some(of) = of.upgrade() {
            of.was_probed.set(false);
            if of.is_idle() {
                cork.rest();
            }
        }
        socket.poll_corked(cork, cx, |cx| pin!(connection).poll(cx)).map(drop)
    }

    /// Runs until the connection ends, or its endpoint is silent for too long.
    async fn run(mut self) {
        let mut until = None;
        poll_fn(|cx| {
            if self.poll_connection(cx).is_ready() {
                return Poll::Ready(());
            }
            self.note_room();
            if let Some(of) = self.of.upgrade() {
                of.drop_ended(cx);
            }
            let of = self.of.upgrade().filter(|of| !of.is_idle());
            let has_answered = self.heard.take_anything();
            match of {
                // Without streams nothing waits for the endpoint.
                None => until = None,
                Some(of) if of.is_grpc.get() && (has_answered || until.is_none()) => {
                    self.asked = false;
                    until = deadline(Some(self.patience.silence));
                }
                Some(_) if has_answered && self.asked || until.is_none() => {
                    self.asked = false;
                    until = deadline(Some(self.patience.period));
                }
                Some(_) => {}
            }
            loop {
                self.timer.set_at(until);
                if self.timer.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if std::mem::replace(&mut self.asked, true) {
                    return Poll::Ready(());
                }
                if let Some(pings) = &mut self.pings {
                    // The last answer is taken, so that another one can come.
                    let _ = pings.poll_pong(cx);
                    // Fails if the connection has ended.
                    let _ = pings.send_ping(Ping::opaque());
                }
                until = deadline(Some(self.patience.answer));
                if self.poll_connection(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use ::h2::client::ResponseFuture;
    use http::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;

    type Server = ::h2::server::Connection<UnixStream, Bytes>;

    /// A connection with one request that is not answered, and its endpoint.
    async fn waiting() -> (Place, ResponseFuture, Server) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (period, silence) = (Duration::from_millis(50), Duration::from_millis(50));
        let patience = Patience { period, silence, answer: Duration::from_millis(500) };
        let (socket, room) = (UpstreamSocket::Unix(ours), Rc::default());
        let begun = H2Connection::begin_with(socket, &room, OpenUpstream::nothing(), patience);
        let (begun, served) = tokio::join!(begun, ::h2::server::handshake(theirs));
        let place = Place::new(&begun.unwrap());
        let request = Request::get("http://a.test/").body(()).unwrap();
        let (response, _) = place.0.requests.clone().send_request(request, true).unwrap();
        (place, response, served.unwrap())
    }

    #[tokio::test]
    async fn an_endpoint_that_answers_pings_may_take_its_time() {
        let test = async {
            let (place, response, mut served) = waiting().await;
            let mut asked = Vec::new();
            let answers = async {
                while let Some(Ok(request)) = served.accept().await {
                    asked.push(request);
                }
            };
            tokio::select! {
                () = answers => panic!("the connection has ended"),
                _ = response => panic!("the stream has ended"),
                () = tokio::time::sleep(Duration::from_millis(1500)) => {}
            }
            assert!(place.0.is_usable(true) && asked.len() == 1);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_connection_that_was_found_closed_stays_so() {
        let test = async {
            let (place, _response, served) = waiting().await;
            assert!(place.0.is_usable(true));
            drop(served);
            // The next stream, before the driver has run.
            place.0.was_probed.set(false);
            assert!(!place.0.is_usable(true) && !place.0.is_usable(true));
        };
        LocalSet::new().run_until(test).await;
    }

    /// How many PINGs an endpoint gets in a second in which it sends all the time.
    async fn pings(is_grpc: bool) -> usize {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = theirs.into_split();
        // Empty settings.
        writer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let patience = Patience {
            period: Duration::from_millis(50),
            silence: Duration::from_secs(60),
            answer: Duration::from_secs(10),
        };
        let (socket, room) = (UpstreamSocket::Unix(ours), Rc::default());
        let begun = H2Connection::begin_with(socket, &room, OpenUpstream::nothing(), patience);
        let place = Place::new(&begun.await.unwrap());
        if is_grpc {
            place.0.mark_grpc();
        }
        let request = Request::get("http://a.test/").body(()).unwrap();
        let _stream = place.0.requests.clone().send_request(request, true).unwrap();
        let asked = std::cell::RefCell::new(Vec::new());
        let reads = async {
            reader.read_exact(&mut [0; 24]).await.unwrap();
            loop {
                let mut head = [0; 9];
                reader.read_exact(&mut head).await.unwrap();
                let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
                reader.read_exact(&mut payload).await.unwrap();
                if head[3..5] == [6, 0] {
                    asked.borrow_mut().push(payload);
                }
            }
        };
        let writes = async {
            // The status 200 on stream 1.
            writer.write_all(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88]).await.unwrap();
            let mut answered = 0;
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                writer.write_all(&[0, 0, 1, 0, 0, 0, 0, 0, 1, b'x']).await.unwrap();
                let next = asked.borrow().get(answered).cloned();
                if let Some(payload) = next {
                    let pong = [&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &payload].concat();
                    writer.write_all(&pong).await.unwrap();
                    answered += 1;
                }
            }
            answered
        };
        tokio::select! {
            () = reads => 0,
            answered = writes => answered,
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_sends_hears_of_the_gateway_as_well() {
        let test = async {
            assert!(pings(false).await > 3);
            assert_eq!(pings(true).await, 0);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn an_endpoint_that_is_silent_loses_its_connection() {
        let test = async {
            // Nothing polls the endpoint, as if its process had stopped.
            let (place, response, _served) = waiting().await;
            let ended = timeout(Duration::from_secs(10), response).await;
            assert!(ended.expect("it hangs").is_err());
            assert!(!place.0.is_usable(false));
        };
        LocalSet::new().run_until(test).await;
    }
}
