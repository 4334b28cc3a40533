//! What gRPC clients need beyond HTTP/2.

use std::future::pending;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Method, Request};
use mesh_core::observe::{AccessLog, Format};
use mesh_core::{Config, UpstreamAddr};
use tokio::time::sleep;

use crate::observer::Observer;
use crate::support::endpoint::{Do, Endpoint};
use crate::support::frames::{DATA, END_HEADERS, GOAWAY, HEADERS, RST_STREAM, block, frame};
use crate::support::h2_endpoint::{H2Endpoint, RawEndpoint, echo, response, trailers};
use crate::support::http2::{Answer, Peer, answer, read, request, send};
use crate::support::mesh::{Mesh, service};
use crate::support::run;

fn call(host: &str) -> Request<()> {
    let fields = [("content-type", "application/grpc+proto"), ("te", "trailers")];
    request(Method::POST, host, "/a.B/C", &fields)
}

async fn ask(peer: &mut Peer, host: &str) -> Answer {
    let (response, mut body) = peer.begin(call(host), false).await;
    // Fails if the answer comes first.
    let _ = body.send_data(Bytes::from_static(b"message"), true);
    answer(response).await.expect("an answer")
}

fn nothing_listens() -> UpstreamAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    UpstreamAddr::Tcp(listener.local_addr().expect("address"))
}

/// As responses that are one head, by gRPC's own table of HTTP statuses; whatever the endpoint speaks.
#[test]
fn errors_of_the_gateway_have_a_grpc_status() {
    let endpoint = Endpoint::start();
    let UpstreamAddr::Tcp(address) = endpoint.address else { panic!("no TCP") };
    let services = vec![
        service("gone.test", &[nothing_listens().http2()]),
        service("gone1.test", &[nothing_listens()]),
        service("http1.test", &[UpstreamAddr::Tcp(address).http2()]),
    ];
    let mesh = Mesh::start(Config::default(), services, None);
    let format = Format::Json;
    let observer = Observer::of(&mesh, Some(AccessLog { format, query: false, path: None }));
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        for (host, status, message) in [
            ("a.test", "12", "unknown service: a.test"),
            ("gone.test", "14", "the service refused the connection"),
            ("gone1.test", "14", "the service refused the connection"),
            ("http1.test", "14", "the service does not speak HTTP/2"),
        ] {
            let answer = ask(&mut peer, host).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{host}");
            assert_eq!(answer.headers["content-type"], "application/grpc");
            assert_eq!(answer.headers["grpc-status"], status, "{host}");
            assert_eq!(answer.headers["grpc-message"], message, "{host}");
            assert!(answer.trailers.is_empty());
            let line = observer.line();
            assert!(line.contains(&format!("\"grpc_status\":{status}")), "{line}");
        }
        // Others get what they got before.
        for kind in ["application/json", "application/grpc-web+proto"] {
            let asked = request(Method::POST, "a.test", "/", &[("content-type", kind)]);
            assert_eq!(peer.ask(asked).await.status, 404, "{kind}");
            assert!(!observer.line().contains("grpc_status"));
        }
    });
}

#[test]
fn the_access_log_has_the_status_of_calls() {
    let endpoint = H2Endpoint::start(|request, mut respond| async move {
        if request.uri().path() == "/a.B/C" {
            return echo(request, respond).await;
        }
        let fields = [("content-type", "application/grpc"), ("grpc-status", "5")];
        respond.send_response(response(200, &fields), true).expect("sent");
    });
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    let format = Format::Logfmt;
    let observer = Observer::of(&mesh, Some(AccessLog { format, query: false, path: None }));
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        ask(&mut peer, "a.test").await;
        assert!(observer.line().contains(" grpc_status=0 "));
        let fields = [("content-type", "application/grpc")];
        peer.ask(request(Method::POST, "a.test", "/other", &fields)).await;
        assert!(observer.line().contains(" grpc_status=5 "));
    });
    let counted = mesh.service_stats().grpc;
    assert_eq!((counted.ok, counted.not_found, counted.unknown), (1, 1, 0));
}

/// The client makes a status of the code by itself, and may repeat a refused call.
#[test]
fn resets_before_the_response_arrive_with_their_code() {
    for code in [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM, Reason::REFUSED_STREAM] {
        let endpoint =
            H2Endpoint::start(move |_, mut respond| async move { respond.send_reset(code) });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, _body) = peer.begin(call("a.test"), true).await;
            let failed = answer(response).await.expect_err("a reset");
            assert_eq!(failed.reason(), Some(code));
        });
    }
}

/// A stream of messages may pause for any time, as a WebSocket may. An upload may not.
#[test]
fn a_client_of_grpc_may_be_silent() {
    let endpoint = H2Endpoint::start(|request, mut respond| async move {
        let mut frames = request.into_body();
        let head = response(200, &[("content-type", "application/grpc")]);
        let mut stream = respond.send_response(head, false).expect("sent");
        let Ok((body, _)) = read(&mut frames).await else { return };
        stream.send_data(body.into(), false).expect("sent");
        stream.send_trailers(trailers(&[("grpc-status", "0")])).expect("sent");
    });
    let mut config = Config::default();
    config.timeouts.idle = Some(Duration::from_millis(200));
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (upload, mut more) = peer.begin(request(Method::POST, "a.test", "/", &[]), false).await;
        let (response, mut body) = peer.begin(call("a.test"), false).await;
        send(&mut more, "one".into(), false).await.expect("sent");
        send(&mut body, "one".into(), false).await.expect("sent");
        // The pace of the attack, not a wait for something.
        sleep(Duration::from_millis(1000)).await;
        send(&mut body, "two".into(), true).await.expect("sent");
        assert_eq!(answer(response).await.expect("an answer").body, b"onetwo");
        answer(upload).await.expect_err("the upload has timed out");
    });
}

/// What a client says of its body must not hold a connection of an HTTP/1.1 endpoint.
#[test]
fn a_call_to_an_http1_endpoint_may_not_pause() {
    let endpoint = Endpoint::start();
    let mut config = Config::default();
    config.timeouts.idle = Some(Duration::from_millis(200));
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _body) = peer.begin(call("a.test"), false).await;
        // The table of gRPC has no status for 408.
        assert_eq!(answer(response).await.expect("an answer").headers["grpc-status"], "2");
    });
    assert_eq!(mesh.service_stats().errors.body_timeout, 1);
}

/// The head and the first message of a response, which the endpoint then leaves.
fn began() -> Vec<u8> {
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, 0, 1, b"message")].concat()
}

/// As without a gateway, where a lost connection is UNAVAILABLE to clients: they may try again.
#[test]
fn a_lost_server_ends_the_response_with_a_status() {
    let go_away = frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]);
    let no_frame = frame(DATA, 0, 0, b"a stream is missing");
    for (what, last, resets) in [
        ("closed", vec![], false),
        ("reset", vec![], true),
        ("GOAWAY with an error", go_away, false),
        ("GOAWAY below the stream", frame(GOAWAY, 0, 0, &[0; 8]), false),
        ("no HTTP/2", no_frame, false),
    ] {
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[]);
            connection.until(HEADERS);
            connection.0.write_all(&began()).expect("sent");
            // The client has the message, and says so.
            connection.until(DATA);
            connection.0.write_all(&last).expect("sent");
            if resets {
                let linger = Some(Duration::ZERO);
                socket2::SockRef::from(&connection.0).set_linger(linger).expect("an option");
            }
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        let format = Format::Logfmt;
        let observer = Observer::of(&mesh, Some(AccessLog { format, query: false, path: None }));
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, mut body) = peer.begin(call("a.test"), false).await;
            let mut answer = response.await.expect("a head").into_body();
            assert_eq!(answer.data().await.expect("a message").expect("no error"), "message");
            body.send_data("go".into(), false).expect("sent");
            let (rest, trailers) = read(&mut answer).await.expect("an end");
            assert!(rest.is_empty(), "{what}");
            assert_eq!(trailers["grpc-status"], "14", "{what}");
            let message = trailers["grpc-message"].to_str().expect("text");
            assert!(message.starts_with("the service "), "{what}: {message}");
        });
        let line = observer.line();
        assert!(line.contains(" grpc_status=14 ") && line.contains(" status=200 "), "{line}");
        assert!(line.contains(" error="), "{line}");
        let stats = mesh.service_stats();
        let errors = stats.errors.upstream_closed + stats.errors.bad_response;
        assert_eq!((stats.grpc.unavailable, errors), (1, 1), "{what}");
    }
}

/// Of the gateway's own limits, too.
#[test]
fn a_limit_ends_the_response_with_a_status() {
    let endpoint = H2Endpoint::start(|_, mut respond| async move {
        let head = response(200, &[("content-type", "application/grpc+proto")]);
        let _stream = respond.send_response(head, false).expect("sent");
        pending::<()>().await;
    });
    let mut config = Config::default();
    config.limits.body_bytes = Some(1000);
    let mesh = Mesh::to(config, &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, mut body) = peer.begin(call("a.test"), false).await;
        let mut answer = response.await.expect("a head").into_body();
        body.send_data(vec![b'x'; 2000].into(), false).expect("sent");
        let (_, trailers) = read(&mut answer).await.expect("an end");
        assert_eq!(trailers["grpc-status"], "2");
        assert_eq!(trailers["grpc-message"], "the request body is too long");
    });
    assert_eq!(mesh.service_stats().grpc.unknown, 1);
}

/// Its reset, and responses that are none of gRPC.
#[test]
fn other_responses_that_break_off_are_reset() {
    let cancel = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    for (fields, last, code) in [
        (vec![("content-type", "application/grpc")], cancel, Reason::CANCEL),
        (vec![("content-type", "text/plain")], vec![], Reason::INTERNAL_ERROR),
    ] {
        let head = block(&[vec![(":status", "200")], fields].concat());
        let endpoint = RawEndpoint::start(move |_, mut connection| {
            connection.begin(&[]);
            connection.until(HEADERS);
            connection.send(HEADERS, END_HEADERS, 1, &head);
            connection.send(DATA, 0, 1, b"message");
            connection.until(DATA);
            connection.0.write_all(&last).expect("sent");
        });
        let mesh = Mesh::to(Config::default(), &endpoint.address);
        run(async {
            let mut peer = Peer::connect(mesh.address()).await;
            let (response, mut body) = peer.begin(call("a.test"), false).await;
            let mut answer = response.await.expect("a head").into_body();
            assert_eq!(answer.data().await.expect("a message").expect("no error"), "message");
            body.send_data("go".into(), false).expect("sent");
            let failed = read(&mut answer).await.expect_err("it is cut off");
            assert_eq!(failed.reason(), Some(code));
        });
    }
}

/// RFC 9113 section 8.1.1: less than the length that was promised is no response, whatever its trailers say.
#[test]
fn a_response_shorter_than_its_length_is_reset() {
    let endpoint = Endpoint::start();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 99\r\n\r\n";
    endpoint.script(vec![Do::Send(format!("{head}message").into()), Do::Close]);
    let mesh = Mesh::to(Config::default(), &endpoint.address);
    run(async {
        let mut peer = Peer::connect(mesh.address()).await;
        let (response, _) = peer.begin(call("a.test"), true).await;
        let failed = answer(response).await.expect_err("it is cut off");
        assert_eq!(failed.reason(), Some(Reason::INTERNAL_ERROR));
    });
}
