//! The side of a call that its process uses: takes the request, reads its body, and writes the response.

use std::io::Write as _;
use std::mem;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use mesh_wire::head::{HeadEnd, HeadScan};
use parking_lot::MutexGuard;

use super::call::Call;
use super::head::CallHead;
use super::process::{Body, Process, Response};
use super::queue::{Chunk, Queue, SMALL_PART, chunks, held_chunks};
use super::response::{BadHead, Framing, write_head};
use super::shared::{End, Notice, Phase, arm};
use crate::runtime::Budget;

/// As the gateway allows to any endpoint.
const MAX_INTERIM: usize = 32;

/// What reading the body has found.
pub enum Read<T> {
    Data(T),
    /// Nothing yet. The notice will be sent.
    Pending,
    End,
    /// The client is gone.
    Closed,
}

/// What became of a part of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Write {
    /// So many bytes were accepted. If not all, the notice will be sent when there is room.
    Accepted(usize),
    /// So many bytes were accepted, and there is room again.
    Again(usize),
    Closed,
    /// There is no head yet.
    NoHead,
}

/// A call that was taken.
pub enum Taken<T> {
    Head(T),
    /// Another process has taken it, or the client is gone.
    Closed,
}

impl Call {
    /// Takes the call, and passes its head to `read`.
    pub fn take<T>(&self, read: impl FnOnce(&CallHead<'_>) -> T) -> Taken<T> {
        let mut process = self.process.lock();
        let mut shared = self.shared.lock();
        if shared.is_closed || shared.phase != Phase::Waiting {
            return Taken::Closed;
        }
        shared.phase = Phase::Taken;
        // Dropped in the end, which lets another request in.
        let _place = shared.place.take();
        let part = shared.request.pop().unwrap_or_default().into_vec();
        drop(shared);
        let HeadEnd::Whole(size) = HeadScan::default().find(&part) else {
            return self.refuse(process);
        };
        let Some(head) = CallHead::parse(&part[..size]) else { return self.refuse(process) };
        let (read, body) = (read(&head), head.body);
        process.begin(body, part, size);
        let mut writer = None;
        if process.at == process.part.len() {
            self.drop_part(&mut process, &mut writer);
        }
        drop(process);
        if let Some(writer) = writer {
            self.origin.bell.ring(writer);
        }
        Taken::Head(read)
    }

    fn buffers(&self) -> &Arc<Budget> {
        &self.origin.config.buffers
    }

    /// Never happens: the gateway has written the head.
    #[cold]
    fn refuse<T>(&self, process: MutexGuard<'_, Process>) -> Taken<T> {
        drop(process);
        self.fail();
        Taken::Closed
    }

    /// Reads up to `max` bytes of the body. `notice` makes the message that announces more.
    pub fn read<T>(
        &self,
        max: usize,
        read: impl FnOnce(&[u8]) -> T,
        notice: impl FnOnce() -> Box<dyn Notice>,
    ) -> Read<T> {
        let mut writer = None;
        let read = self.read_part(&mut self.process.lock(), &mut writer, max, read, notice);
        if let Some(writer) = writer {
            self.origin.bell.ring(writer);
        }
        read
    }

    fn read_part<T>(
        &self,
        process: &mut Process,
        writer: &mut Option<Waker>,
        max: usize,
        read: impl FnOnce(&[u8]) -> T,
        notice: impl FnOnce() -> Box<dyn Notice>,
    ) -> Read<T> {
        let mut notice = Some(notice);
        let mut armed = None;
        loop {
            if process.data > 0 {
                let n = process.data.min(max.max(1));
                let data = read(&process.part[process.at..process.at + n]);
                process.at += n;
                process.data -= n;
                process.raw -= n;
                if process.data == 0 {
                    process.at += mem::take(&mut process.raw);
                }
                if process.at == process.part.len() {
                    self.drop_part(process, writer);
                }
                return Read::Data(data);
            }
            if matches!(process.body, Body::Whole) {
                return Read::End;
            }
            if process.at < process.part.len() {
                if process.decode().is_err() {
                    // Never happens: the gateway has checked it.
                    return Read::Closed;
                }
                continue;
            }
            self.drop_part(process, writer);
            let mut shared = self.shared.lock();
            match shared.request.pop() {
                Some(part) => process.part = part.into_vec(),
                None if shared.is_closed || shared.end.is_some() => return Read::Closed,
                None => match armed.take() {
                    Some(armed) => {
                        arm(&mut shared.readable, armed);
                        return Read::Pending;
                    }
                    // Made while nothing is locked.
                    None => {
                        drop(shared);
                        armed = notice.take().map(|notice| notice());
                    }
                },
            }
        }
    }

    /// Frees the room of a chunk that was read. Moves the task that waits for room to `writer`, to be woken.
    fn drop_part(&self, process: &mut Process, writer: &mut Option<Waker>) {
        let part = mem::take(&mut process.part);
        process.at = 0;
        if part.is_empty() {
            return;
        }
        let mut shared = self.shared.lock();
        shared.request.consumed(part.len());
        if shared.request.has_much_room(self.buffers()) && shared.writer.is_some() {
            *writer = shared.writer.take();
        }
    }

    /// Sends a response head, final or interim. `Ok(false)`: the client is gone.
    ///
    /// With [`Framing::Length`] the worker is woken for the head with the first part of the body, or by
    /// [`flush`](Self::flush).
    pub fn head<'f>(
        &self,
        status: i64,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        framing: Framing,
    ) -> Result<bool, BadHead> {
        let mut process = self.process.lock();
        match process.response {
            Response::None => {}
            Response::Failed => return Ok(false),
            _ => return Err(BadHead::Second),
        }
        let head = write_head(status, fields, framing)?;
        let mut flushes = true;
        match framing {
            Framing::Interim => {
                process.interim += 1;
                if process.interim > MAX_INTERIM {
                    return Err(BadHead::TooManyInterim);
                }
            }
            Framing::Chunked => process.response = Response::Chunked,
            Framing::None => process.response = Response::Complete,
            Framing::Length if head.length == Some(0) => process.response = Response::Complete,
            Framing::Length => {
                process.response = Response::Length(head.length);
                flushes = false;
            }
        }
        let mut shared = self.shared.lock();
        if shared.is_closed || shared.end.is_some() {
            return Ok(false);
        }
        shared.response.reserve_beyond(head.bytes.len(), self.buffers());
        if framing != Framing::Interim {
            shared.unread_head = Some(shared.response.len());
        }
        shared.response.push([Chunk::Copied(head.bytes)]);
        if process.response == Response::Complete {
            shared.end = Some(End::Complete);
        }
        if flushes {
            drop(process);
            self.tell_worker(shared);
        }
        Ok(true)
    }

    /// Sends a part of the response body. `notice` makes the message that announces room.
    pub fn write(&self, part: &[u8], notice: impl FnOnce() -> Box<dyn Notice>) -> Write {
        self.write_held(part, |n| Bytes::copy_from_slice(&part[..n]), notice)
    }

    /// The same. `hold` returns the first bytes of `part` without a copy: the process, which waits for room to send
    /// the rest, has them anyway.
    pub fn write_held(
        &self,
        part: &[u8],
        hold: impl FnOnce(usize) -> Bytes,
        notice: impl FnOnce() -> Box<dyn Notice>,
    ) -> Write {
        let mut process = self.process.lock();
        let mut wanted = part.len();
        match process.response {
            Response::None => return Write::NoHead,
            Response::Failed => return Write::Closed,
            // No body is sent, or not more of it.
            Response::Complete => return Write::Accepted(part.len()),
            Response::Length(Some(left)) => {
                wanted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
            }
            Response::Length(None) | Response::Chunked => {}
        }
        let mut shared = self.shared.lock();
        if shared.is_closed || shared.end.is_some() {
            return Write::Closed;
        }
        let n = shared.response.reserve(wanted, self.buffers());
        let is_chunked = process.response == Response::Chunked;
        if n > 0 && n <= SMALL_PART {
            if is_chunked {
                append_chunk(&mut shared.response, &part[..n], self.buffers());
            } else {
                shared.response.append(&part[..n]);
            }
        } else if n > 0 {
            drop(shared);
            let bytes = if n < wanted { held_chunks(&hold(n)) } else { chunks(&part[..n]) };
            shared = self.shared.lock();
            if shared.is_closed {
                return Write::Closed;
            }
            if is_chunked {
                append_size(&mut shared.response, n, self.buffers());
            }
            shared.response.push(bytes);
            if is_chunked {
                append_end(&mut shared.response, self.buffers());
            }
        }
        if let Response::Length(Some(left)) = &mut process.response {
            *left -= n as u64;
            if *left == 0 {
                process.response = Response::Complete;
                shared.end = Some(End::Complete);
            }
        }
        drop(process);
        self.tell_worker(shared);
        if n == wanted {
            // What is beyond the length is not sent.
            return Write::Accepted(part.len());
        }
        let notice = notice();
        let mut shared = self.shared.lock();
        if shared.is_closed || shared.end.is_some() || shared.response.has_much_room(self.buffers())
        {
            return Write::Again(n);
        }
        arm(&mut shared.room, notice);
        Write::Accepted(n)
    }

    /// Wakes the worker for what was written.
    pub fn flush(&self) {
        self.tell_worker(self.shared.lock());
    }

    /// The response is complete. Without a head it has failed. `false`: the client left before.
    pub fn finish(&self) -> bool {
        let mut process = self.process.lock();
        if process.response == Response::Failed {
            return false;
        }
        let before = mem::replace(&mut process.response, Response::Complete);
        let mut shared = self.shared.lock();
        let last: &[u8] = match before {
            Response::Complete | Response::Failed => return true,
            Response::Chunked => b"0\r\n\r\n",
            Response::None | Response::Length(_) => b"",
        };
        if shared.is_closed {
            return false;
        }
        // A length that was not reached is an error, and so is no head.
        if matches!(before, Response::None | Response::Length(Some(_))) {
            shared.fail(before != Response::None, self.buffers());
        } else {
            shared.response.reserve_beyond(last.len(), self.buffers());
            shared.response.append(last);
            shared.end.get_or_insert(End::Complete);
        }
        drop(process);
        self.tell_worker(shared);
        true
    }

    /// The process has failed or ended, or the reference of the call is gone. The client gets a 500, or a response
    /// that breaks off. A call that was not taken is dropped.
    pub fn fail(&self) {
        self.drop_unless_taken();
        let mut process = self.process.lock();
        let mut shared = self.shared.lock();
        if shared.is_closed || shared.end.is_some() || shared.phase != Phase::Taken {
            return;
        }
        let before = mem::replace(&mut process.response, Response::Failed);
        shared.fail(before != Response::None, self.buffers());
        drop(process);
        self.tell_worker(shared);
    }

    /// Sends `notice` when the client leaves before the response is complete. `false`: it has left.
    pub fn watch(&self, notice: Box<dyn Notice>) -> bool {
        let mut shared = self.shared.lock();
        if shared.end.is_some() {
            return true;
        }
        if shared.is_closed {
            return false;
        }
        arm(&mut shared.closed, notice);
        true
    }

    /// Whether the client waits for the response.
    pub fn is_alive(&self) -> bool {
        let shared = self.shared.lock();
        !shared.is_closed && shared.phase != Phase::Dropped
    }
}

/// Appends a small part as a chunk, for which room is reserved without its framing.
fn append_chunk(queue: &mut Queue, data: &[u8], budget: &Arc<Budget>) {
    append_size(queue, data.len(), budget);
    queue.append(data);
    append_end(queue, budget);
}

fn append_size(queue: &mut Queue, size: usize, budget: &Arc<Budget>) {
    let mut line = [0; 20];
    let mut rest = &mut line[..];
    // A size in hexadecimal has at most 16 digits.
    let _ = write!(rest, "{size:x}\r\n");
    let n = 20 - rest.len();
    queue.reserve_beyond(n, budget);
    queue.append(&line[..n]);
}

fn append_end(queue: &mut Queue, budget: &Arc<Budget>) {
    queue.reserve_beyond(2, budget);
    queue.append(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::calls::origin::{CallConfig, Origin};

    /// For the process with this number; counts what is sent.
    struct Counted(u64, Arc<AtomicUsize>);

    impl Notice for Counted {
        fn process(&self) -> u64 {
            self.0
        }

        fn send(self: Box<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn taken(request: &[u8]) -> (Arc<Call>, Arc<AtomicUsize>) {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let call = Call::new(&Origin::new(&CallConfig::default()), place);
        call.begin_request(request);
        assert!(matches!(call.take(|_| ()), Taken::Head(())));
        (call, Arc::default())
    }

    const POST: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n";

    #[test]
    fn a_dropped_call_keeps_what_is_written_until_it_is_taken_back() {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let call = Call::new(&Origin::new(&CallConfig::default()), place);
        call.begin_request(POST);
        call.fail();
        assert_eq!(call.write_request(b"more"), Some(4));
        let cx = Context::from_waker(Waker::noop());
        assert!(call.poll_response(&cx, 0).is_ready());
        assert_eq!(call.untaken_request(), Some(Some([POST, b"more"].concat())));
        // What does not fit is missing, and the task waits for the response alone.
        assert_eq!(call.write_request(&vec![b'x'; 300_000]), Some(256 * 1024 - POST.len() - 4));
        assert!(call.poll_request_room(&cx).is_pending());
        assert_eq!(call.untaken_request(), Some(None));
    }

    #[test]
    fn a_request_is_queued_up_to_its_bound() {
        let (call, sent) = taken(POST);
        let part = vec![b'x'; 100_000];
        let mut queued = 0;
        while let Some(n) = call.write_request(&part).filter(|n| *n > 0) {
            queued += n;
        }
        assert_eq!(queued, 256 * 1024);
        let cx = Context::from_waker(Waker::noop());
        assert!(call.poll_request_room(&cx).is_pending());
        let mut read = 0;
        let mut read_once = || {
            let notice = || -> Box<dyn Notice> { Box::new(Counted(1, Arc::clone(&sent))) };
            match call.read(1_000_000, <[u8]>::len, notice) {
                Read::Data(n) => read += n,
                Read::Pending => return None,
                _ => panic!("neither the end nor closed"),
            }
            Some(read)
        };
        while read_once().is_some() {}
        assert_eq!(read_once(), None);
        assert_eq!(read, queued);
        assert!(call.poll_request_room(&cx).is_ready());
        // Asked twice by one process, told once.
        assert_eq!(call.write_request(b"more"), Some(4));
        assert_eq!(call.write_request(b"more"), Some(4));
        assert_eq!(sent.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_response_is_queued_up_to_its_bound() {
        let (call, sent) = taken(POST);
        assert_eq!(call.head(200, std::iter::empty(), Framing::Length), Ok(true));
        let part = vec![b'x'; 3_000_000];
        let write = |process| {
            call.write(&part, || -> Box<dyn Notice> { Box::new(Counted(process, sent.clone())) })
        };
        let Write::Accepted(n) = write(1) else { panic!("there is no room left") };
        assert!((200_000..=256 * 1024).contains(&n), "{n}");
        for process in [1, 2, 2] {
            assert_eq!(write(process), Write::Accepted(0));
        }
        let mut consumed = 0;
        let mut read = 0;
        while let Poll::Ready(Ok(Some(chunk))) = call.next_response(consumed) {
            consumed = chunk.len();
            read += consumed;
            let half = n / 2 + 64 * 1024;
            assert!(read > half || sent.load(Ordering::Relaxed) == 0, "early, after {read}");
        }
        assert!(read > n);
        assert_eq!(sent.load(Ordering::Relaxed), 2, "each process is told once");
        assert_eq!(write(1), Write::Accepted(n.max(256 * 1024)));
    }

    /// The worker leaves while the process is about to wait, whatever it waits for.
    #[test]
    fn all_that_wait_are_told_when_the_worker_leaves() {
        for leaves_first in [false, true] {
            let (call, sent) = taken(POST);
            let counted = |process| -> Box<dyn Notice> { Box::new(Counted(process, sent.clone())) };
            assert_eq!(call.head(200, std::iter::empty(), Framing::Length), Ok(true));
            if leaves_first {
                call.close();
            }
            let is_pending = matches!(call.read(1, <[u8]>::len, || counted(1)), Read::Pending);
            let written = call.write(&vec![0; 3_000_000], || counted(2));
            let is_watched = call.watch(counted(3));
            if leaves_first {
                assert!(!is_pending && written == Write::Closed && !is_watched);
            } else {
                assert!(is_pending && is_watched);
                call.close();
                assert_eq!(sent.load(Ordering::Relaxed), 3);
            }
            assert!(!call.is_alive() && !call.finish());
        }
    }
}
