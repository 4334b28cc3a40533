//! The worker's side of a call: a byte stream that is used for one request.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::call::Call;
use super::desk::Desk;
use super::queue::Chunk;
use super::shared::Place;
use crate::config::OnDisconnect;
use crate::transport::Transport;

pub struct CallStream {
    call: Arc<Call>,
    desk: Rc<Desk>,
    is_sent: Cell<bool>,
    /// The chunk of the response that is being read, and how much of it has been.
    part: RefCell<(Chunk, usize)>,
}

impl CallStream {
    pub fn new(desk: &Rc<Desk>, place: Place) -> CallStream {
        CallStream {
            call: Call::new(&desk.origin, place),
            desk: Rc::clone(desk),
            is_sent: Cell::new(false),
            part: RefCell::default(),
        }
    }

    /// See [`Call::untaken_request`].
    pub fn untaken_request(&self) -> Option<Option<Vec<u8>>> {
        self.call.untaken_request()
    }

    fn is_read(&self) -> bool {
        let (part, at) = &*self.part.borrow();
        *at == part.len()
    }
}

impl Transport for CallStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_read() {
            return Poll::Ready(Ok(()));
        }
        let consumed = std::mem::take(&mut *self.part.borrow_mut()).0.len();
        self.call.poll_response(cx, consumed).map(Ok)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.call.poll_request_room(cx).map(Ok)
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut part = self.part.borrow_mut();
        let (bytes, at) = &mut *part;
        if *at == bytes.len() {
            let consumed = std::mem::take(bytes).len();
            *at = 0;
            match self.call.next_response(consumed) {
                Poll::Ready(Ok(Some(chunk))) => *bytes = chunk,
                Poll::Ready(Ok(None)) => return Ok(0),
                Poll::Ready(Err(())) => return Err(ErrorKind::ConnectionReset.into()),
                Poll::Pending => return Err(ErrorKind::WouldBlock.into()),
            }
        }
        let n = into.len().min(bytes.len() - *at);
        into[..n].copy_from_slice(&bytes[*at..*at + n]);
        *at += n;
        Ok(n)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_sent.replace(true) {
            self.call.begin_request(bytes);
            self.desk.send(Arc::clone(&self.call));
            return Ok(bytes.len());
        }
        match self.call.write_request(bytes) {
            Some(0) => Err(ErrorKind::WouldBlock.into()),
            Some(n) => Ok(n),
            None => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn ends_with_client(&self) -> bool {
        self.call.on_disconnect() == OnDisconnect::Exit
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for CallStream {
    fn drop(&mut self) {
        self.call.close();
    }
}
