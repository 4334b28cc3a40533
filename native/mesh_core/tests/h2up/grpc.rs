//! What gRPC clients need beyond HTTP/2.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Method, Request};
use mesh_core::observe::{AccessLog, Format};
use mesh_core::{Config, UpstreamAddr};
use tokio::time::sleep;

use crate::observer::Observer;
use crate::support::endpoint::Endpoint;
use crate::support::h2_endpoint::{H2Endpoint, echo, response, trailers};
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
