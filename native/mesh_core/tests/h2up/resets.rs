//! Streams that end early, each as the other side ended it.

use std::future::{pending, poll_fn};
use std::sync::mpsc;

use bytes::Bytes;
use h2::Reason;
use http::Method;
use mesh_core::Config;

use crate::support::client::{Client, get, post};
use crate::support::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM};
use crate::support::h2_endpoint::{H2Endpoint, RawEndpoint, echo, grpc, response};
use crate::support::http2::{Peer, answer, read, request, send};
use crate::support::mesh::Mesh;
use crate::support::run;

const CODES: [Reason; 4] =
    [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM, Reason::NO_ERROR];

/// The status 200 and END_STREAM (RFC 7541 appendix A).
const OK: &[u8] = &[0x88];

#[test]
fn a_clients_reset_arrives_with_its_code() {
    for code in CODES {
        for has_begun in [false, true] {
            let (tell, told) = mpsc::channel();
            let (came, comes) = mpsc::channel();
            let endpoint = H2Endpoint::start(move |_, mut respond| {
                let (tell, came) = (tell.clone(), came.clone());
                async move {
                    came.send(()).expect("the test listens");
                    let reset = if has_begun {
                        let sent = respond.send_response(response(200, &[]), false);
                        let mut stream = sent.expect("sent");
                        poll_fn(|cx| stream.poll_reset(cx)).await
                    } else {
                        poll_fn(|cx| respond.poll_reset(cx)).await
                    };
                    tell.send(reset.expect("a reset")).expect("the test listens");
                }
            });
            let mesh = Mesh::to(Config::default(), &endpoint.address);
            run(async {
                let mut peer = Peer::connect(mesh.address()).await;
                let asked = request(Method::POST, "a.test", "/", &[]);
                let (response, mut body) = peer.begin(asked, false).await;
                comes.recv().expect("a request");
                let _head = if has_begun { Some(response.await.expect("a head")) } else { None };
                body.send_reset(code);
                assert_eq!(told.recv().expect("a reset"), code, "{has_begun}");
            });
            mesh.wait_idle();
            assert_eq!(endpoint.open(), 1, "the connection stays");
        }
    }
}

#[test]
fn a_client_that_hangs_up_cancels_its_stream() {
    let (tell, told) = mpsc::channel();
    let endpoint = H2Endpoint::start(move |_, mut respond| {
        let tell = tell.clone();
        async move {
            let mut stream = respond.send_response(response(200, &[]), false).expect("sent");
            let reset = poll_fn(|cx| stream.poll_reset(cx)).await;
            tell.send(reset.expect("a reset")).expect("the test listens");
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let mut client = Client::connect(mesh.address());
    client.send(get("")).read_until(b"\r\n\r\n").expect("a head");
    client.reset();
    assert_eq!(told.recv().expect("a reset"), Reason::CANCEL);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _) = peer.begin(request(Method::GET, "a.test", "/", &[]), true).await;
        response.await.expect("a head");
        drop(peer);
    });
    assert_eq!(told.recv().expect("a reset"), Reason::CANCEL);
}

#[test]
fn an_endpoints_reset_arrives_with_its_code() {
    for code in CODES {
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[]);
            for data in [&b"part"[..], b""] {
                let stream = connection.until(HEADERS).stream;
                connection.send(HEADERS, END_HEADERS, stream, OK);
                if !data.is_empty() {
                    connection.send(DATA, 0, stream, data);
                }
                connection.send(RST_STREAM, 0, stream, &u32::from(code).to_be_bytes());
            }
            while connection.next().is_some() {}
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, _) = peer.begin(request(Method::GET, "a.test", "/", &[]), true).await;
            let failed = match response.await {
                Ok(response) => read(&mut response.into_body()).await.expect_err("it is cut off"),
                Err(failed) => failed,
            };
            // Some clients take NO_ERROR for the end of a whole response.
            let arrives = if code == Reason::NO_ERROR { Reason::INTERNAL_ERROR } else { code };
            assert_eq!(failed.reason(), Some(arrives));
        });
        let mut client = Client::connect(mesh.address());
        client.send(get(""));
        assert!(client.try_response(false).is_err(), "a part looks like the whole");
        let stats = mesh.service_stats();
        assert_eq!(stats.errors.upstream_closed, 2);
    }
}

#[test]
fn a_request_that_is_reset_before_its_response_is_answered() {
    let endpoint = H2Endpoint::start(|_, mut respond| async move {
        respond.send_reset(Reason::CANCEL);
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        assert_eq!(peer.get("/").await.status, 502);
    });
    assert_eq!(Client::connect(mesh.address()).ask(get("")).status, 502);
}

/// RFC 9113 section 8.1: an endpoint need not read what it does not need.
#[test]
fn an_early_response_arrives_whole() {
    let endpoint = H2Endpoint::start(|request, mut respond| async move {
        let mut body = request.into_body();
        body.data().await;
        let mut stream = respond.send_response(response(413, &[]), false).expect("sent");
        // h2 then resets the stream with NO_ERROR.
        stream.send_data("too long".into(), true).expect("sent");
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    for _ in 0..20 {
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let asked = request(Method::POST, "a.test", "/", &[]);
            let (response, mut body) = peer.begin(asked, false).await;
            body.send_data(Bytes::from_static(b"the first part"), false).expect("sent");
            let answer = answer(response).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (413, &b"too long"[..]));
        });
    }
    let mut client = Client::connect(mesh.address());
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 99999\r\n\r\nthe first part");
    let answer = client.response();
    assert_eq!((answer.status, &answer.body[..]), (413, &b"too long"[..]));
}

/// RFC 9113 section 8.7: what was refused has not run, whatever its method.
#[test]
fn a_refused_stream_is_sent_once_more() {
    for (refusals, status) in [(1, 200), (2, 503)] {
        let (count, counted) = mpsc::channel();
        let left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(refusals));
        let endpoint = H2Endpoint::start(move |request, mut respond| {
            let (left, count) = (left.clone(), count.clone());
            async move {
                count.send(()).expect("the test listens");
                let order = std::sync::atomic::Ordering::Relaxed;
                if left.fetch_update(order, order, |left| left.checked_sub(1)).is_ok() {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    echo(request, respond).await;
                }
            }
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        let mut client = Client::connect(mesh.address());
        let answer = client.ask(post("Content-Length: 5\r\n", "hello"));
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(counted.try_iter().count(), 2);
        if status == 200 {
            assert_eq!(answer.body, b"POST /\nhello");
        }
        assert_eq!(mesh.service_stats().retries, 1);
    }
}

/// What is in the client's hands alone is not sent again: the client is told that it may.
#[test]
fn a_long_request_that_is_refused_is_not_sent_again() {
    let endpoint = H2Endpoint::start(|request, mut respond| async move {
        let mut body = request.into_body();
        let mut bytes = 0;
        while bytes < 100_000 {
            let data = body.data().await.expect("more").expect("no error");
            body.flow_control().release_capacity(data.len()).expect("a window");
            bytes += data.len();
        }
        respond.send_reset(Reason::REFUSED_STREAM);
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) =
            peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        send(&mut body, vec![b'x'; 100_000].into(), false).await.expect("sent");
        assert_eq!(answer(response).await.expect("an answer").status, 503);
    });
    assert_eq!(mesh.service_stats().retries, 0);
}

/// Streams above the last one of a GOAWAY have not run; those below finish.
#[test]
fn requests_that_a_goaway_leaves_go_to_another_connection() {
    let endpoint = RawEndpoint::start(|number, mut connection| {
        connection.begin(&[]);
        if number > 0 {
            let stream = connection.until(HEADERS).stream;
            connection.send(HEADERS, END_HEADERS | END_STREAM, stream, OK);
            while connection.next().is_some() {}
            return;
        }
        // Both bodies, too: the gateway sends no request again whose rest the client still has.
        let (mut streams, mut bodies) = (Vec::new(), 0);
        while streams.len() < 2 || bodies < 2 {
            let frame = connection.next().expect("two requests");
            bodies += usize::from(frame.kind == DATA);
            if frame.kind == HEADERS {
                streams.push(frame.stream);
            }
        }
        let first = streams[0];
        connection.send(GOAWAY, 0, 0, &[first.to_be_bytes(), [0; 4]].concat());
        connection.send(HEADERS, END_HEADERS | END_STREAM, first, OK);
        // The gateway closes it when nothing is left.
        while connection.next().is_some() {}
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let asked = || request(Method::POST, "a.test", "/", &[("content-length", "4")]);
        let (first, mut first_body) = peer.begin(asked(), false).await;
        let (second, mut second_body) = peer.begin(asked(), false).await;
        send(&mut first_body, "body".into(), true).await.expect("sent");
        send(&mut second_body, "body".into(), true).await.expect("sent");
        assert_eq!(answer(first).await.expect("an answer").status, 200);
        assert_eq!(answer(second).await.expect("an answer").status, 200);
    });
    assert_eq!(mesh.service_stats().retries, 1);
    drop(mesh);
}

#[test]
fn an_endpoint_that_goes_away_finishes_its_streams() {
    let go = std::sync::Arc::<tokio::sync::Notify>::default();
    let may_end = go.clone();
    let endpoint = H2Endpoint::start(move |request, respond| {
        let may_end = may_end.clone();
        async move {
            if request.uri().path() == "/slow" {
                may_end.notified().await;
            }
            grpc(respond, "done");
        }
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        assert_eq!(peer.get("/").await.body, b"done");
        let (slow, _) = peer.begin(request(Method::POST, "a.test", "/slow", &[]), true).await;
        endpoint.go_away();
        let mut tries = 0;
        while endpoint.accepted() == 1 {
            assert_eq!(peer.get("/").await.body, b"done");
            tries += 1;
            assert!(tries < 10_000, "requests go on over the connection that ends");
        }
        go.notify_waiters();
        go.notify_one();
        assert_eq!(answer(slow).await.expect("an answer").body, b"done");
    });
    crate::support::eventually("the old connection ends", || endpoint.open() == 1);
}

#[test]
fn a_broken_connection_fails_its_streams_alone() {
    let endpoint = H2Endpoint::start(|request, mut respond| async move {
        if request.uri().path() == "/open" {
            let mut stream = respond.send_response(response(200, &[]), false).expect("sent");
            stream.send_data("part".into(), false).expect("sent");
            pending::<()>().await;
        }
        grpc(respond, "done");
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            let (response, _) =
                peer.begin(request(Method::POST, "a.test", "/open", &[]), true).await;
            open.push(response.await.expect("a head").into_body());
        }
        endpoint.close();
        for mut body in open {
            let failed = read(&mut body).await.expect_err("it is cut off");
            assert_eq!(failed.reason(), Some(Reason::INTERNAL_ERROR));
        }
        // A POST, too: the gateway asks the system before it sends one.
        let (response, _) = peer.begin(request(Method::POST, "a.test", "/", &[]), true).await;
        assert_eq!(answer(response).await.expect("an answer").body, b"done");
    });
}
