//! One worker's connections to one address: which of them has room for a request, and which requests wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::H2Connection;

/// How many connections a worker opens to an address whose endpoint limits the streams of each. More requests wait.
const MAX_CONNECTIONS: usize = 128;
/// How many of them may accept no stream at all until it is taken for all that the endpoint has to say.
const MAX_CLOSED: usize = 4;
/// How many waiting requests a new connection wakes at most. Those wake others when they end.
const MAX_WOKEN: usize = 4096;

#[derive(Default)]
pub struct H2Connections {
    all: RefCell<Vec<Rc<H2Connection>>>,
    /// How many connections are being opened.
    opening: Cell<usize>,
    /// How many requests wait for room.
    waiting: Cell<usize>,
    /// How many streams the newest connection accepts; 0 before the first one.
    most: Cell<usize>,
    /// Notifies one request, in the order of their coming, when there is room for it.
    room: Rc<Notify>,
}

/// The right to open a connection, until dropped: requests that come at once share one.
pub struct Opening<'a> {
    connections: &'a H2Connections,
    woken: usize,
}

impl Opening<'_> {
    pub fn opened(mut self, connection: &Rc<H2Connection>) {
        let room = connection.room();
        self.woken = room.min(MAX_WOKEN);
        self.connections.most.set(room);
        self.connections.all.borrow_mut().push(Rc::clone(connection));
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let H2Connections { opening, room, .. } = self.connections;
        opening.set(opening.get() - 1);
        if self.woken == 0 {
            return room.notify_waiters();
        }
        // One more finds no room, and opens the next connection.
        (0..=self.woken).for_each(|_| room.notify_one());
    }
}

/// Counts a request that waits, until dropped.
struct Waits<'a>(&'a Cell<usize>);

impl Waits<'_> {
    fn begin(waiting: &Cell<usize>) -> Waits<'_> {
        waiting.set(waiting.get() + 1);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl H2Connections {
    /// A connection with room for a stream. `probe`: it must not be known to the system as closed.
    pub fn with_room(&self, probe: bool) -> Option<Rc<H2Connection>> {
        let mut all = self.all.borrow_mut();
        while let Some(at) = all.iter().position(|connection| connection.room() > 0) {
            if all[at].is_usable(probe) {
                return Some(Rc::clone(&all[at]));
            }
            all.remove(at);
        }
        // Those that have ended would take the place of others.
        all.retain(|connection| connection.is_usable(false));
        if all.len() < MAX_CONNECTIONS {
            return None;
        }
        // Resets are spread over as many connections as there may be, and not bounded.
        let other = all.iter().find(|connection| connection.room_of_endpoint() > 0)?;
        other.is_usable(probe).then(|| Rc::clone(other))
    }

    /// Whether the endpoint accepts WebSockets over HTTP/2, as its last connection has said. `None`: there is no
    /// connection.
    pub fn take_websockets(&self) -> Option<bool> {
        let all = self.all.borrow();
        let usable = all.iter().rfind(|connection| connection.is_usable(false));
        usable.map(|connection| connection.takes_websockets())
    }

    /// `None` if those that are being opened have room for the requests that wait, or there are enough.
    pub fn begin_opening(&self) -> Option<Opening<'_>> {
        self.may_open().then(|| {
            self.opening.set(self.opening.get() + 1);
            if self.may_open() {
                // Another request that waits opens the next one meanwhile.
                self.room.notify_one();
            }
            Opening { connections: self, woken: 0 }
        })
    }

    fn may_open(&self) -> bool {
        let opening = self.opening.get();
        let is_enough = match self.most.get() {
            // The first one tells.
            0 => opening > 0 || self.accept_none() >= MAX_CLOSED,
            // Each of those that open one takes a place, too.
            most => opening > 0 && self.waiting.get() + opening <= opening.saturating_mul(most),
        };
        !is_enough && self.all.borrow().len() + opening < MAX_CONNECTIONS
    }

    fn accept_none(&self) -> usize {
        let all = self.all.borrow();
        all.iter().filter(|connection| connection.requests.current_max_send_streams() == 0).count()
    }

    pub fn room(&self) -> &Rc<Notify> {
        &self.room
    }

    /// Waits until there may be room.
    pub async fn wait(&self) {
        let _waits = Waits::begin(&self.waiting);
        self.room.notified().await;
    }

    /// Closes idle connections that are too old, but keeps one, unless the address is retired. Returns how many may
    /// be closed later.
    pub fn reap(&self, oldest: Option<Instant>, is_retired: bool) -> usize {
        let mut all = self.all.borrow_mut();
        all.retain(|connection| connection.is_usable(false) && !is_retired);
        let mut is_first = true;
        all.retain(|connection| {
            let is_old = oldest.is_some_and(|oldest| connection.is_idle_since(oldest));
            std::mem::take(&mut is_first) || !is_old
        });
        all.len().saturating_sub(1)
    }
}
