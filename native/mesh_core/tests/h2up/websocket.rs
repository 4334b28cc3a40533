//! WebSockets to endpoints that speak HTTP/2: as an extended CONNECT where the endpoint allows it (RFC 8441), as an
//! upgrade of HTTP/1.1 on the same port where it does not.

use std::future::{pending, poll_fn};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{Method, Request};
use mesh_core::{Config, UpstreamAddr};
use tokio::sync::Semaphore;

use crate::support::client::{Client, End, get};
use crate::support::eventually;
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, block, frame,
};
use crate::support::h2_endpoint::{H2Endpoint, RawConnection, RawEndpoint, echo, response};
use crate::support::http2::{Peer, answer, read, request, send};
use crate::support::hyper_ends::accept;
use crate::support::mesh::Mesh;
use crate::support::run;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The accept for that key (RFC 6455 section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// SETTINGS_ENABLE_CONNECT_PROTOCOL is 1.
const ALLOWED: [u8; 6] = [0, 8, 0, 0, 0, 1];
const MANY: usize = 8 * 1024 * 1024;

/// An upgrade by HTTP/1.1.
fn upgrade() -> String {
    get(&format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\nOrigin: http://a.test\r\n"
    ))
}

/// An upgrade by HTTP/2.
fn connect() -> Request<()> {
    let fields = [
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("origin", "http://a.test"),
    ];
    let mut request = request(Method::CONNECT, "a.test", "/", &fields);
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// An endpoint that accepts WebSockets.
fn endpoint<F, R>(serve: F) -> H2Endpoint
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + 'static,
{
    let mut settings = Builder::new();
    settings.enable_connect_protocol();
    H2Endpoint::with(settings, serve)
}

/// Accepts the WebSocket, or echoes another request. Returns both sides of the WebSocket.
async fn open(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<(RecvStream, SendStream<Bytes>)> {
    if request.method() != Method::CONNECT {
        echo(request, respond).await;
        return None;
    }
    assert_eq!(request.extensions().get::<Protocol>().expect("a protocol").as_str(), "websocket");
    let fields =
        [("sec-websocket-protocol", "chat"), ("sec-websocket-extensions", "permessage-deflate")];
    let stream = respond.send_response(response(200, &fields), false).expect("sent");
    Some((request.into_body(), stream))
}

/// Sends back what comes, and ends when the other side does. `true` if that was in order.
async fn send_back(mut from: RecvStream, mut to: SendStream<Bytes>) -> bool {
    while let Some(Ok(data)) = from.data().await {
        let _ = from.flow_control().release_capacity(data.len());
        if send(&mut to, data, false).await.is_err() {
            return false;
        }
    }
    from.is_end_stream() && to.send_data(Bytes::new(), true).is_ok()
}

/// An endpoint that sends back what comes, and tells what it was asked and how it ended.
fn echoing() -> (H2Endpoint, Receiver<Parts>, Receiver<bool>) {
    let ((ask, asked), (end, ended)) = (channel(), channel());
    let endpoint = endpoint(move |request, respond| {
        let (ask, end) = (ask.clone(), end.clone());
        async move {
            let mut head = Request::new(());
            *head.method_mut() = request.method().clone();
            *head.uri_mut() = request.uri().clone();
            *head.headers_mut() = request.headers().clone();
            ask.send(head.into_parts().0).expect("the test listens");
            if let Some((from, to)) = open(request, respond).await {
                // The test may be over.
                let _ = end.send(send_back(from, to).await);
            }
        }
    });
    (endpoint, asked, ended)
}

/// Opens a WebSocket over HTTP/1.1.
fn open_http1(mesh: &Mesh) -> Client {
    let mut client = Client::connect(mesh.address());
    let answer = client.ask(upgrade());
    assert_eq!(answer.status, 101, "{}", String::from_utf8_lossy(&answer.body));
    client
}

/// Opens a WebSocket over HTTP/2.
async fn open_http2(peer: &mut Peer) -> (RecvStream, SendStream<Bytes>) {
    let (response, up) = peer.begin(connect(), false).await;
    let response = response.await.expect("a response");
    assert_eq!(response.status(), 200);
    (response.into_body(), up)
}

async fn take(down: &mut RecvStream, n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < n {
        let data = down.data().await.expect("more").expect("no error");
        down.flow_control().release_capacity(data.len()).expect("release");
        bytes.extend_from_slice(&data);
    }
    bytes
}

/// Bytes that show it when a part is lost, doubled or moved.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|at| (at % 251) as u8).collect()
}

fn assert_is_connect(asked: &Parts) {
    assert_eq!((&asked.method, asked.uri.path()), (&Method::CONNECT, "/"));
    assert_eq!(asked.uri.authority().expect("an authority"), "a.test");
    let field = |name| asked.headers.get(name).map_or("", |value| value.to_str().expect("text"));
    assert_eq!(field("sec-websocket-version"), "13");
    assert_eq!(field("sec-websocket-protocol"), "chat");
    assert_eq!(field("sec-websocket-extensions"), "permessage-deflate");
    assert_eq!(field("origin"), "http://a.test");
    assert_eq!(field("x-forwarded-for"), "127.0.0.1");
    // RFC 8441 section 5.
    for gone in ["sec-websocket-key", "upgrade", "connection"] {
        assert!(!asked.headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn an_upgrade_becomes_an_extended_connect() {
    let (endpoint, asked, ended) = echoing();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = Client::connect(mesh.address());
    let answer = client.ask(upgrade());
    assert_eq!(answer.status, 101);
    for (name, value) in [
        ("sec-websocket-accept", ACCEPT),
        ("sec-websocket-protocol", "chat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
    ] {
        assert_eq!(answer.fields.all(name), [value], "{name}");
    }
    assert_is_connect(&asked.recv().expect("a request"));
    for n in 0..100_u32 {
        let message = n.to_string().repeat(100);
        client.send(&message);
        assert_eq!(client.read_exact(message.len()).expect("the echo"), message.as_bytes());
    }
    let stats = mesh.service_stats();
    assert_eq!((stats.tunnels_open, stats.tunnels_total), (1, 1));
    assert!(stats.tunnel_received_bytes > 10_000, "{}", stats.tunnel_received_bytes);
    // Other requests share the connection.
    assert_eq!(Client::connect(mesh.address()).ask(get("")).body, b"GET /\n");
    assert_eq!(endpoint.accepted(), 1);
    client.fin();
    assert!(ended.recv().expect("an end"), "END_STREAM is the orderly end");
    assert_eq!(client.read_to_end(), End::Closed);
    mesh.wait_idle();
    assert_eq!(endpoint.open(), 1);
}

#[test]
fn an_extended_connect_stays_one() {
    let (endpoint, asked, ended) = echoing();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut up) = peer.begin(connect(), false).await;
        let (head, mut down) = response.await.expect("a response").into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["sec-websocket-protocol"], "chat");
        assert_eq!(head.headers["sec-websocket-extensions"], "permessage-deflate");
        assert!(!head.headers.contains_key("sec-websocket-accept"));
        assert_is_connect(&asked.recv().expect("a request"));
        for n in 0..100_u32 {
            let message = Bytes::from(n.to_string().repeat(100));
            send(&mut up, message.clone(), false).await.expect("send");
            assert_eq!(take(&mut down, message.len()).await, message);
        }
        assert_eq!(mesh.service_stats().tunnels_open, 1);
        up.send_data(Bytes::new(), true).expect("end");
        assert!(read(&mut down).await.expect("an orderly end").0.is_empty());
        assert!(ended.recv().expect("an end"));
    });
    mesh.wait_idle();
}

/// Either side may still send after the other has closed its half.
#[test]
fn each_half_ends_for_itself() {
    let (tell, told) = channel();
    let endpoint = endpoint(move |request, respond| {
        let tell = tell.clone();
        async move {
            let (mut from, mut to) = open(request, respond).await.expect("a WebSocket");
            to.send_data("bye".into(), true).expect("sent");
            tell.send(read(&mut from).await.expect("an orderly end").0).expect("it listens");
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = open_http1(&mesh);
    assert_eq!(client.read_to_end(), End::Closed);
    assert_eq!(client.buffer, b"bye");
    client.send("and this").fin();
    assert_eq!(told.recv().expect("the rest"), b"and this");
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (mut down, mut up) = open_http2(&mut peer).await;
        assert_eq!(read(&mut down).await.expect("an orderly end").0, b"bye");
        up.send_data("and this".into(), true).expect("sent");
        assert_eq!(told.recv().expect("the rest"), b"and this");
    });
    mesh.wait_idle();
}

/// A response that opens the WebSocket and ends it at once.
#[test]
fn an_endpoint_may_close_with_its_head() {
    let endpoint = endpoint(|_, mut respond| async move {
        respond.send_response(response(200, &[]), true).expect("sent");
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = open_http1(&mesh);
    assert_eq!(client.read_to_end(), End::Closed);
    client.hang_up();
    mesh.wait_idle();
}

/// The endpoint's stream ends in order: servers close connections on which many are reset.
#[test]
fn a_refusal_is_a_response() {
    let (tell, told) = channel();
    let endpoint = endpoint(move |request, mut respond| {
        let tell = tell.clone();
        async move {
            let fields = [("content-length", "2"), ("x-why", "origin")];
            let mut stream = respond.send_response(response(403, &fields), false).expect("sent");
            stream.send_data("no".into(), true).expect("sent");
            let ended = read(&mut request.into_body()).await;
            tell.send(ended.is_ok_and(|(body, _)| body.is_empty())).expect("the test listens");
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = Client::connect(mesh.address());
    for _ in 0..3 {
        let answer = client.ask(upgrade());
        assert_eq!((answer.status, &answer.body[..]), (403, &b"no"[..]));
        assert_eq!(answer.fields.all("x-why"), ["origin"]);
        assert!(answer.fields.all("sec-websocket-accept").is_empty());
        assert!(told.recv().expect("an end"), "the stream was reset");
    }
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _up) = peer.begin(connect(), false).await;
        let answer = answer(response).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (403, &b"no"[..]));
        assert!(told.recv().expect("an end"), "the stream was reset");
    });
    assert_eq!((endpoint.accepted(), mesh.service_stats().tunnels_total), (1, 0));
}

/// The endpoint gets none, so the gateway has to look.
#[test]
fn an_upgrade_needs_one_key() {
    let (endpoint, asked, _ended) = echoing();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    for keys in ["", &key.repeat(2)] {
        let answer = Client::connect(mesh.address()).ask(upgrade().replace(&key, keys));
        assert_eq!(answer.status, 400);
        let why = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(why.contains("there is not exactly one Sec-WebSocket-Key"), "{why}");
    }
    assert!(asked.try_recv().is_err(), "the endpoint was asked");
}

/// RFC 9113 section 8.6: HTTP/2 has no 101.
#[test]
fn what_is_no_acceptance_opens_nothing() {
    for head in [
        block(&[(":status", "101")]),
        block(&[(":status", "101"), ("upgrade", "websocket"), ("connection", "upgrade")]),
        block(&[(":status", "200"), ("connection", "upgrade")]),
    ] {
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&ALLOWED);
            for _ in 0..2 {
                let stream = connection.until(HEADERS).stream;
                connection.send(HEADERS, END_HEADERS, stream, &head);
            }
            while connection.next().is_some() {}
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        assert_eq!(Client::connect(mesh.address()).ask(upgrade()).status, 502);
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, _up) = peer.begin(connect(), false).await;
            assert_eq!(answer(response).await.expect("an answer").status, 502);
        });
        assert_eq!(mesh.service_stats().tunnels_total, 0);
    }
}

#[test]
fn resets_of_clients_reach_the_endpoint() {
    let (tell, told) = channel();
    let endpoint = endpoint(move |request, respond| {
        let tell = tell.clone();
        async move {
            let (mut from, _to) = open(request, respond).await.expect("a WebSocket");
            let failed = read(&mut from).await.expect_err("a reset");
            tell.send(failed.reason().expect("a code")).expect("the test listens");
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        for code in [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
            let mut peer = Peer::connect(mesh.address()).await;
            let (_down, mut up) = open_http2(&mut peer).await;
            up.send_reset(code);
            assert_eq!(told.recv().expect("a reset"), code);
        }
        let mut peer = Peer::connect(mesh.address()).await;
        let _sides = open_http2(&mut peer).await;
        peer.connection.abort();
        assert_eq!(told.recv().expect("a reset"), Reason::CANCEL);
    });
    // RFC 8441 section 5 names the code.
    open_http1(&mesh).reset();
    assert_eq!(told.recv().expect("a reset"), Reason::CANCEL);
    mesh.wait_idle();
    assert_eq!(endpoint.open(), 1, "the connection stays");
}

#[test]
fn resets_of_the_endpoint_reach_the_client() {
    for code in [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::NO_ERROR] {
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&ALLOWED);
            for _ in 0..2 {
                let stream = connection.until(HEADERS).stream;
                connection.send(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
                connection.send(DATA, 0, stream, b"part");
                connection.until(DATA);
                connection.send(RST_STREAM, 0, stream, &u32::from(code).to_be_bytes());
            }
            while connection.next().is_some() {}
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let (mut down, mut up) = open_http2(&mut peer).await;
            assert_eq!(take(&mut down, 4).await, b"part");
            up.send_data("go".into(), false).expect("sent");
            match read(&mut down).await {
                Ok((rest, _)) => assert!(rest.is_empty() && code == Reason::NO_ERROR),
                Err(failed) => assert_eq!(failed.reason(), Some(code)),
            }
        });
        let mut client = open_http1(&mesh);
        client.read_until(b"part").expect("the part");
        client.send("go");
        assert_eq!(client.read_to_end(), End::Closed);
        client.hang_up();
        mesh.wait_idle();
    }
}

/// As with the connection of an HTTP/1.1 endpoint: what came before arrives.
#[test]
fn a_lost_connection_ends_its_websockets() {
    let endpoint = endpoint(|request, respond| async move {
        let (_from, mut to) = open(request, respond).await.expect("a WebSocket");
        to.send_data("part".into(), false).expect("sent");
        pending::<()>().await;
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = open_http1(&mesh);
    client.read_until(b"part").expect("the part");
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (mut down, _up) = open_http2(&mut peer).await;
        assert_eq!(take(&mut down, 4).await, b"part");
        endpoint.close();
        assert!(read(&mut down).await.expect("an end").0.is_empty());
    });
    assert_eq!(client.read_to_end(), End::Closed);
    client.hang_up();
    mesh.wait_idle();
}

/// Waits until the number stays the same.
fn stands_still(what: &str, number: impl Fn() -> usize) -> usize {
    let mut before = 0;
    eventually(what, || {
        std::thread::sleep(Duration::from_millis(100));
        let now = number();
        now > 0 && std::mem::replace(&mut before, now) == now
    });
    before
}

#[test]
fn a_client_that_does_not_read_holds_the_endpoint_back() {
    let sent = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&sent);
    let endpoint = endpoint(move |request, respond| {
        let count = Arc::clone(&count);
        async move {
            let Some((_from, mut to)) = open(request, respond).await else { return };
            let data = Bytes::from(pattern(MANY));
            for at in (0..MANY).step_by(4096) {
                if send(&mut to, data.slice(at..at + 4096), at + 4096 == MANY).await.is_err() {
                    return;
                }
                count.fetch_add(4096, Ordering::Relaxed);
            }
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut http1 = Client::connect_small(mesh.address());
    http1.send(upgrade()).read_until(b"\r\n\r\n").expect("a head");
    let sent_to_http1 = stands_still("the endpoint waits", || sent.load(Ordering::Relaxed));
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (mut down, _up) = open_http2(&mut peer).await;
        let so_far = stands_still("the endpoint waits", || sent.load(Ordering::Relaxed));
        assert!(so_far - sent_to_http1 < 1024 * 1024, "{so_far} bytes were taken");
        // Those that wait do not stop others.
        assert_eq!(Client::connect(mesh.address()).ask(get("")).body, b"GET /\n");
        assert!(read(&mut down).await.expect("the rest").0 == pattern(MANY), "it arrived changed");
    });
    // The system has its share.
    assert!(sent_to_http1 < MANY, "{sent_to_http1} bytes were taken");
    assert_eq!(http1.read_to_end(), End::Closed);
    assert!(http1.buffer.ends_with(&pattern(MANY)), "it arrived changed");
    assert_eq!(endpoint.accepted(), 1);
}

#[test]
fn an_endpoint_that_does_not_read_holds_the_client_back() {
    let go = Arc::new(Semaphore::new(0));
    let (may_read, (tell, told)) = (Arc::clone(&go), channel());
    let endpoint = endpoint(move |request, respond| {
        let (may_read, tell) = (Arc::clone(&may_read), tell.clone());
        async move {
            let (mut from, _to) = open(request, respond).await.expect("a WebSocket");
            may_read.acquire().await.expect("open").forget();
            let (bytes, _) = read(&mut from).await.expect("an orderly end");
            tell.send(bytes == pattern(MANY)).expect("the test listens");
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let sent = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&sent);
    let client = open_http1(&mesh);
    let mut sender = client.sender();
    let upload = std::thread::spawn(move || {
        for part in pattern(MANY).chunks(4096) {
            sender.write_all(part).expect("sent");
            count.fetch_add(4096, Ordering::Relaxed);
        }
    });
    let taken = stands_still("the upload waits", || sent.load(Ordering::Relaxed));
    assert!(taken < MANY, "{taken} bytes were taken for an endpoint that does not read");
    go.add_permits(1);
    upload.join().expect("the upload");
    let mut client = client;
    client.fin();
    assert!(told.recv().expect("the end"), "it arrived changed");
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (_down, mut up) = open_http2(&mut peer).await;
        let sent = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&sent);
        let upload = tokio::spawn(async move {
            let data = Bytes::from(pattern(MANY));
            for at in (0..MANY).step_by(4096) {
                let ends = at + 4096 == MANY;
                send(&mut up, data.slice(at..at + 4096), ends).await.expect("sent");
                count.fetch_add(4096, Ordering::Relaxed);
            }
        });
        let taken = stands_still("the upload waits", || sent.load(Ordering::Relaxed));
        assert!(taken < 1024 * 1024, "{taken} bytes were taken");
        go.add_permits(1);
        upload.await.expect("the upload");
        assert!(told.recv().expect("the end"), "it arrived changed");
    });
}

/// Small messages take more memory than their content, which is bounded for a connection: what clients do not read
/// must not reach that bound.
#[test]
fn small_messages_that_are_not_read_end_no_websocket() {
    let endpoint = endpoint(|request, respond| async move {
        let Some((_from, mut to)) = open(request, respond).await else { return };
        for _ in 0..40_000 {
            to.reserve_capacity(6);
            match poll_fn(|cx| to.poll_capacity(cx)).await {
                Some(Ok(_)) => to.send_data("6bytes".into(), false).expect("sent"),
                _ => return,
            }
        }
        to.send_data(Bytes::new(), true).expect("sent");
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut waiting = Vec::new();
        for _ in 0..24 {
            let mut peer = Peer::connect(mesh.address()).await;
            waiting.push((open_http2(&mut peer).await, peer));
        }
        for _ in 0..50 {
            assert_eq!(Client::connect(mesh.address()).ask(get("")).body, b"GET /\n");
        }
        for ((down, _up), _peer) in &mut waiting {
            assert_eq!(read(down).await.expect("the rest").0.len(), 240_000);
        }
    });
    assert_eq!(endpoint.accepted(), 1);
}

#[test]
fn a_silent_websocket_ends_by_the_limit_for_tunnels() {
    let (endpoint, _asked, ended) = echoing();
    let mut config = Config::default();
    config.timeouts.tunnel_idle = Some(Duration::from_millis(300));
    // Does not count for tunnels.
    config.timeouts.idle = Some(Duration::from_millis(100));
    config.timeouts.response = Some(Duration::from_millis(100));
    let mesh = Mesh::to(config, &endpoint.address);
    let mut client = open_http1(&mesh);
    for _ in 0..5 {
        // The pace of the traffic, not a wait for something.
        std::thread::sleep(Duration::from_millis(150));
        client.send("x");
        client.read_exact(1).expect("the echo");
    }
    assert_eq!(client.read_to_end(), End::Closed);
    assert!(!ended.recv().expect("an end"), "the stream is reset");
    mesh.wait_idle();
}

#[test]
fn websockets_do_not_hold_up_a_stop() {
    let (endpoint, _asked, ended) = echoing();
    let mut mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = open_http1(&mesh);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let _sides = open_http2(&mut peer).await;
        mesh.gateway.stop(None);
        assert_eq!(client.read_to_end(), End::Closed);
        for _ in 0..2 {
            ended.recv().expect("an end");
        }
    });
    mesh.join();
}

/// RFC 9113 section 8.7: what was refused has not run.
#[test]
fn a_refused_stream_is_asked_for_once_more() {
    let refusals = Arc::new(AtomicUsize::new(1));
    let endpoint = endpoint(move |request, mut respond| {
        let refusals = Arc::clone(&refusals);
        async move {
            if refusals.swap(0, Ordering::Relaxed) > 0 {
                return respond.send_reset(Reason::REFUSED_STREAM);
            }
            if let Some((from, to)) = open(request, respond).await {
                send_back(from, to).await;
            }
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = open_http1(&mesh);
    assert_eq!(client.send("hello").read_exact(5).expect("the echo"), b"hello");
    assert_eq!(mesh.service_stats().retries, 1);
}

/// Each takes a stream for as long as it is open.
#[test]
fn websockets_beyond_an_endpoints_limit_get_another_connection() {
    let mut settings = Builder::new();
    settings.enable_connect_protocol().max_concurrent_streams(2);
    let endpoint = H2Endpoint::with(settings, |request, respond| async move {
        if let Some((from, to)) = open(request, respond).await {
            send_back(from, to).await;
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut clients: Vec<_> = (0..6).map(|_| open_http1(&mesh)).collect();
    for client in &mut clients {
        assert_eq!(client.send("hello").read_exact(5).expect("the echo"), b"hello");
    }
    assert_eq!((endpoint.accepted(), mesh.service_stats().tunnels_open), (3, 6));
}

/// The frame that allows WebSockets may arrive in parts.
#[test]
fn the_endpoints_settings_are_awaited_whole() {
    let endpoint = RawEndpoint::start(|_, mut connection| {
        connection.0.read_exact(&mut [0; 24]).expect("a preface");
        let settings = frame(SETTINGS, 0, 0, &ALLOWED);
        for part in settings.chunks(3) {
            connection.0.write_all(part).expect("sent");
            // The pace of a slow network.
            std::thread::sleep(Duration::from_millis(30));
        }
        let stream = connection.until(HEADERS).stream;
        connection.send(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
        connection.send(DATA, END_STREAM, stream, b"hello");
        while connection.next().is_some() {}
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = open_http1(&mesh);
    assert_eq!(client.read_exact(5).expect("a greeting"), b"hello");
}

/// A server that speaks both protocols on its port, but no RFC 8441, as most do. It tells what it is asked over
/// HTTP/1.1, and `answer` says what it does then.
fn both(answer: fn(&mut TcpStream, &str)) -> (UpstreamAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = UpstreamAddr::Tcp(listener.local_addr().expect("address")).http2();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, tell): (_, Sender<String>) = (socket.expect("accept"), tell.clone());
            std::thread::spawn(move || {
                let mut first = [0; 3];
                while socket.peek(&mut first).is_ok_and(|n| 0 < n && n < 3) {}
                if &first == b"PRI" {
                    return over_http2(RawConnection(socket));
                }
                let mut socket = socket;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).expect("a head");
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).expect("text");
                let _ = tell.send(head.clone());
                answer(&mut socket, &head);
            });
        }
    });
    (address, told)
}

fn over_http2(mut connection: RawConnection) {
    connection.begin(&[]);
    while let Some(frame) = connection.next() {
        if frame.kind == HEADERS {
            let head = block(&[(":status", "204"), ("x-by", "http2")]);
            connection.send(HEADERS, END_HEADERS | END_STREAM, frame.stream, &head);
        }
    }
}

#[test]
fn an_endpoint_without_rfc_8441_is_asked_over_http1() {
    let (address, told) = both(|socket, head| {
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let accept = accept(key.expect("a key").as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).expect("sent");
        let mut bytes = [0; 4096];
        while let Ok(n) = socket.read(&mut bytes)
            && n > 0
            && socket.write_all(&bytes[..n]).is_ok()
        {}
    });
    let mesh = Mesh::to(Config::default(), &address);
    let plain = || {
        let answer = Client::connect(mesh.address()).ask(get(""));
        assert_eq!((answer.status, answer.fields.all("x-by")), (204, vec!["http2".to_string()]));
    };
    // Whether a connection is there, or not.
    let mut client = open_http1(&mesh);
    assert_eq!(client.send("hello").read_exact(5).expect("the echo"), b"hello");
    assert!(told.recv().expect("a head").starts_with("GET / HTTP/1.1\r\n"));
    plain();
    let mut other = open_http1(&mesh);
    assert_eq!(other.send("hello").read_exact(5).expect("the echo"), b"hello");
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (mut down, mut up) = open_http2(&mut peer).await;
        send(&mut up, "hello".into(), false).await.expect("sent");
        assert_eq!(take(&mut down, 5).await, b"hello");
        assert_eq!(mesh.service_stats().tunnels_open, 3);
        up.send_data(Bytes::new(), true).expect("end");
        assert!(read(&mut down).await.expect("an orderly end").0.is_empty());
    });
    plain();
    drop((client, other));
    mesh.wait_idle();
    // One of HTTP/2, and one for each WebSocket.
    assert_eq!(mesh.service_stats().upstream_connections_opened, 4);
}

#[test]
fn a_refusal_over_http1_is_a_response() {
    let (address, told) = both(|socket, _| {
        socket.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").expect("sent");
        // Until the gateway has closed it.
        let _ = socket.read(&mut [0]);
    });
    let mesh = Mesh::to(Config::default(), &address);
    let mut client = Client::connect(mesh.address());
    for _ in 0..3 {
        let answer = client.ask(upgrade());
        assert_eq!((answer.status, &answer.body[..]), (403, &b"no"[..]));
        assert!(told.recv().expect("a head").contains("Upgrade: websocket"));
        // Over HTTP/2, and not over the connection that has just refused.
        assert_eq!(client.ask(get("")).status, 204);
    }
    assert!(told.try_recv().is_err(), "other requests are sent over HTTP/1.1");
    assert_eq!(mesh.service_stats().upstream_connections_open, 1, "that of HTTP/2");
}

/// Servers of gRPC alone answer in HTTP/2 whatever they are asked, or close the connection.
#[test]
fn an_endpoint_without_websockets_is_named() {
    for answer in [(|_, _| {}) as fn(&mut TcpStream, &str), |socket, _| {
        socket.write_all(&frame(SETTINGS, 0, 0, &[])).expect("sent")
    }] {
        let (address, _told) = both(answer);
        let mesh = Mesh::to(Config::default(), &address);
        let mut client = Client::connect(mesh.address());
        for _ in 0..2 {
            let refused = client.ask(upgrade());
            assert_eq!(refused.status, 501);
            let why = String::from_utf8_lossy(&refused.body).into_owned();
            assert!(why.contains("the service accepts no WebSockets"), "{why}");
        }
        assert_eq!(client.ask(get("")).status, 204);
    }
}
