//! A client connection of HTTP/1.1, between two requests.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mesh_wire::client_addr::ClientAddr;
use mesh_wire::head::EmptyLines;
use mesh_wire::ids::RequestId;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::error::Error;
use crate::observe::Draft;
use crate::runtime::{Buf, Timer, after, deadline};
use crate::serve::worker::{FIRST_REQUEST, Worker};
use crate::upstream::transport::{Transport, poll_fill};

/// When draining begins: how long a connection without a request may still bring one. It may be on
/// its way already, and its client could not tell a closed connection from a lost request.
const LAST_REQUEST: Duration = Duration::from_millis(500);

pub struct Connection<'t, T> {
    pub worker: Rc<Worker>,
    pub client: T,
    pub peer: ClientAddr,
    /// What the client has sent and nothing has taken yet.
    pub input: Buf,
    pub timer: &'t mut Timer,
    /// Of the request under way.
    pub request_id: RequestId,
    /// What is to be recorded of it.
    pub draft: Option<Draft>,
    /// When the last exchange ended: spares another look at the clock.
    pub answered: Option<Instant>,
    /// Requests taken so far.
    pub taken: u64,
    /// The client has said itself that the last of them is the last.
    pub said_last: bool,
    pub hears_of_drain: bool,
}

/// How the connection goes on.
pub enum Next {
    Request,
    /// Close at once, with a reset if that has been asked for.
    Close,
    /// Say that nothing more will come, and close after reading on for a moment.
    Linger,
}

impl<T: Transport> Connection<'_, T> {
    /// Waits, without a buffer, until the client sends something, and reads it. `false` ends the
    /// connection.
    pub async fn wait_for_request(&mut self, mut drain: Pin<&mut Notified<'_>>) -> bool {
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

    /// Reads what there is, for as long as the timer allows. 0: the client has closed.
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
