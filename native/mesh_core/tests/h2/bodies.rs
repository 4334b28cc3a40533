//! Bodies both ways: whole, streamed, held back, cut off.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Method};
use mesh_core::Config;

use crate::support::endpoint::{Do, Endpoint, ok, reply, send};
use crate::support::eventually;
use crate::support::http2::{Peer, answer, get, read, request, send as upload};
use crate::support::mesh::Mesh;
use crate::support::run;

/// Bytes that show it when a part is lost, doubled or moved.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8 ^ (i >> 16) as u8).collect()
}

/// RFC 9113 section 8.1: a length that is known is passed on, and content is chunked where it is
/// not.
#[test]
fn uploads_keep_their_length_or_are_chunked() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for fields in [&[("content-length", "5")][..], &[]] {
            let asked = request(Method::POST, "a.test", "/up", fields);
            let (response, mut body) = peer.begin(asked, false).await;
            upload(&mut body, "he".into(), false).await.expect("upload");
            upload(&mut body, "llo".into(), true).await.expect("upload");
            assert_eq!(answer(response).await.expect("answer").status, 200);
        }
    });
    let requests = endpoint.requests();
    assert_eq!(requests[0].fields.all("content-length"), ["5"]);
    assert!(requests[0].fields.all("transfer-encoding").is_empty());
    assert_eq!(requests[1].fields.all("transfer-encoding"), ["chunked"]);
    assert!(requests.iter().all(|request| request.whole && request.body == b"hello"));
}

/// RFC 9113 section 8.1 and RFC 9110 section 6.5: trailers, but for those that have no place there.
#[test]
fn trailers_go_both_ways() {
    let endpoint = Endpoint::start();
    endpoint.script(reply(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\
         Grpc-Status: 0\r\nContent-Length: 7\r\n\r\n",
    ));
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let answer = run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        upload(&mut body, "data".into(), false).await.expect("upload");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        trailers.insert("host", HeaderValue::from_static("evil"));
        body.send_trailers(trailers).expect("trailers");
        answer(response).await.expect("answer")
    });
    assert_eq!(answer.body, b"abc");
    assert_eq!(answer.trailers.len(), 1);
    assert_eq!(answer.trailers["grpc-status"], "0");
    let seen = &endpoint.requests()[0];
    assert_eq!(seen.body, b"data");
    assert_eq!(seen.trailers.names(), ["x-sum"]);
}

/// However a response is framed, it arrives whole (RFC 9112 section 6.3).
#[test]
fn large_bodies_arrive_whole() {
    let endpoint = Endpoint::start();
    let body = pattern(4 << 20);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    endpoint.script(vec![Do::Body, send(head), send(&body)]);
    let mut chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for part in body.chunks(70_001) {
        chunks.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        chunks.extend_from_slice(part);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    endpoint.script(vec![Do::Body, send(chunks)]);
    endpoint.script(vec![Do::Body, send("HTTP/1.1 200 OK\r\n\r\n"), send(&body), Do::Close]);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for framing in ["length", "chunked", "close"] {
            let (response, mut up) =
                peer.begin(request(Method::PUT, "a.test", "/", &[]), false).await;
            upload(&mut up, body.clone().into(), true).await.expect("upload");
            assert!(answer(response).await.expect("answer").body == body, "{framing}");
        }
    });
    assert!(endpoint.requests().iter().all(|request| request.whole && request.body == body));
}

/// RFC 9113 section 5.2: a client that takes nothing is sent no more than its window, and the
/// endpoint is held up, not the other streams.
#[test]
fn a_slow_client_holds_its_endpoint_back() {
    const SIZE: usize = 32 << 20;
    const WINDOW: u64 = 65_535;
    let endpoint = Endpoint::start();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
    endpoint.script(vec![Do::Body, send(head), send(pattern(SIZE))]);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _) = peer.begin(get("a.test", "/"), true).await;
        let mut body = response.await.expect("a head").into_body();
        let moved = || mesh.service_stats().response_body_bytes;
        // Counted part by part, of which the last one does not fit.
        eventually("the window is used up", || moved() > WINDOW - 16 * 1024);
        // Others have windows of their own, but share that of the connection: no body for them.
        for _ in 0..10 {
            assert_eq!(peer.ask(request(Method::HEAD, "a.test", "/", &[])).await.status, 200);
        }
        assert!(moved() <= WINDOW);
        let (bytes, _) = read(&mut body).await.expect("the rest");
        assert!(bytes == pattern(SIZE));
    });
}

/// RFC 9113 section 5.2: what the endpoint does not take, the client is not asked to send.
#[test]
fn a_slow_endpoint_holds_its_client_back() {
    // Two windows, and whatever sockets take on their own.
    const BOUND: usize = 24 << 20;
    let endpoint = Endpoint::start();
    endpoint.script(vec![Do::Gate("go"), Do::Body, send(ok("done"))]);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        // The script is for whichever request comes first, and that is to be this one.
        endpoint.wait_for_requests(1);
        let part = Bytes::from(pattern(16 * 1024));
        let mut sent = 0;
        let mut rounds = 0;
        // Held back for good: nothing more may be sent, round after round.
        while rounds < 20 {
            body.reserve_capacity(part.len());
            let room = poll_fn(|cx| Poll::Ready(body.poll_capacity(cx))).await;
            match room {
                Poll::Ready(room) => {
                    let n = room.expect("open").expect("no error").min(part.len());
                    body.send_data(part.slice(..n), false).expect("send");
                    sent += n;
                    rounds = 0;
                    assert!(sent < BOUND, "nobody holds it back");
                }
                Poll::Pending => {
                    assert_eq!(peer.get("/other").await.status, 200);
                    rounds += 1;
                }
            }
        }
        endpoint.open_gate("go");
        upload(&mut body, "end".into(), true).await.expect("the rest");
        assert_eq!(answer(response).await.expect("answer").body, b"done");
    });
    assert!(endpoint.requests().iter().any(|request| request.body.ends_with(b"end")));
}

/// RFC 9113 section 10.5: a stream that does not move ends, and costs nobody else anything.
#[test]
fn streams_without_progress_are_reset() {
    let endpoint = Endpoint::start();
    endpoint.script(vec![Do::Body, send(ok(&"x".repeat(1 << 20)))]);
    let mut config = Config::default();
    config.timeouts.idle = Some(Duration::from_millis(500));
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        // Takes what its window grants at once, and no more.
        let (response, _) = peer.begin(get("a.test", "/"), true).await;
        let mut body = response.await.expect("a head").into_body();
        let error = loop {
            match body.data().await.expect("an end") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), Some(Reason::CANCEL));
        // Its window of the connection is used up as well, so: no body.
        assert_eq!(peer.ask(request(Method::HEAD, "a.test", "/", &[])).await.status, 200);
        // Sends no more than the beginning.
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        upload(&mut body, "half".into(), false).await.expect("upload");
        assert_eq!(answer(response).await.expect("an answer").status, 408);
        assert_eq!(peer.get("/").await.status, 200);
    });
    mesh.eventually("each is counted as what it is", |_| {
        let errors = mesh.service_stats().errors;
        (errors.reader_timeout, errors.body_timeout, errors.client_gone) == (1, 1, 0)
    });
}

/// RFC 9113 section 8.1.1: a response that is cut off is never taken for a whole one.
#[test]
fn a_truncated_response_is_reset() {
    let endpoint = Endpoint::start();
    let by_length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let by_chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (cut, gate) in [(by_length, "length"), (by_chunks, "chunks")] {
        endpoint.script(vec![Do::Body, send(cut), Do::Gate(gate), Do::Close]);
    }
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for gate in ["length", "chunks"] {
            let (response, _) = peer.begin(get("a.test", "/"), true).await;
            let mut body = response.await.expect("a head").into_body();
            assert_eq!(body.data().await.expect("data").expect("no error"), "half");
            endpoint.open_gate(gate);
            let error = body.data().await.expect("an end").expect_err("a clean end");
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        }
        assert_eq!(peer.get("/").await.status, 200);
    });
    assert_eq!(mesh.service_stats().upstream_errors, 2);
}

/// RFC 9110 section 15.6.3: as long as nothing has been said of the response, the client is told.
#[test]
fn a_body_malformed_from_its_first_byte_gives_502() {
    let endpoint = Endpoint::start();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    endpoint.script(reply(format!("{head}xyz\r\n")));
    endpoint.script(reply(format!("{head}0\r\nX: a\0b\r\n\r\n")));
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for _ in 0..2 {
            assert_eq!(peer.get("/").await.status, 502);
        }
        assert_eq!(peer.get("/").await.status, 200);
    });
    mesh.eventually("each is counted", |_| {
        let stats = mesh.service_stats();
        (stats.responses_2xx, stats.responses_5xx, stats.errors.bad_response) == (1, 2, 2)
    });
}

/// RFC 9113 section 5.4.2: a stream that the client resets costs the endpoint no more work.
#[test]
fn a_reset_stream_is_cancelled_at_the_endpoint() {
    let endpoint = Endpoint::start();
    endpoint
        .script(vec![Do::UntilClosed])
        .script(vec![Do::UntilClosed])
        .script(vec![send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), Do::UntilClosed]);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        // While waiting for a response, within an upload, and within a response.
        let (_response, mut stream) = peer.begin(get("a.test", "/"), true).await;
        endpoint.wait_for_requests(1);
        stream.send_reset(Reason::CANCEL);
        endpoint.wait("the first end", |state| state.connections[0].ended);
        let (_response, mut stream) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        upload(&mut stream, "part".into(), false).await.expect("upload");
        endpoint.wait_for_bytes(b"part");
        stream.send_reset(Reason::CANCEL);
        endpoint.wait("the second end", |state| state.connections[1].ended);
        let (response, mut stream) = peer.begin(get("a.test", "/"), true).await;
        let _body = response.await.expect("a head");
        stream.send_reset(Reason::CANCEL);
        endpoint.wait("the third end", |state| state.connections[2].ended);
        assert_eq!(peer.get("/").await.status, 200);
    });
    let upload = &endpoint.requests()[1];
    assert!(!upload.whole, "an upload that is cut off looks whole");
    mesh.eventually("all are counted", |_| mesh.service_stats().downstream_errors == 3);
}

/// RFC 9113 section 8.1: a response may be complete before its request is; the rest of that is then
/// not wanted, without an error.
#[test]
fn an_early_response_ends_the_upload() {
    let endpoint = Endpoint::start();
    endpoint.script(vec![
        send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
        Do::UntilClosed,
    ]);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        upload(&mut body, "some".into(), false).await.expect("upload");
        let early = answer(response).await.expect("answer");
        assert_eq!((early.status.as_u16(), &early.body[..]), (403, &b"no"[..]));
        let reason = poll_fn(|cx| body.poll_reset(cx)).await.expect("a reset");
        assert_eq!(reason, Reason::NO_ERROR);
    });
}

/// An upstream connection that was closed between two requests does not concern the client.
#[test]
fn a_connection_that_is_closed_while_idle_loses_no_request() {
    let endpoint = Endpoint::start();
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for _ in 0..20 {
            assert_eq!(peer.get("/").await.status, 200);
            endpoint.close_connections();
        }
    });
    assert_eq!(mesh.service_stats().upstream_errors, 0);
}
