//! Streams of messages, at the pace of their readers.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use http::Method;
use mesh_core::Config;
use tokio::sync::Notify;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::h2_endpoint::{H2Endpoint, grpc, response, trailers};
use crate::support::http2::{Peer, answer, get, read, request, send};
use crate::support::mesh::Mesh;
use crate::support::run;

/// Bytes that show it when a part is lost, doubled or moved.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8 ^ (i >> 16) as u8).collect()
}

async fn next(body: &mut RecvStream) -> Bytes {
    let data = body.data().await.expect("a message").expect("no error");
    body.flow_control().release_capacity(data.len()).expect("a window");
    data
}

/// Echoes each message when it comes.
fn ping_pong() -> H2Endpoint {
    H2Endpoint::start(|request, mut respond| async move {
        let mut frames = request.into_body();
        let head = response(200, &[("content-type", "application/grpc")]);
        let mut stream = respond.send_response(head, false).expect("sent");
        while let Some(Ok(data)) = frames.data().await {
            frames.flow_control().release_capacity(data.len()).expect("a window");
            send(&mut stream, data, false).await.expect("sent");
        }
        stream.send_trailers(trailers(&[("grpc-status", "0")])).expect("sent");
    })
}

#[test]
fn messages_go_both_ways_at_once() {
    let endpoint = ping_pong();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let mut open = Vec::new();
        for _ in 0..5 {
            let asked = request(Method::POST, "a.test", "/", &[]);
            let (response, body) = peer.begin(asked, false).await;
            // The head comes before the first message.
            open.push((response.await.expect("a head").into_body(), body));
        }
        for i in 0..20 {
            for (answers, body) in &mut open {
                let message = format!("message {i}");
                send(body, message.clone().into(), false).await.expect("sent");
                assert_eq!(next(answers).await, message.as_bytes());
            }
        }
        for (mut answers, mut body) in open {
            // Half-closed: the endpoint ends the stream.
            body.send_data(Bytes::new(), true).expect("sent");
            let (rest, trailers) = read(&mut answers).await.expect("an end");
            assert_eq!((rest.len(), &trailers["grpc-status"]), (0, &"0".parse().expect("a value")));
        }
    });
    assert_eq!(endpoint.accepted(), 1);
    mesh.wait_idle();
}

#[test]
fn an_http1_client_streams_in_both_directions() {
    let endpoint = ping_pong();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = Client::connect(mesh.address());
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.read_until(b"\r\n\r\n").expect("a head");
    for _ in 0..20 {
        client.send("5\r\nhello\r\n");
        client.read_until(b"5\r\nhello\r\n").expect("the echo");
    }
    client.send("0\r\n\r\n");
    client.read_until(b"0\r\ngrpc-status: 0\r\n\r\n").expect("the trailers");
}

/// The endpoint's window grows only as the client takes data, and what waits is bounded.
#[test]
fn a_client_that_does_not_read_holds_the_endpoint_back() {
    const LENGTH: usize = 16 * 1024 * 1024;
    let sent = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&sent);
    let endpoint = H2Endpoint::start(move |request, mut respond| {
        let count = Arc::clone(&count);
        async move {
            if request.uri().path() != "/long" {
                return grpc(respond, "short");
            }
            let mut stream = respond.send_response(response(200, &[]), false).expect("sent");
            let data = Bytes::from(pattern(LENGTH));
            for at in (0..LENGTH).step_by(4096) {
                if send(&mut stream, data.slice(at..at + 4096), at + 4096 == LENGTH).await.is_err()
                {
                    return;
                }
                count.fetch_add(4096, Ordering::Relaxed);
            }
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, _) = peer.begin(get("a.test", "/long"), true).await;
            waiting.push((response.await.expect("a head").into_body(), peer));
        }
        // Those that wait do not stop others, of the same endpoint and of the same worker.
        for _ in 0..50 {
            let mut other = Peer::connect(mesh.address()).await;
            assert_eq!(other.get("/").await.body, b"short");
        }
        assert_eq!(endpoint.accepted(), 1);
        let so_far = sent.load(Ordering::Relaxed);
        assert!(
            so_far < 8 * 2 * 1024 * 1024,
            "{so_far} bytes were sent to clients that do not read"
        );
        let (bytes, _) = read(&mut waiting[0].0).await.expect("the rest");
        assert!(bytes == pattern(LENGTH), "it arrived changed");
    });
}

#[test]
fn an_endpoint_that_does_not_read_holds_the_client_back() {
    const LENGTH: usize = 16 * 1024 * 1024;
    let go = Arc::<Notify>::default();
    let may_read = Arc::clone(&go);
    let endpoint = H2Endpoint::start(move |request, respond| {
        let may_read = Arc::clone(&may_read);
        async move {
            let mut frames = request.into_body();
            may_read.notified().await;
            let (bytes, _) = read(&mut frames).await.expect("a body");
            grpc(respond, if bytes == pattern(LENGTH) { "the same" } else { "changed" });
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        let sent = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&sent);
        let upload = tokio::spawn(async move {
            let data = Bytes::from(pattern(LENGTH));
            for at in (0..LENGTH).step_by(4096) {
                let ends = at + 4096 == LENGTH;
                send(&mut body, data.slice(at..at + 4096), ends).await.expect("sent");
                count.fetch_add(4096, Ordering::Relaxed);
            }
        });
        eventually("the upload has begun", || sent.load(Ordering::Relaxed) > 64 * 1024);
        let mut before = 0;
        eventually("the upload stands still", || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let now = sent.load(Ordering::Relaxed);
            std::mem::replace(&mut before, now) == now
        });
        assert!(
            before < 2 * 1024 * 1024,
            "{before} bytes were taken for an endpoint that does not read"
        );
        go.notify_one();
        upload.await.expect("the upload");
        assert_eq!(answer(response).await.expect("an answer").body, b"the same");
    });
}

/// The end of a body needs no window.
#[test]
fn an_end_arrives_while_the_window_is_full() {
    let endpoint = H2Endpoint::start(|request, respond| async move {
        let mut frames = request.into_body();
        let mut bytes = 0;
        // It gives no window back.
        while let Some(Ok(data)) = frames.data().await {
            bytes += data.len();
        }
        grpc(respond, bytes.to_string());
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        send(&mut body, pattern(65_535).into(), false).await.expect("sent");
        body.send_data(Bytes::new(), true).expect("sent");
        assert_eq!(answer(response).await.expect("an answer").body, b"65535");
    });
}

/// Small messages take more memory than their content, which is bounded for a connection: what clients do not read
/// must not reach that bound.
#[test]
fn small_messages_that_are_not_read_end_no_stream() {
    let endpoint = H2Endpoint::start(|request, mut respond| async move {
        if request.uri().path() != "/small" {
            return grpc(respond, "short");
        }
        let mut stream = respond.send_response(response(200, &[]), false).expect("sent");
        // Until its window is full, and then for as long as the client reads.
        for _ in 0..40_000 {
            stream.reserve_capacity(6);
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => stream.send_data("6bytes".into(), false).expect("sent"),
                _ => return,
            }
        }
        stream.send_data(Bytes::new(), true).expect("sent");
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut waiting = Vec::new();
        for _ in 0..24 {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, _) = peer.begin(get("a.test", "/small"), true).await;
            waiting.push((response.await.expect("a head").into_body(), peer));
        }
        for _ in 0..50 {
            assert_eq!(Peer::connect(mesh.address()).await.get("/").await.body, b"short");
        }
        for (body, _peer) in &mut waiting {
            assert_eq!(read(body).await.expect("the rest").0.len(), 240_000);
        }
    });
    assert_eq!(endpoint.accepted(), 1);
}
