//! What one connection to an endpoint has room for: counts its streams and their resets.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::h2::client::SendRequest;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::resets::Resets;
use super::socket::{Heard, UpstreamSocket};
use crate::upstream::open::OpenUpstream;

/// How many responses of a connection may be malformed: half of what h2 tolerates.
const MAX_MALFORMED: u32 = 512;
/// How many streams wait for their end after a whole response.
const MAX_ENDING: usize = 64;
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
    pub was_probed: Cell<bool>,
    /// A gRPC call has been sent.
    pub is_grpc: Cell<bool>,
    /// Since when a request waits whose body has got no window. The window of a new stream is not empty, so it is the
    /// connection's that others have taken: the endpoint does not read them, or has lost count.
    stalled_since: Cell<Option<Instant>>,
    /// Wakes requests that wait for room.
    pub room: Rc<Notify>,
    _open: OpenUpstream,
}

impl H2Connection {
    pub fn new(
        requests: SendRequest<Bytes>,
        socket: &Rc<UpstreamSocket>,
        heard: &Rc<Heard>,
        room: &Rc<Notify>,
        open: OpenUpstream,
    ) -> Rc<H2Connection> {
        Rc::new(H2Connection {
            requests,
            socket: Rc::downgrade(socket),
            heard: Rc::clone(heard),
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
        })
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
    pub fn drop_ended(&self, cx: &mut Context<'_>) {
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
