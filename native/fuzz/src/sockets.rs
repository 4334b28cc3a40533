//! `src/gateway.rs` puts the codec together as a connection does, and might do it wrong. So the
//! inputs of `differential` go through a real gateway, too, over real sockets to a real endpoint.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use mesh_core::config::Limits;
use mesh_core::{Config, Gateway, ServiceSpec, UpstreamAddr};

use crate::downgrade::{self, Sent};
use crate::gateway::{self, Cuts, DEFAULT_HOST, Forwarded};
use crate::model::{self, Framing, Hop};
use crate::reader::{self, Read};

/// Nothing here takes long, and what does has lost its way.
const PATIENCE: Duration = Duration::from_secs(20);

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A gateway with one endpoint, which writes down what it is asked.
pub struct Stage {
    gateway: Arc<Gateway>,
    worker: Option<thread::JoinHandle<()>>,
    seen: Arc<Mutex<Vec<Forwarded>>>,
    port: u16,
}

impl Stage {
    pub fn new() -> Stage {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let endpoint = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Forwarded>>> = Arc::default();
        let log = Arc::clone(&seen);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, log) = (stream.expect("a connection"), Arc::clone(&log));
                thread::spawn(move || answer(stream, &log));
            }
        });

        // The names of requests are random, which the model does not like.
        let limits = Limits { header_count: gateway::MOST_FIELDS, ..Limits::default() };
        let config = Config { limits, request_id: false, ..Config::default() };
        let gateway = Arc::new(Gateway::open(config).expect("a gateway"));
        let service = ServiceSpec::new(DEFAULT_HOST, vec![UpstreamAddr::Tcp(endpoint)]);
        gateway.set_routes(vec![service], Some(DEFAULT_HOST)).expect("a table");
        let port = gateway.local_addrs()[0].port();
        let worker = Arc::clone(&gateway);
        let worker = thread::spawn(move || worker.run_worker(0).expect("a worker"));
        Stage { gateway, worker: Some(worker), seen, port }
    }

    pub fn hop(&self) -> Hop<'static> {
        let hop = gateway::hop(Ipv4Addr::LOCALHOST, false);
        Hop { port: self.port, names_requests: false, ..hop }
    }

    /// Sends all of it on one connection, and says which requests arrived whole.
    pub fn serve(&self, data: &[u8], cuts: Cuts) -> Vec<Forwarded> {
        let mut client = self.connect();
        let mut from = 0;
        for end in cuts.ends(data.len()) {
            // Refused already, maybe.
            if client.write_all(&data[from..end]).is_err() {
                break;
            }
            from = end;
        }
        let _ = client.shutdown(std::net::Shutdown::Write);
        self.seen_after(client.read_to_end(&mut Vec::new()))
    }

    /// Sends one request of HTTP/2, and says what arrived of it.
    pub fn serve_h2(&self, sent: &Sent) -> Vec<Forwarded> {
        let mut client = self.connect();
        self.seen_after(downgrade::send(sent, &mut client))
    }

    fn connect(&self) -> TcpStream {
        self.seen.lock().expect("no panic").clear();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let client = TcpStream::connect(address).expect("a connection");
        client.set_nodelay(true).expect("a socket");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        client
    }

    fn seen_after<T>(&self, result: std::io::Result<T>) -> Vec<Forwarded> {
        if let Err(error) = result {
            let gave_up = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!gave_up, "the gateway neither answers nor closes");
        }
        std::mem::take(&mut self.seen.lock().expect("no panic"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.gateway.stop(Some(Duration::ZERO));
        if let Some(worker) = self.worker.take() {
            let ended = worker.join();
            // A failure under way says more than what comes of it.
            if !thread::panicking() {
                ended.expect("no panic in the worker");
                assert_eq!(self.gateway.stats().gateway.panics, 0, "connections that panicked");
            }
        }
    }
}

/// The endpoint: reads requests as naively as can be, and is content with all of them.
fn answer(mut stream: TcpStream, log: &Mutex<Vec<Forwarded>>) {
    let mut received = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        while let Some(request) = take(&mut received) {
            let is_request = !request.head.is_empty();
            log.lock().expect("no panic").push(request);
            if !is_request || stream.write_all(ANSWER).is_err() {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => received.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
}

/// The request at the front, if it is whole. One without a head is no request at all.
fn take(received: &mut Vec<u8>) -> Option<Forwarded> {
    let nonsense = || Some(Forwarded { head: Vec::new(), body: Vec::new() });
    let head = match reader::request_head(received, gateway::MOST_FIELDS + 16) {
        Read::Whole(head) => head,
        Read::Partial => return None,
        Read::Wrong(_) => return nonsense(),
    };
    let Ok(request) = model::request(head) else { return nonsense() };
    let head = request.head.size;
    let rest = &received[head..];
    let body = match request.framing {
        Framing::None | Framing::Close => 0,
        Framing::Length(length) => length.try_into().ok().filter(|n| *n <= rest.len())?,
        Framing::Chunked => match reader::chunked(rest, false) {
            Read::Whole(body) => body.size,
            Read::Partial => return None,
            Read::Wrong(_) => return nonsense(),
        },
    };
    let message: Vec<u8> = received.drain(..head + body).collect();
    let (head, body) = message.split_at(head);
    Some(Forwarded { head: head.to_vec(), body: body.to_vec() })
}
