//! Which connections have a place for a request, and who learns of it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use mesh_core::{Config, UpstreamAddr};

use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::frames::{END_HEADERS, END_STREAM, HEADERS};
use crate::support::h2_endpoint::RawConnection;
use crate::support::mesh::Mesh;

/// The status 200 (RFC 7541 appendix A).
const OK: &[u8] = &[0x88];

/// An endpoint with a thread for each connection, and how many it has accepted.
fn endpoint(
    serve: impl Fn(RawConnection) + Send + Sync + 'static,
) -> (UpstreamAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = UpstreamAddr::Tcp(listener.local_addr().expect("address")).http2();
    let (accepted, serve) = (Arc::<AtomicUsize>::default(), Arc::new(serve));
    let count = Arc::clone(&accepted);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, serve) = (socket.expect("accept"), Arc::clone(&serve));
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || serve(RawConnection(socket)));
        }
    });
    (address, accepted)
}

fn at_most(streams: u8) -> [u8; 6] {
    [0, 3, 0, 0, 0, streams]
}

fn in_flight(mesh: &Mesh, number: u64) {
    eventually("the requests have come", || mesh.service_stats().in_flight == number);
}

/// Answers the head of an HTTP/1.1 request.
fn refuse(mut connection: RawConnection) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.0.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    connection.0.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").expect("sent");
    // Until the gateway has closed it.
    let _ = connection.0.read(&mut [0]);
}

/// They wait for the first connection, which tells that they need another one.
#[test]
fn websockets_that_leave_for_http1_leave_their_room_to_others() {
    const WEBSOCKETS: u64 = 4;
    let (go, goes) = mpsc::channel();
    let goes = Mutex::new(goes);
    let (address, _) = endpoint(move |mut connection| {
        let mut first = [0; 3];
        while connection.0.peek(&mut first).is_ok_and(|n| 0 < n && n < 3) {}
        if &first != b"PRI" {
            return refuse(connection);
        }
        goes.lock().expect("once").recv().expect("the test goes on");
        connection.begin(&at_most(1));
        while let Some(frame) = connection.next() {
            if frame.kind == HEADERS {
                connection.send(HEADERS, END_HEADERS | END_STREAM, frame.stream, OK);
            }
        }
    });
    let mut config = Config::default();
    // Longer than the patience of the client.
    config.timeouts.connect = Some(Duration::from_secs(60));
    let mesh = Mesh::to(config, &address);
    let upgrade = get("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    let mut clients = Vec::new();
    for number in 1..=WEBSOCKETS {
        let mut client = Client::connect(mesh.address());
        client.send(&upgrade);
        clients.push(client);
        in_flight(&mesh, number);
    }
    let mut other = Client::connect(mesh.address());
    other.send(get(""));
    in_flight(&mesh, WEBSOCKETS + 1);
    go.send(()).expect("the endpoint listens");
    assert_eq!(other.response().status, 200);
    for mut client in clients {
        assert_eq!(client.response().status, 403);
    }
}

#[test]
fn an_endpoint_that_accepts_no_stream_gets_few_connections() {
    let (address, accepted) = endpoint(|mut connection| {
        connection.begin(&at_most(0));
        while connection.next().is_some() {}
    });
    let mut config = Config::default();
    config.timeouts.connect = Some(Duration::from_secs(1));
    let mesh = Mesh::to(config, &address);
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(mesh.address())).collect();
    for client in &mut clients {
        client.send(get(""));
    }
    for mut client in clients {
        assert_eq!(client.response().status, 504);
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 4);
}
