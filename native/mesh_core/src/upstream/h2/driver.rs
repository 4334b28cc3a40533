//! Begins and drives a connection to an endpoint: reads and sends its frames, and asks a silent endpoint for a sign of
//! life.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use ::h2::client::{Builder, Connection};
use ::h2::{Ping, PingPong};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::connection::H2Connection;
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
/// How often an endpoint with open streams is asked for a sign of life. Bandit and Cowboy end a connection from which
/// nothing has come for 60 seconds, whatever they are sending.
const PERIOD: Duration = Duration::from_secs(25);
/// gRPC servers end connections that ask more often than every five minutes: they are asked after this silence.
const SILENCE: Duration = Duration::from_secs(330);
/// How long it may then take to send anything.
const ANSWER: Duration = Duration::from_secs(20);
/// What an endpoint does instead of HTTP/2.
#[derive(Debug)]
pub struct NotHttp2(pub &'static str);

/// Begins HTTP/2, and waits for the endpoint's settings: an endpoint that speaks another protocol gets no
/// request.
pub async fn begin(
    socket: UpstreamSocket,
    room: &Rc<Notify>,
    open: OpenUpstream,
) -> Result<Rc<H2Connection>, NotHttp2> {
    let patience = Patience { period: PERIOD, silence: SILENCE, answer: ANSWER };
    begin_with(socket, room, open, patience).await
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
    let begun = H2Connection::new(requests, &socket, &heard, room, open);
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
        let Driver { connection, socket, cork, heard, of, .. } = self;
        heard.work.set(0);
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
    use crate::upstream::h2::connection::Place;

    type Server = ::h2::server::Connection<UnixStream, Bytes>;

    /// A connection with one request that is not answered, and its endpoint.
    async fn waiting() -> (Place, ResponseFuture, Server) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (period, silence) = (Duration::from_millis(50), Duration::from_millis(50));
        let patience = Patience { period, silence, answer: Duration::from_millis(500) };
        let (socket, room) = (UpstreamSocket::Unix(ours), Rc::default());
        let begun = begin_with(socket, &room, OpenUpstream::nothing(), patience);
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
        let begun = begin_with(socket, &room, OpenUpstream::nothing(), patience);
        let place = Place::new(&begun.await.unwrap());
        if is_grpc {
            place.0.is_grpc.set(true);
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
