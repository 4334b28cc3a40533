//! An endpoint on a real socket: it records every byte it gets and answers each request as a script
//! says, step by step. Requests without a script get a plain 200 that names their target.

use std::collections::{HashSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mesh_core::UpstreamAddr;

use super::PATIENCE;
use super::hyper_ends;
use super::second_reading;
use super::socket::Socket;
use super::wire::{self, Length, Request};

/// One step of an answer.
#[derive(Clone, Debug)]
pub enum Do {
    /// Read the rest of the request body.
    Body,
    /// Read until this many body bytes (raw, framing included) have come.
    Take(usize),
    Send(Vec<u8>),
    /// A 200 whose body is the request's target; without a body for HEAD.
    Answer,
    /// Wait until the test opens the gate of this name.
    Gate(&'static str),
    /// Let the test know, by this name, that the steps before are done.
    Reach(&'static str),
    /// Accept the WebSocket that was asked for.
    Upgrade,
    /// Work for this long.
    Work(Duration),
    /// Read and record until the other side closes.
    UntilClosed,
    /// Send back what comes, until the other side closes.
    Echo,
    Fin,
    Close,
    Reset,
}

pub type Script = Vec<Do>;

/// A script step that sends these bytes.
pub fn send(bytes: impl AsRef<[u8]>) -> Do {
    Do::Send(bytes.as_ref().to_vec())
}

/// Reads the request to its end, then answers with these bytes.
pub fn reply(bytes: impl AsRef<[u8]>) -> Script {
    vec![Do::Body, send(bytes)]
}

/// A 200 with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// What one connection brought.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub raw: Vec<u8>,
    pub ended: bool,
    /// It brought something that is no request.
    pub malformed: Option<String>,
}

#[derive(Default)]
pub struct State {
    pub connections: Vec<Seen>,
    pub requests: Vec<Request>,
    scripts: VecDeque<Script>,
    /// For requests without a script of their own.
    usual: Option<Script>,
    on_accept: VecDeque<Script>,
    gates: HashSet<&'static str>,
    reached: HashSet<&'static str>,
    sockets: Vec<Option<Socket>>,
    /// Counts how often everything was forgotten.
    era: usize,
    stopping: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.lock());
        self.changed.notify_all();
    }

    /// `false` when it did not come true in time.
    fn wait(&self, patience: Duration, mut holds: impl FnMut(&State) -> bool) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        while !holds(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

pub struct Endpoint {
    pub address: UpstreamAddr,
    shared: Arc<Shared>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Endpoint {
    pub fn start() -> Endpoint {
        Endpoint::on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn on(address: SocketAddr) -> Endpoint {
        let listener = TcpListener::bind(address).expect("bind");
        let address = listener.local_addr().expect("address");
        Endpoint::serve(Listener::Tcp(listener), UpstreamAddr::Tcp(address))
    }

    pub fn start_unix() -> Endpoint {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("mesh-test-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("bind");
        Endpoint::serve(Listener::Unix(listener, path.clone()), UpstreamAddr::Unix(path))
    }

    fn serve(listener: Listener, address: UpstreamAddr) -> Endpoint {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || accept(&listener, &for_thread));
        Endpoint { address, shared, accepting: Some(accepting) }
    }

    pub fn port(&self) -> u16 {
        match &self.address {
            UpstreamAddr::Tcp(address) => address.port(),
            UpstreamAddr::Loopback(port) => *port,
            _ => 0,
        }
    }

    /// The next request without a script of its own is answered so.
    pub fn script(&self, script: Script) -> &Endpoint {
        self.shared.change(|state| state.scripts.push_back(script));
        self
    }

    /// Requests without a script of their own are answered so.
    pub fn usually(&self, script: Script) -> &Endpoint {
        self.shared.change(|state| state.usual = Some(script));
        self
    }

    /// What the next connection does before it reads anything.
    pub fn on_accept(&self, script: Script) -> &Endpoint {
        self.shared.change(|state| state.on_accept.push_back(script));
        self
    }

    pub fn open_gate(&self, name: &'static str) {
        self.shared.change(|state| {
            state.gates.insert(name);
        });
    }

    /// Forgets what was seen, and scripts that were not used.
    pub fn forget(&self) {
        self.shared.change(|state| {
            state.requests.clear();
            state.era += 1;
            state
                .connections
                .iter_mut()
                .for_each(|c| *c = Seen { ended: c.ended, ..Seen::default() });
            state.scripts.clear();
            state.on_accept.clear();
            state.gates.clear();
            state.reached.clear();
        });
    }

    pub fn look<T>(&self, how: impl FnOnce(&State) -> T) -> T {
        how(&self.shared.lock())
    }

    pub fn wait(&self, what: &str, holds: impl FnMut(&State) -> bool) {
        assert!(self.shared.wait(PATIENCE, holds), "the endpoint never saw: {what}");
    }

    pub fn wait_for_requests(&self, n: usize) {
        self.wait(&format!("{n} requests"), |state| state.requests.len() >= n);
    }

    /// Waits for a script to come to its [`Do::Reach`].
    pub fn wait_for_step(&self, name: &'static str) {
        self.wait(name, |state| state.reached.contains(name));
    }

    pub fn wait_for_bytes(&self, bytes: &[u8]) {
        let has = |seen: &Seen| seen.raw.windows(bytes.len()).any(|w| w == bytes);
        self.wait("some bytes", |state| state.connections.iter().any(has));
    }

    pub fn requests(&self) -> Vec<Request> {
        self.look(|state| state.requests.clone())
    }

    /// Compares what was read here with what hyper's server reads.
    pub fn read_again(&self) -> Result<(), String> {
        self.look(|state| state.requests.iter().try_for_each(second_reading::of_request))
    }

    pub fn open_connections(&self) -> usize {
        self.look(|state| state.connections.iter().filter(|c| !c.ended).count())
    }

    /// Waits until everything that has arrived has been recorded.
    pub fn settle(&self) {
        let unread = |state: &State| state.sockets.iter().flatten().any(Socket::has_unread);
        super::eventually("the endpoint has read all", || !self.look(unread));
    }

    /// Closes what is open (after all: with a reset), and the listener.
    pub fn die(&mut self) {
        self.shared.change(|state| {
            state.stopping = true;
            for socket in state.sockets.iter().flatten() {
                socket.reset_on_close();
                socket.shutdown(Shutdown::Both);
            }
        });
        // Wakes the accepting thread.
        match &self.address {
            UpstreamAddr::Tcp(address) => {
                // What is bound to `::` is there, too, and only there where IPv6 is switched off.
                let ipv4 = SocketAddr::from(([127, 0, 0, 1], address.port()));
                drop(TcpStream::connect(address).or_else(|_| TcpStream::connect(ipv4)));
            }
            UpstreamAddr::Loopback(port) => drop(TcpStream::connect(("localhost", *port))),
            UpstreamAddr::Unix(path) => drop(UnixStream::connect(path)),
            UpstreamAddr::Peer(_) | UpstreamAddr::Vm(_) | UpstreamAddr::Http2(_) => {}
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.wait("the end of all its connections", |state| {
            state.connections.iter().all(|c| c.ended)
        });
    }

    /// Closes all connections in an orderly way and goes on listening.
    pub fn close_connections(&self) {
        self.shared.change(|state| {
            for socket in state.sockets.iter().flatten() {
                socket.shutdown(Shutdown::Both);
            }
        });
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.accepting.is_some() && !std::thread::panicking() {
            self.die();
        }
        if !std::thread::panicking() {
            self.read_again().expect("another reading");
        }
    }
}

fn accept(listener: &Listener, shared: &Arc<Shared>) {
    loop {
        let socket = match listener {
            Listener::Tcp(listener) => listener.accept().map(|(s, _)| Socket::Tcp(s)),
            Listener::Unix(listener, _) => listener.accept().map(|(s, _)| Socket::Unix(s)),
        };
        if shared.lock().stopping {
            break;
        }
        let Ok(socket) = socket else {
            // Only for lack of descriptors, in the test that is about that.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        if let Socket::Tcp(stream) = &socket {
            let _ = stream.set_nodelay(true);
        }
        let Ok(clone) = socket.try_clone() else { continue };
        let mut index = 0;
        shared.change(|state| {
            index = state.connections.len();
            state.connections.push(Seen::default());
            state.sockets.push(Some(clone));
        });
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let mut line = Line { socket, shared, index, buffer: Vec::new() };
            line.run();
            line.end();
        });
    }
    if let Listener::Unix(_, path) = listener {
        let _ = std::fs::remove_file(path);
    }
}

/// One connection of the endpoint.
struct Line {
    socket: Socket,
    shared: Arc<Shared>,
    index: usize,
    buffer: Vec<u8>,
}

/// The connection is over.
struct Over;

impl Line {
    fn run(&mut self) {
        let first = self.shared.lock().on_accept.pop_front();
        if let Some(script) = first
            && self.play(script, &mut None).is_err()
        {
            return;
        }
        while self.one_request().is_ok() {}
    }

    fn end(self) {
        let Line { socket, shared, index, .. } = self;
        shared.lock().sockets[index] = None;
        drop(socket);
        shared.change(|state| state.connections[index].ended = true);
    }

    /// Reads and records in one step, so that nothing is ever read and not yet recorded.
    fn fill(&mut self) -> Result<(), Over> {
        self.socket.wait_readable().map_err(|_| Over)?;
        let mut piece = [0; 64 * 1024];
        let mut state = self.shared.lock();
        let n = self.socket.read(&mut piece).map_err(|_| Over)?;
        state.connections[self.index].raw.extend_from_slice(&piece[..n]);
        drop(state);
        self.shared.changed.notify_all();
        self.buffer.extend_from_slice(&piece[..n]);
        if n == 0 { Err(Over) } else { Ok(()) }
    }

    fn malformed(&self, why: String) -> Over {
        self.shared.change(|state| state.connections[self.index].malformed = Some(why));
        Over
    }

    fn one_request(&mut self) -> Result<(), Over> {
        let size = loop {
            match wire::head_size(&self.buffer) {
                Some(size) => break size,
                None => self.fill()?,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..size).collect();
        let (request, length) = wire::request(&head).map_err(|why| self.malformed(why))?;
        let mut state = self.shared.lock();
        let at = (state.era, state.requests.len());
        state.requests.push(request.clone());
        // Not part of any case: asked to see whether all before it has gone through.
        let sentinel = request.target.starts_with("/sentinel");
        let script =
            if sentinel { None } else { state.scripts.pop_front().or_else(|| state.usual.clone()) };
        let script = script.unwrap_or_else(|| vec![Do::Body, Do::Answer]);
        drop(state);
        self.shared.changed.notify_all();
        let mut current = Some(Current { request, length, at, read: false });
        self.update(&mut current)?;
        self.play(script, &mut current)?;
        // A script that left the body unread must not have it taken for a request.
        while !self.update(&mut current)? {
            self.fill()?;
        }
        Ok(())
    }

    /// Takes what has come of the body; `true` once it is whole.
    fn update(&mut self, current: &mut Option<Current>) -> Result<bool, Over> {
        let Some(current) = current else { return Ok(true) };
        if current.read {
            return Ok(true);
        }
        let progress =
            wire::body(&self.buffer, current.length).map_err(|why| self.malformed(why))?;
        current.read = progress.done;
        self.shared.change(|state| {
            let (era, at) = current.at;
            if let Some(request) = state.requests.get_mut(at).filter(|_| state.era == era) {
                request.body.clone_from(&progress.body);
                request.trailers.clone_from(&progress.trailers);
                request.whole = progress.done;
                if progress.done {
                    request.raw_body = self.buffer[..progress.used].to_vec();
                }
            }
        });
        if progress.done {
            self.buffer.drain(..progress.used);
        }
        Ok(progress.done)
    }

    fn play(&mut self, script: Script, current: &mut Option<Current>) -> Result<(), Over> {
        for step in script {
            match step {
                Do::Body => {
                    while !self.update(current)? {
                        self.fill()?;
                    }
                }
                Do::Take(n) => {
                    while self.buffer.len() < n {
                        self.fill()?;
                    }
                }
                Do::Send(bytes) => self.socket.write_all(&bytes).map_err(|_| Over)?,
                Do::Answer => {
                    let answer = current.as_ref().map(|c| plain_answer(&c.request));
                    let answer = answer.unwrap_or_default();
                    self.socket.write_all(answer.as_bytes()).map_err(|_| Over)?;
                }
                Do::Gate(name) => {
                    let open = |state: &State| state.gates.contains(name) || state.stopping;
                    // Longer than any test waits: an endpoint that goes on by itself hides a failure.
                    self.shared.wait(10 * PATIENCE, open);
                }
                Do::Reach(name) => self.shared.change(|state| {
                    state.reached.insert(name);
                }),
                Do::Upgrade => {
                    let key = current.as_ref().map(|c| c.request.fields.one("sec-websocket-key"));
                    let accept = key.flatten().map(|key| hyper_ends::accept(key.as_bytes()));
                    let accept = accept.map(|a| format!("Sec-WebSocket-Accept: {a}\r\n"));
                    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n";
                    let rest = format!("{}Connection: Upgrade\r\n\r\n", accept.unwrap_or_default());
                    self.socket
                        .write_all((head.to_string() + &rest).as_bytes())
                        .map_err(|_| Over)?;
                }
                Do::Work(time) => std::thread::sleep(time),
                Do::UntilClosed => {
                    while self.fill().is_ok() {}
                    self.update(current)?;
                    // Whatever else came is on record, and no request.
                    self.buffer.clear();
                }
                Do::Echo => loop {
                    let bytes = std::mem::take(&mut self.buffer);
                    self.socket.write_all(&bytes).map_err(|_| Over)?;
                    self.fill()?;
                },
                Do::Fin => self.socket.shutdown(Shutdown::Write),
                Do::Close => return Err(Over),
                Do::Reset => {
                    self.socket.reset_on_close();
                    return Err(Over);
                }
            }
        }
        Ok(())
    }
}

/// The request that is being answered.
struct Current {
    request: Request,
    length: Length,
    /// Era and place in the list of requests.
    at: (usize, usize),
    read: bool,
}

fn plain_answer(request: &Request) -> String {
    let body = if request.method == "HEAD" { "" } else { &request.target };
    let length = request.target.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-Endpoint: yes\r\n\r\n{body}")
}
