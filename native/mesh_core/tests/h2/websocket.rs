//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT becomes an upgrade at the endpoint.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::Request;
use mesh_core::{Config, UpstreamAddr};

use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::endpoint::{Endpoint, reply};
use crate::support::eventually;
use crate::support::frames::*;
use crate::support::http2::{Answer, Peer, answer, get, read, send as upload};
use crate::support::hyper_ends::accept;
use crate::support::mesh::Mesh;
use crate::support::run;
use crate::support::wire::{self, Request as Seen};

/// An endpoint that takes one WebSocket, and sends back what comes. What it saw comes out of the
/// channel: the request, and then that the other side has closed.
fn echo(greeting: &'static str) -> (UpstreamAddr, Receiver<Option<Seen>>) {
    endpoint(greeting, |mut socket| {
        let mut piece = [0; 4096];
        while let Ok(n) = socket.read(&mut piece) {
            if n == 0 || socket.write_all(&piece[..n]).is_err() {
                break;
            }
        }
    })
}

/// An endpoint that takes one WebSocket and goes on with it in its own way.
fn endpoint(
    greeting: &'static str,
    goes_on: impl FnOnce(TcpStream) + Send + 'static,
) -> (UpstreamAddr, Receiver<Option<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = UpstreamAddr::Tcp(listener.local_addr().expect("address"));
    let (tell, seen) = channel();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accept");
        let mut head = Vec::new();
        while wire::head_size(&head).is_none() {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let (request, _) = wire::request(&head).expect("a request");
        let key = request.fields.one("sec-websocket-key").expect("one key");
        let accept = accept(key.as_bytes());
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n{greeting}"
        );
        socket.write_all(response.as_bytes()).expect("write");
        let _ = tell.send(Some(request));
        goes_on(socket);
        let _ = tell.send(None);
    });
    (address, seen)
}

fn connect() -> Request<()> {
    let mut request = Request::connect("http://a.test/socket/websocket?vsn=2.0.0")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .header("origin", "http://a.test")
        .body(())
        .expect("a request");
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// RFC 8441 sections 3 to 5.
#[test]
fn an_extended_connect_becomes_a_tunnel() {
    let (address, seen) = echo("welcome");
    let mesh = Mesh::to(Config::default(), &address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        eventually("the setting has come", || peer.requests.is_extended_connect_protocol_enabled());
        let (response, mut up) = peer.begin(connect(), false).await;
        let (head, mut down) = response.await.expect("a response").into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["sec-websocket-protocol"], "chat");
        for gone in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(down.data().await.expect("data").expect("no error"), "welcome");
        assert_eq!(mesh.service_stats().tunnels_open, 1);
        for n in 0..100_u32 {
            let message = Bytes::from(n.to_string().repeat(100));
            upload(&mut up, message.clone(), false).await.expect("send");
            let mut back = Vec::new();
            while back.len() < message.len() {
                let data = down.data().await.expect("data").expect("no error");
                down.flow_control().release_capacity(data.len()).expect("release");
                back.extend_from_slice(&data);
            }
            assert_eq!(back, message);
        }
        // RFC 8441 section 5: END_STREAM is the orderly end, both ways.
        up.send_data(Bytes::new(), true).expect("end");
        assert!(read(&mut down).await.expect("an orderly end").0.is_empty());
    });
    let request = seen.recv().expect("the request").expect("the request");
    assert_eq!(request.line, "GET /socket/websocket?vsn=2.0.0 HTTP/1.1");
    assert_eq!(request.fields.all("upgrade"), ["websocket"]);
    assert_eq!(request.fields.all("connection"), ["Upgrade"]);
    assert_eq!(request.fields.all("sec-websocket-version"), ["13"]);
    assert_eq!(request.fields.all("host"), ["a.test"]);
    assert_eq!(request.fields.all("origin"), ["http://a.test"]);
    assert!(seen.recv().expect("the end").is_none());
    mesh.eventually("the tunnel is over", |_| mesh.service_stats().tunnels_open == 0);
    assert_eq!(mesh.service_stats().tunnels_total, 1);
}

/// The endpoint closes with much of what the client sends unread, which resets its connection.
#[test]
fn last_words_reach_a_client_that_is_sending() {
    const TOO_BIG: &[u8] = b"\x88\x02\x03\xf1";
    for _ in 0..20 {
        let (address, _seen) = endpoint("", |mut socket| {
            socket.read_exact(&mut [0; 100_000]).expect("a long message");
            socket.write_all(TOO_BIG).expect("write");
        });
        let mesh = Mesh::to(Config::default(), &address);
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, mut up) = peer.begin(connect(), false).await;
            let mut down = response.await.expect("a response").into_body();
            let message = tokio::spawn(async move {
                loop {
                    up.reserve_capacity(65_536);
                    match poll_fn(|cx| up.poll_capacity(cx)).await {
                        Some(Ok(room)) => {
                            let piece = Bytes::from(vec![b'x'; room.min(65_536)]);
                            if up.send_data(piece, false).is_err() {
                                return;
                            }
                        }
                        _ => return,
                    }
                }
            });
            assert_eq!(read(&mut down).await.expect("an orderly end").0, TOO_BIG);
            message.abort();
        });
    }
}

/// A client that leaves its stream open although its endpoint has gone holds nothing for long, and
/// its connection goes on.
#[test]
fn a_tunnel_is_closed_after_its_endpoint_left() {
    let (address, _seen) = endpoint("bye", drop);
    let mut config = Config::default();
    config.timeouts.tunnel_close = Some(Duration::from_millis(300));
    let mesh = Mesh::to(config, &address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _up) = peer.begin(connect(), false).await;
        let mut down = response.await.expect("a response").into_body();
        assert_eq!(read(&mut down).await.expect("an orderly end").0, b"bye");
        mesh.eventually("it is over", |_| {
            let stats = mesh.service_stats();
            (stats.tunnels_open, stats.upstream_connections_open) == (0, 0)
        });
        assert_eq!(peer.ask(get("b.test", "/")).await.status, 404);
    });
}

/// A client that resets the stream, or goes, ends the endpoint's side.
#[test]
fn a_reset_ends_the_tunnel() {
    let (address, seen) = echo("");
    let mesh = Mesh::to(Config::default(), &address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut up) = peer.begin(connect(), false).await;
        assert_eq!(response.await.expect("a response").status(), 200);
        up.send_reset(h2::Reason::CANCEL);
        assert!(seen.recv().expect("the request").is_some());
        assert!(seen.recv().expect("the end").is_none());
    });
    mesh.eventually("the tunnel is over", |_| mesh.service_stats().tunnels_open == 0);
}

/// Tunnels do not hold up a stop.
#[test]
fn a_tunnel_is_closed_when_the_gateway_stops() {
    let (address, seen) = echo("");
    let mut mesh = Mesh::to(Config::default(), &address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _up) = peer.begin(connect(), false).await;
        let response = response.await.expect("a response");
        mesh.eventually("it is a tunnel", |_| mesh.service_stats().tunnels_open == 1);
        mesh.gateway.stop(None);
        assert!(seen.recv().expect("the request").is_some());
        assert!(seen.recv().expect("the end").is_none());
        drop(response);
    });
    mesh.join();
}

fn refused(response: &str) -> Answer {
    let endpoint = Endpoint::start();
    endpoint.script(reply(response));
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _up) = peer.begin(connect(), false).await;
        answer(response).await.expect("answer")
    })
}

/// RFC 8441 section 5 and RFC 6455 section 4.1: only a whole handshake is a tunnel. An endpoint's
/// refusal is passed on; what would look like success is not.
#[test]
fn a_failed_handshake_opens_no_tunnel() {
    let forbidden = refused("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!((forbidden.status.as_u16(), &forbidden.body[..]), (403, &b"no"[..]));
    assert_eq!(refused("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").status, 502);
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n";
    assert_eq!(refused(&format!("{switched}\r\n")).status, 502);
    let wrong = format!("{switched}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    assert_eq!(refused(&wrong).status, 502);
}

/// RFC 8441 section 4: other protocols are not known here.
#[test]
fn other_protocols_are_refused() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let mut request = connect();
        request.extensions_mut().insert(Protocol::from_static("connect-udp"));
        let (response, _up) = peer.begin(request, false).await;
        assert_eq!(answer(response).await.expect("answer").status, 501);
    });
    assert!(endpoint.requests().is_empty());
}

/// A WebSocket has no trailers (RFC 8441 section 5); a client that sends some has ended its side with them.
#[test]
fn trailers_end_a_tunnel() {
    let (address, seen) = echo("");
    let mesh = Mesh::to(Config::default(), &address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut up) = peer.begin(connect(), false).await;
        let mut down = response.await.expect("a response").into_body();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-trailer", http::HeaderValue::from_static("yes"));
        up.send_trailers(trailers).expect("trailers");
        assert!(seen.recv().expect("the request").is_some());
        assert!(seen.recv_timeout(PATIENCE).expect("the end").is_none());
        assert!(read(&mut down).await.expect("an orderly end").0.is_empty());
    });
    mesh.eventually("the tunnel is over", |_| mesh.service_stats().tunnels_open == 0);
}

/// With nearly all of `limits.buffer_bytes` in use, a tunnel waits until its client has taken some; others
/// are served meanwhile.
#[test]
fn a_tunnel_waits_for_memory_without_holding_others_up() {
    const MESSAGE: usize = 24 << 20;
    let (address, _seen) = endpoint("", |mut socket| {
        let _ = socket.write_all(&vec![b'x'; MESSAGE]);
    });
    let mut config = Config::default();
    // Of which three quarters are for what is queued: no multiple of a buffer.
    config.limits.buffer_bytes = 50_000;
    let mesh = Mesh::to(config, &address);
    let mut raw = Raw::open(mesh.address());
    let most = 0x7fff_0000_u32.to_be_bytes();
    raw.send(SETTINGS, 0, 0, &[&[0, 4][..], &most].concat());
    raw.send(WINDOW_UPDATE, 0, 0, &most);
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ];
    raw.send(HEADERS, END_HEADERS, 1, &block(&fields));
    mesh.eventually("it is a tunnel", |_| mesh.service_stats().tunnels_open == 1);
    let mut before = u64::MAX;
    eventually("the client's socket is full", || {
        std::thread::sleep(Duration::from_millis(100));
        let sent = mesh.service_stats().tunnel_sent_bytes;
        sent > 0 && sent == std::mem::replace(&mut before, sent)
    });
    assert!(before < MESSAGE as u64, "the client's system takes all of it");
    let other = "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n";
    assert_eq!(Client::connect(mesh.address()).ask(other).status, 404);
    let mut got = 0;
    while got < MESSAGE {
        got += raw.until(DATA, 1).payload.len();
    }
}
