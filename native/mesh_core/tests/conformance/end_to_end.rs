//! hyper's client and server with the gateway between them: neither end shares a line with the other
//! tests' ends, and only httparse with the gateway.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use mesh_core::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::support::endpoint::{Do, Endpoint, ok, send};
use crate::support::hyper_ends::{HyperClient, HyperEndpoint, Outgoing, full, streamed, switch};
use crate::support::mesh::Mesh;
use crate::support::run;

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
/// More than all sockets on the way take.
const LARGE: u64 = 64 << 20;
const PART: &[u8] = &[b'x'; 64 * 1024];

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

fn post(body: Outgoing) -> Request<Outgoing> {
    Request::post("/").body(body).expect("a request")
}

/// Sends a large body as far as it is taken; counts what was.
fn large() -> (Outgoing, Arc<AtomicU64>) {
    let (mut sender, body) = streamed();
    let sent = Arc::<AtomicU64>::default();
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        for _ in 0..LARGE / PART.len() as u64 {
            if sender.send_data(Bytes::from_static(PART)).await.is_err() {
                return;
            }
            count.fetch_add(PART.len() as u64, Ordering::Relaxed);
        }
    });
    (body, sent)
}

/// Reads a large body: its size, if every byte is right.
async fn size(mut body: Incoming) -> u64 {
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.expect("a whole body").into_data().expect("no trailers");
        assert!(PART.starts_with(&data) || data.iter().all(|b| *b == b'x'));
        size += data.len() as u64;
    }
    size
}

/// What has been sent by the time that it has not moved during twenty other requests.
async fn comes_to_rest(sent: &AtomicU64, others: &mut HyperClient) -> u64 {
    let (mut before, mut rounds) = (u64::MAX, 0);
    while rounds < 20 {
        let now = sent.load(Ordering::Relaxed);
        rounds = if now == before && now > 0 { rounds + 1 } else { 0 };
        before = now;
        assert_eq!(text(others.get("/other").await.expect("a response")).await, "/other");
    }
    before
}

/// RFC 9112 section 9.3, RFC 9113 section 5: both sides of the gateway keep their connection.
#[test]
fn connections_are_reused_on_both_sides() {
    let endpoint =
        HyperEndpoint::start(async |request| Response::new(full(request.uri().to_string())));
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        for version in VERSIONS {
            let mut client = HyperClient::connect(version, mesh.address()).await;
            for n in 0..20 {
                let path = format!("/{n}?q={n}");
                assert_eq!(text(client.get(&path).await.expect("a response")).await, path);
            }
        }
    });
    assert_eq!(endpoint.accepted(), 1);
    assert_eq!(mesh.stats().gateway.connections_accepted, 2);
}

/// RFC 9112 section 6: a known length stays known, everything else is chunked, trailers included.
#[test]
fn lengths_chunks_and_trailers_pass_both_ways() {
    let endpoint = HyperEndpoint::start(async |request: Request<Incoming>| {
        let known = request.body().size_hint().exact();
        let body = request.into_body().collect().await.expect("a whole body");
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        let sum = trailers.as_ref().map_or("none", |sent| sent["x-sum"].to_str().expect("text"));
        let response = Response::builder().header("trailer", "x-sum").header("x-got", sum);
        let body = match trailers {
            None => full(body),
            Some(trailers) => {
                let (mut sender, streamed) = streamed();
                tokio::task::spawn_local(async move {
                    sender.send_data(body).await.expect("data");
                    sender.send_trailers(trailers).await.expect("trailers");
                });
                streamed
            }
        };
        response.header("x-known", format!("{known:?}")).body(body).expect("a response")
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        for version in VERSIONS {
            let mut client = HyperClient::connect(version, mesh.address()).await;
            let response = client.ask(post(full("hello"))).await.expect("a response");
            assert_eq!(response.headers()["x-known"], "Some(5)");
            assert_eq!(response.headers()["content-length"], "5");
            assert_eq!(text(response).await, "hello");

            let (mut sender, body) = streamed();
            let mut request = post(body);
            request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
            let sending = async {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("7"));
                for part in ["one", "two"] {
                    sender.send_data(part.into()).await.expect("data");
                }
                sender.send_trailers(trailers).await.expect("trailers");
                drop(sender);
            };
            let (response, ()) = tokio::join!(client.ask(request), sending);
            let response = response.expect("a response");
            assert_eq!(response.headers()["x-known"], "None");
            assert_eq!(response.headers()["x-got"], "7");
            let body = response.into_body().collect().await.expect("a whole body");
            // TE is about the client's own connection. The gateway repeats it for HTTP/2 alone, and
            // hyper's server sends no trailers without it.
            let trailers = body.trailers().map(|trailers| trailers["x-sum"].as_bytes());
            assert_eq!(trailers, (version == Version::HTTP_2).then_some(&b"7"[..]));
            assert_eq!(body.to_bytes(), "onetwo");
        }
    });
}

/// RFC 9110 section 6.4.1: a length may be told of content that is not there.
#[test]
fn responses_without_content_leave_the_connection_in_step() {
    let endpoint = HyperEndpoint::start(async |request: Request<Incoming>| {
        let status: u16 = request.uri().path()[1..].parse().expect("a status");
        let body = if status == 200 { full("hello") } else { full("") };
        Response::builder().status(status).body(body).expect("a response")
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        for version in VERSIONS {
            let mut client = HyperClient::connect(version, mesh.address()).await;
            for (method, status, content) in [
                (Method::HEAD, 200, ""),
                (Method::GET, 204, ""),
                (Method::GET, 304, ""),
                (Method::GET, 200, "hello"),
            ] {
                let request = Request::builder().method(method).uri(format!("/{status}"));
                let response = client.ask(request.body(full("")).expect("a request")).await;
                let response = response.expect("a response");
                assert_eq!(response.status(), status);
                if status == 200 {
                    assert_eq!(response.headers()["content-length"], "5");
                }
                assert_eq!(text(response).await, content);
            }
        }
    });
    assert_eq!(endpoint.accepted(), 1);
}

/// RFC 9110 section 10.1.1: hyper's server sends the 100 when its service asks for the body, and the
/// client here sends the body once the 100 is there.
#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let endpoint = HyperEndpoint::start(async |request: Request<Incoming>| {
        let body = request.into_body().collect().await.expect("a whole body");
        Response::new(full(body.to_bytes()))
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut client = HyperClient::connect(Version::HTTP_11, mesh.address()).await;
        let (mut sender, body) = streamed();
        let mut request = post(body);
        request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
        let (tell, mut told) = mpsc::unbounded_channel();
        hyper::ext::on_informational(&mut request, move |head| {
            tell.send(head.status().as_u16()).expect("a test");
        });
        let sending = async {
            assert_eq!(told.recv().await, Some(100));
            sender.send_data("data".into()).await.expect("data");
            drop(sender);
        };
        let (response, ()) = tokio::join!(client.ask(request), sending);
        assert_eq!(text(response.expect("a response")).await, "data");
    });
}

/// RFC 8297: the hints are there while the final response is not.
#[test]
fn early_hints_arrive_before_the_response() {
    let endpoint = Endpoint::start();
    endpoint.script(vec![
        Do::Body,
        send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"),
        Do::Gate("final"),
        send(ok("done")),
    ]);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut client = HyperClient::connect(Version::HTTP_11, mesh.address()).await;
        let mut request = Request::get("/").body(full("")).expect("a request");
        let (tell, mut told) = mpsc::unbounded_channel();
        hyper::ext::on_informational(&mut request, move |head| {
            tell.send((head.status().as_u16(), head.headers()["link"].clone())).expect("a test");
        });
        let hints = async {
            let (status, link) = told.recv().await.expect("hints");
            assert_eq!((status, link.as_bytes()), (103, &b"</a.css>; rel=preload"[..]));
            endpoint.open_gate("final");
        };
        let (response, ()) = tokio::join!(client.ask(request), hints);
        assert_eq!(text(response.expect("a response")).await, "done");
    });
}

/// RFC 9110 section 7.8: after the 101 bytes pass both ways until one side closes.
#[test]
fn an_upgraded_connection_carries_bytes_both_ways() {
    let endpoint = HyperEndpoint::start(async |request| {
        switch(request, async |mut socket| {
            let (mut from, mut to) = tokio::io::split(&mut socket);
            tokio::io::copy(&mut from, &mut to).await.expect("an echo");
            to.write_all(b"bye").await.expect("last words");
            to.shutdown().await.expect("an end");
        })
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut client = HyperClient::connect(Version::HTTP_11, mesh.address()).await;
        let request = Request::get("/socket")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let response = client.ask(request.body(full("")).expect("a request")).await;
        let response = response.expect("a response");
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut socket = TokioIo::new(hyper::upgrade::on(response).await.expect("an upgrade"));
        for n in 0..100_usize {
            let message = vec![n as u8; n * 1000 + 1];
            let mut back = vec![0; message.len()];
            socket.write_all(&message).await.expect("send");
            socket.read_exact(&mut back).await.expect("an echo");
            assert_eq!(back, message);
        }
        socket.shutdown().await.expect("an end");
        let mut last = Vec::new();
        socket.read_to_end(&mut last).await.expect("an orderly end");
        assert_eq!(last, b"bye");
    });
    mesh.eventually("the tunnel is over", |_| mesh.service_stats().tunnels_open == 0);
}

/// A client that does not read holds its endpoint back, nothing is lost, others are served.
#[test]
fn a_large_download_waits_for_its_reader() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let endpoint = HyperEndpoint::start(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            if request.uri() == "/other" {
                return Response::new(full("/other"));
            }
            let (body, sent) = large();
            tell.send(sent).expect("a test");
            Response::new(body)
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut others = HyperClient::connect(Version::HTTP_11, mesh.address()).await;
        for version in VERSIONS {
            let mut client = HyperClient::connect(version, mesh.address()).await;
            let response = client.get("/large").await.expect("a response");
            let sent = told.recv().await.expect("a count");
            assert!(comes_to_rest(&sent, &mut others).await < LARGE);
            assert_eq!(size(response.into_body()).await, LARGE, "{version:?}");
        }
    });
}

/// An endpoint that does not read holds its client back, nothing is lost, others are served.
#[test]
fn a_large_upload_waits_for_its_endpoint() {
    let go = Arc::<Notify>::default();
    let reads = Arc::clone(&go);
    let endpoint = HyperEndpoint::start(move |request: Request<Incoming>| {
        let reads = Arc::clone(&reads);
        async move {
            if request.uri() == "/other" {
                return Response::new(full("/other"));
            }
            reads.notified().await;
            Response::new(full(size(request.into_body()).await.to_string()))
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut others = HyperClient::connect(Version::HTTP_11, mesh.address()).await;
        for version in VERSIONS {
            let mut client = HyperClient::connect(version, mesh.address()).await;
            let (body, sent) = large();
            let held = async {
                assert!(comes_to_rest(&sent, &mut others).await < LARGE);
                go.notify_one();
            };
            let (response, ()) = tokio::join!(client.ask(post(body)), held);
            assert_eq!(text(response.expect("a response")).await, LARGE.to_string());
        }
    });
}

/// RFC 9112 section 8, RFC 9113 section 8.1.1: what breaks off is never taken for a whole response.
#[test]
fn a_response_that_breaks_off_is_an_error_at_the_client() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let endpoint = HyperEndpoint::start(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let (sender, body) = streamed();
            tell.send(sender).expect("a test");
            let mut response = Response::new(body);
            if request.uri() == "/length" {
                response.headers_mut().insert("content-length", HeaderValue::from_static("9"));
            }
            response
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        for version in VERSIONS {
            for path in ["/length", "/chunked"] {
                let mut client = HyperClient::connect(version, mesh.address()).await;
                let asked = client.get(path);
                let half = async {
                    let mut sender = told.recv().await.expect("an answer");
                    sender.send_data("half".into()).await.expect("data");
                    sender
                };
                let (response, sender) = tokio::join!(asked, half);
                let mut body = response.expect("a response").into_body();
                let half = body.frame().await.expect("data").expect("no error");
                assert_eq!(half.into_data().expect("data"), "half");
                sender.abort(std::io::Error::other("the endpoint fails"));
                let next = body.frame().await.expect("an end that is no end");
                assert!(next.is_err(), "{version:?} {path}: taken for a whole response");
            }
        }
    });
    assert_eq!(mesh.service_stats().upstream_errors, 4);
}

/// RFC 9112 section 8: the endpoint does not take what breaks off for a whole request.
#[test]
fn a_request_that_breaks_off_is_an_error_at_the_endpoint() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let endpoint = HyperEndpoint::start(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let mut body = request.into_body();
            let mut next = async || poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let half = next().await.expect("data").expect("no error").into_data();
            tell.send(half.is_ok_and(|half| half == "half")).expect("a test");
            tell.send(next().await.is_some_and(|end| end.is_err())).expect("a test");
            Response::new(full(""))
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        for version in VERSIONS {
            for length in [None, Some("9")] {
                let mut client = HyperClient::connect(version, mesh.address()).await;
                let (mut sender, body) = streamed();
                let mut request = post(body);
                if let Some(length) = length {
                    let length = HeaderValue::from_static(length);
                    request.headers_mut().insert("content-length", length);
                }
                let broken = async {
                    sender.send_data("half".into()).await.expect("data");
                    assert_eq!(told.recv().await, Some(true), "the first half");
                    sender.abort(std::io::Error::other("the client fails"));
                    assert_eq!(told.recv().await, Some(true), "{version:?}: taken for whole");
                };
                let (response, ()) = tokio::join!(client.ask(request), broken);
                assert!(response.is_err());
            }
        }
    });
}
