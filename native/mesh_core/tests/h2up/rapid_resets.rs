//! Clients that leave early reset streams of connections that they share with others. Servers take too many resets for
//! an attack (CVE-2023-44487) and end the connection.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use h2::Reason;
use http::Method;
use mesh_core::{Config, UpstreamAddr};

use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, RST_STREAM, block,
    frame,
};
use crate::support::h2_endpoint::{RawConnection, RawEndpoint};
use crate::support::http2::{Peer, answer, request};
use crate::support::mesh::Mesh;
use crate::support::run;

/// The status 200 (RFC 7541 appendix A).
const OK: &[u8] = &[0x88];
/// Its method GET, which h2 sends first.
const METHOD_GET: u8 = 0x82;
/// Fewer than any server.
const TOO_MANY: usize = 150;

/// An endpoint that answers nothing, and ends a connection with too many resets.
struct Guarded {
    address: UpstreamAddr,
    requests: Arc<AtomicUsize>,
    resets: Arc<AtomicUsize>,
    pings: Arc<AtomicUsize>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Guarded {
    fn start() -> Guarded {
        Guarded::with(serve)
    }

    fn with(serve: fn(RawConnection, &Counts)) -> Guarded {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = UpstreamAddr::Tcp(listener.local_addr().expect("address")).http2();
        let endpoint = Guarded {
            address,
            requests: Arc::default(),
            resets: Arc::default(),
            pings: Arc::default(),
            connections: Arc::default(),
        };
        let counts = [&endpoint.requests, &endpoint.resets, &endpoint.pings].map(Arc::clone);
        let connections = Arc::clone(&endpoint.connections);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("accept");
                let clone = stream.try_clone().expect("clone");
                connections.lock().expect("no panic").push(clone);
                let counts = counts.clone();
                std::thread::spawn(move || serve(RawConnection(stream), &counts));
            }
        });
        endpoint
    }

    fn wait(&self, requests: usize, resets: usize) {
        eventually("as many requests and resets", || {
            let seen = [&self.requests, &self.resets].map(|it| it.load(Ordering::SeqCst));
            seen == [requests, resets]
        });
    }

    /// Answers the first stream of the first connection.
    fn answer(&self) {
        let socket = self.connections.lock().expect("no panic")[0].try_clone();
        let mut connection = RawConnection(socket.expect("clone"));
        connection.send(HEADERS, END_HEADERS | END_STREAM, 1, OK);
    }
}

/// Of requests, resets and PINGs.
type Counts = [Arc<AtomicUsize>; 3];

fn serve(mut connection: RawConnection, [requests, all, pings]: &Counts) {
    connection.begin(&[]);
    let mut resets = 0;
    while let Some(frame) = connection.next() {
        requests.fetch_add(usize::from(frame.kind == HEADERS), Ordering::SeqCst);
        pings.fetch_add(usize::from(frame.kind == PING), Ordering::SeqCst);
        if frame.kind == RST_STREAM {
            all.fetch_add(1, Ordering::SeqCst);
            resets += 1;
        }
        if resets > TOO_MANY {
            connection.send(GOAWAY, 0, 0, &[[0; 4], ENHANCE_YOUR_CALM.to_be_bytes()].concat());
            let _ = connection.0.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn clients_that_leave_end_no_connection_of_others() {
    const CLIENTS: usize = 8;
    const STREAMS: usize = 100;
    let endpoint = Guarded::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let asked = || request(Method::POST, "a.test", "/", &[]);
        let mut patient = Peer::connect(mesh.address()).await;
        let (response, _) = patient.begin(asked(), true).await;
        endpoint.wait(1, 0);
        for at in 0..CLIENTS {
            let mut peer = Peer::connect(mesh.address()).await;
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(peer.begin(asked(), true).await);
            }
            endpoint.wait(1 + (at + 1) * STREAMS, at * STREAMS);
            for (_, stream) in &mut streams {
                stream.send_reset(Reason::CANCEL);
            }
            endpoint.wait(1 + (at + 1) * STREAMS, (at + 1) * STREAMS);
        }
        endpoint.answer();
        assert_eq!(answer(response).await.expect("an answer").status, 200);
    });
    let connections = mesh.service_stats().upstream_connections_opened;
    // As few as the bound allows.
    assert!((8..=10).contains(&connections), "{connections}");
}

/// h2 forgets streams that were reset, answers what comes on them with another reset, and counts these.
#[test]
fn frames_that_come_late_end_no_connection() {
    const STREAMS: usize = 80;
    const ROUNDS: usize = 40;
    let endpoint = Guarded::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let asked = || request(Method::POST, "a.test", "/", &[]);
        let mut patient = Peer::connect(mesh.address()).await;
        let (response, _) = patient.begin(asked(), true).await;
        endpoint.wait(1, 0);
        let mut peer = Peer::connect(mesh.address()).await;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(peer.begin(asked(), true).await);
        }
        endpoint.wait(1 + STREAMS, 0);
        for (_, stream) in &mut streams {
            stream.send_reset(Reason::CANCEL);
        }
        endpoint.wait(1 + STREAMS, STREAMS);
        // By itself h2 remembers a stream for a second.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let socket = endpoint.connections.lock().expect("no panic")[0].try_clone();
        let mut connection = RawConnection(socket.expect("clone"));
        for round in 1..=ROUNDS {
            for at in 1..=STREAMS {
                let stream = u32::try_from(1 + 2 * at).expect("few");
                connection.send(HEADERS, END_HEADERS, stream, OK);
            }
            // Once it is answered, all of them have been read.
            connection.send(PING, 0, 0, &[7; 8]);
            eventually("an answer", || endpoint.pings.load(Ordering::SeqCst) == round);
        }
        endpoint.answer();
        assert_eq!(answer(response).await.expect("an answer").status, 200);
    });
    assert_eq!(mesh.service_stats().upstream_connections_opened, 1);
}

/// Answers GET with a field that HTTP/2 forbids, and other requests not at all.
fn malform(mut connection: RawConnection, [requests, _, _]: &Counts) {
    connection.begin(&[]);
    while let Some(asked) = connection.next() {
        if asked.kind == HEADERS {
            requests.fetch_add(1, Ordering::SeqCst);
            if asked.payload[0] == METHOD_GET {
                let malformed = block(&[(":status", "200"), ("connection", "close")]);
                let bytes = frame(HEADERS, END_HEADERS, asked.stream, &malformed);
                // Fails if the gateway has closed it.
                let _ = connection.0.write_all(&bytes);
            }
        }
    }
}

/// h2 resets their streams, and ends a connection that has had 1,024 of them.
#[test]
fn malformed_responses_end_no_connection_of_others() {
    const AT_ONCE: usize = 50;
    /// A worker opens no more. Once they have as many resets as one may have, the first one gets what comes.
    const CONNECTIONS: usize = 128;
    let endpoint = Guarded::with(malform);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut patient = Peer::connect(mesh.address()).await;
        let asked = request(Method::POST, "a.test", "/", &[]);
        let (response, _) = patient.begin(asked, true).await;
        endpoint.wait(1, 0);
        let mut peer = Peer::connect(mesh.address()).await;
        let mut asked = 0;
        // The next one takes the place of the first one.
        while mesh.service_stats().upstream_connections_opened <= CONNECTIONS as u64 {
            let mut waiting = Vec::new();
            for _ in 0..AT_ONCE {
                waiting.push(peer.begin(request(Method::GET, "a.test", "/", &[]), true).await.0);
            }
            for response in waiting {
                assert_eq!(answer(response).await.expect("an answer").status, 502);
            }
            asked += AT_ONCE;
            assert!(asked < 1000 * CONNECTIONS, "no connection is given up");
        }
        endpoint.answer();
        assert_eq!(answer(response).await.expect("an answer").status, 200);
    });
}

/// A response that is whole by its length ends before its stream, which is no reason to reset it.
#[test]
fn a_stream_whose_response_is_whole_is_not_reset() {
    let head = |status: &[u8], length: &[u8]| [status, &[0x0f, 0x0d, 1], length].concat();
    for (ask, block, data) in [
        (get(""), head(OK, b"2"), &b"hi"[..]),
        (get("").replace("GET", "HEAD"), head(OK, b"9"), b""),
        (get(""), vec![0x89], b""),
    ] {
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[]);
            let first = connection.until(HEADERS).stream;
            connection.send(HEADERS, END_HEADERS, first, &block);
            if !data.is_empty() {
                connection.send(DATA, 0, first, data);
            }
            for _ in 0..2 {
                let next = loop {
                    let frame = connection.next().expect("a request");
                    assert_ne!(frame.kind, RST_STREAM, "the stream is reset");
                    if frame.kind == HEADERS {
                        break frame.stream;
                    }
                };
                connection.send(HEADERS, END_HEADERS | END_STREAM, next, OK);
            }
            connection.send(DATA, END_STREAM, first, b"");
            while let Some(frame) = connection.next() {
                assert_ne!(frame.kind, RST_STREAM, "the stream is reset");
            }
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        let mut client = Client::connect(mesh.address());
        client.send(&ask);
        let answer = client.try_response(ask.starts_with("HEAD")).expect("a response");
        assert_eq!(answer.body, data);
        for _ in 0..2 {
            assert_eq!(client.ask(get("")).status, 200);
        }
        drop(mesh);
    }
}

/// Streams that have not ended take room at the endpoint, even if their responses are whole.
#[test]
fn streams_that_do_not_end_take_no_room_of_others() {
    for limit in [1, 3, 30] {
        let (tell, told) = std::sync::mpsc::channel();
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[0, 3, 0, 0, 0, limit]);
            let mut open = std::collections::HashSet::new();
            let mut most = 0;
            while let Some(frame) = connection.next() {
                if frame.kind == RST_STREAM {
                    open.remove(&frame.stream);
                }
                if frame.kind == HEADERS {
                    open.insert(frame.stream);
                    most = most.max(open.len());
                    let head = [OK, &[0x0f, 0x0d, 1, b'2']].concat();
                    connection.send(HEADERS, END_HEADERS, frame.stream, &head);
                    connection.send(DATA, 0, frame.stream, b"hi");
                }
            }
            tell.send(most).expect("the test listens");
        });
        let mut config = Config::default();
        config.timeouts.response = Some(Duration::from_secs(5));
        let mesh = Mesh::to(config, &endpoint.address);
        let mut client = Client::connect(mesh.address());
        for at in 0..40 {
            let answer = client.ask(get(""));
            assert_eq!((answer.status, &answer.body[..]), (200, &b"hi"[..]), "{limit}: {at}");
        }
        assert_eq!(mesh.service_stats().upstream_connections_opened, 1);
        drop((client, mesh));
        let most = told.recv().expect("a number");
        assert!(most <= usize::from(limit), "{limit}: {most} streams are open");
    }
}
