//! An application that is called in this VM and answers as a scripted endpoint says: it passes the request to the
//! endpoint over a socket of its own, and says with the functions of a call what the endpoint answers.
//!
//! What a call has no words for (a head that is malformed, half a response) is a process that fails.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_core::calls::{Framing, Notice};
use mesh_core::{BodyLength, UpstreamAddr};

use super::PATIENCE;
use super::endpoint::Endpoint;
use super::socket::Socket;
use super::vm::{Held, Part, Request, Vm};
use super::wire::{self, Length};

pub struct Application {
    vm: Vm,
    socket: UpstreamAddr,
    running: Arc<AtomicUsize>,
}

impl Application {
    /// Answers as the endpoint says, which must be on TCP.
    pub fn of(endpoint: &Endpoint) -> Application {
        let running = Arc::new(AtomicUsize::new(0));
        let port = endpoint.port();
        let counted = Arc::clone(&running);
        let vm = Vm::serving(move |call| {
            counted.fetch_add(1, Ordering::SeqCst);
            // What ends here without a response has failed.
            let _ = answer(Arc::new(call), port);
            counted.fetch_sub(1, Ordering::SeqCst);
        });
        Application { vm, socket: endpoint.address.clone(), running }
    }

    pub fn address(&self) -> UpstreamAddr {
        self.vm.at(&self.socket)
    }

    /// All that was called has been answered, or has failed.
    pub fn is_idle(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }

    pub fn calls(&self) -> usize {
        self.vm.batches()
    }
}

/// Nothing more can be said.
struct Over;

impl<E: std::fmt::Debug> From<E> for Over {
    fn from(_: E) -> Over {
        Over
    }
}

/// Closes the application's socket when the client has gone.
struct Hangup(Socket);

impl Notice for Hangup {
    fn process(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    fn send(self: Box<Self>) {
        self.0.shutdown(Shutdown::Both);
    }
}

fn answer(call: Arc<Held>, port: u16) -> Result<(), Over> {
    let request = call.take().ok_or(Over)?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let socket = Socket::Tcp(stream);
    socket.set_timeouts(10 * PATIENCE);
    if !call.0.watch(Box::new(Hangup(socket.try_clone()?))) {
        return Err(Over);
    }
    let is_head = request.method == "HEAD";
    let uploading = std::thread::spawn({
        let (call, socket) = (Arc::clone(&call), socket.try_clone()?);
        move || drop(upload(&call, &request, socket))
    });
    let mut response = ResponseReader { socket, buffer: Vec::new() };
    let said = response.pass(&call, is_head);
    if said.is_err() {
        call.0.fail();
    }
    // The endpoint sees that this is over, and so does the thread that waits for more of the body.
    response.socket.shutdown(Shutdown::Both);
    uploading.join().expect("no panic");
    said
}

fn upload(call: &Held, request: &Request, mut socket: Socket) -> Result<(), Over> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    for (name, value) in &request.fields.0 {
        head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    socket.write_all(&head)?;
    let is_chunked = request.body == BodyLength::Chunked;
    loop {
        match call.read(usize::MAX) {
            Part::Data(data) if is_chunked => {
                let size = format!("{:x}\r\n", data.len());
                socket.write_all(&[size.as_bytes(), &data, b"\r\n"].concat())?;
            }
            Part::Data(data) => socket.write_all(&data)?,
            Part::End if is_chunked => return Ok(socket.write_all(b"0\r\n\r\n")?),
            Part::End => return Ok(()),
            Part::Closed => return Err(Over),
        }
    }
}

struct ResponseReader {
    socket: Socket,
    buffer: Vec<u8>,
}

impl ResponseReader {
    /// `false` at the end.
    fn fill(&mut self) -> Result<bool, Over> {
        let mut piece = [0; 64 * 1024];
        let n = self.socket.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..n]);
        Ok(n > 0)
    }

    fn pass(&mut self, call: &Held, is_head: bool) -> Result<(), Over> {
        loop {
            let size = loop {
                if let Some(size) = wire::head_size(&self.buffer) {
                    break size;
                }
                if !self.fill()? {
                    return Err(Over);
                }
            };
            let head: Vec<u8> = self.buffer.drain(..size).collect();
            let wire::Response { status, fields, .. } = wire::response_head(&head)?;
            let framing = framing(status, &fields, is_head);
            let length = fields.all("content-length").join(",");
            let length = length.split(',').next().and_then(|text| text.parse().ok());
            let fields = fields.0.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
            if !call.0.head(i64::from(status), fields, framing)? {
                return Err(Over);
            }
            call.0.flush();
            match framing {
                Framing::Interim => continue,
                Framing::Chunked => self.pass_chunks(call)?,
                Framing::None => drop(call.write(&self.buffer)),
                Framing::Length => self.pass_rest(call, length)?,
            }
            return if call.0.finish() { Ok(()) } else { Err(Over) };
        }
    }

    fn pass_chunks(&mut self, call: &Held) -> Result<(), Over> {
        let mut passed = 0;
        loop {
            let progress = wire::body(&self.buffer, Length::Chunked)?;
            if !call.write(&progress.body[passed..]) {
                return Err(Over);
            }
            passed = progress.body.len();
            if progress.done {
                return Ok(());
            }
            if !self.fill()? {
                return Err(Over);
            }
        }
    }

    /// Until the length is reached, or the end. What is beyond the length is said, too.
    fn pass_rest(&mut self, call: &Held, length: Option<usize>) -> Result<(), Over> {
        let mut passed = 0;
        loop {
            let part = std::mem::take(&mut self.buffer);
            if !call.write(&part) {
                return Err(Over);
            }
            passed += part.len();
            if length.is_some_and(|length| passed >= length) || !self.fill()? {
                return Ok(());
            }
        }
    }
}

/// As a server of applications decides. Transfer-Encoding is not the application's to say.
fn framing(status: u16, fields: &wire::Fields, is_head: bool) -> Framing {
    let has = |name| !fields.all(name).is_empty();
    match status {
        100..=199 => Framing::Interim,
        204 | 304 => Framing::None,
        _ if is_head => Framing::None,
        _ if has("transfer-encoding") && !has("content-length") => Framing::Chunked,
        _ => Framing::Length,
    }
}
